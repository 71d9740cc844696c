"""Publish: the analysis, its increment, spread and members, every observation's departures, and what
quality control remembers, as products.

The files stand complete in the archive before the catalogue names them.
"""

from service import departure_statistics
from service import departures as departures_file
from service.catalogue import NewProduct
from service.observation_state import KIND
from service.observations.encode_ioda import write_ioda
from worker.model import Array
from worker.stages import gate
from worker.stages.departure_statistics import statistics
from worker.stages.departures import Departures, Taken, with_analysis, write_ids, write_odb2, write_parquet
from worker.stages.field_files import mean_of, publish_grib, publish_netcdf, spread_of
from worker.work import Result, Work


def run(work: Work) -> Result:
    """Leaves `departures` (table) on the desk."""
    background, analysis = work.desk.array("background"), work.desk.array("analysis")
    products = [*publish_analysis(work, background, analysis), *publish_departures(work, analysis)]
    state = work.desk.draft(f"{KIND}.parquet")
    write_parquet(work.desk.table(KIND), state)
    products.append(work.publish(state, KIND, "parquet", "parquet"))
    return Result(f"{len(products)} products", products=products)


def publish_analysis(work: Work, background: Array, analysis: Array) -> list[NewProduct]:
    """Mean, increment (mean analysis - mean background), spread and members; the last two if there are several."""
    mean = mean_of(analysis)
    increment = mean - mean_of(background)
    products = [
        publish_grib(work, mean, "analysis", "analysis"),
        publish_netcdf(work, mean, "analysis"),
        publish_grib(work, increment, "increment", "increment"),
        publish_netcdf(work, increment, "increment"),
    ]
    spread = spread_of(analysis)
    if spread is not None:
        products += [
            publish_grib(work, spread, "spread", "spread", members_total=len(analysis)),
            publish_netcdf(work, spread, "spread"),
            publish_grib(work, analysis, "members", "members"),
            publish_netcdf(work, analysis, "members"),
        ]
    return products


def publish_departures(work: Work, analysis: Array) -> list[NewProduct]:
    """Every value of the window with its reason, O-B and O-A: Parquet, and ODB-2 and IODA for the field's own tools."""
    departures = with_analysis(work.desk.table("controlled"), analysis, work.model, work.valid_time, taken(work))
    table = departures.table
    work.desk.put_table("departures", table)
    parquet, odb = work.desk.draft("departures.parquet"), work.desk.draft("departures.odb")
    ioda = work.desk.draft("departures.nc")
    write_parquet(table, parquet)
    products = [work.publish(parquet, "departures", "parquet", "parquet"), *publish_beside(work, departures)]
    if table.num_rows:  # ODB-2 and IODA have no empty file
        write_odb2(table, odb, work.valid_time)
        products.append(work.publish(odb, "departures", "odb2", "odb"))
        write_ioda(table, ioda)
        products.append(work.publish(ioda, "departures", "ioda", "nc"))
    return products


def taken(work: Work) -> Taken:
    """With which errors the accepted analysis was drawn, as the catalogue tells."""
    counts = work.catalogue.cycles.get(work.cycle.id).counts
    level = counts.get("error_level", work.model.error_level(work.background["lead_hours"]))
    accepted = counts.get("accepted")
    factor = gate.WEAKER if accepted == gate.WEAKER_GUIDANCE else 1.0
    return Taken(level, factor, fitted=accepted != gate.BACKGROUND)


def publish_beside(work: Work, departures: Departures) -> list[NewProduct]:
    """The statistics of the departures, and where each value stands in their file."""
    summary = statistics(departures)
    work.desk.put_table(departure_statistics.KIND, summary)
    draft, ids = work.desk.draft(f"{departure_statistics.KIND}.parquet"), work.desk.draft("departure_ids.npy")
    write_parquet(summary, draft)
    write_ids(departures.table, ids)
    return [
        work.publish(draft, departure_statistics.KIND, "parquet", "parquet"),
        work.publish(ids, departures_file.IDS, "npy", "npy"),
    ]
