"""Forecast: roll every member forward with the bundle's learned model; publish mean and spread of each lead time.

The members one and two steps ahead are kept: they are the background of the next cycle, or of the one after a failure.
"""

from service.catalogue import NewProduct
from worker.model import Array
from worker.stages.field_files import mean_of, publish_grib, publish_netcdf, spread_of
from worker.stages.gate import range_fault
from worker.work import Result, Work, fallback

STEPS_OF_MEMBERS = 2  # kept even when no forecast is asked for


def run(work: Work) -> Result:
    """Publishes `forecast` and `spread` to `config.forecast_hours`, `members` to two steps."""
    step = work.description.step_hours
    steps = max(work.config.forecast_hours // step, STEPS_OF_MEMBERS)
    products: list[NewProduct] = []
    for number, members in enumerate(work.model.forecast(work.desk.array("analysis"), work.valid_time, steps), start=1):
        lead = number * step
        if fault := range_fault(members, work.description):
            detail = f"at +{lead} h {fault}: nothing is published from there on"
            return Result(detail, products=products, degraded=[fallback("forecast_unphysical", detail)])
        if number <= STEPS_OF_MEMBERS:
            products.append(publish_netcdf(work, members, "members", lead))
        if lead <= work.config.forecast_hours:
            products += publish_lead(work, members, lead)
        work.progress(number / steps, f"+{lead} h")
    return Result(f"{len(products)} products to +{steps * step} h", products=products)


def publish_lead(work: Work, members: Array, lead: int) -> list[NewProduct]:
    """Mean (of a single state: itself) and, of several members, spread."""
    spread = spread_of(members)
    if spread is None:
        return [
            publish_grib(work, members, "forecast", "forecast", lead),
            publish_netcdf(work, members, "forecast", lead),
        ]
    mean, total = mean_of(members), len(members)
    return [
        publish_grib(work, mean, "forecast", "mean", lead, total),
        publish_netcdf(work, mean, "forecast", lead),
        publish_grib(work, spread, "spread", "spread", lead, total),
        publish_netcdf(work, spread, "spread", lead),
    ]
