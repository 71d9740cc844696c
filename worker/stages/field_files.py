"""Fields into the archive, as GRIB2 for everyone's tools and CF netCDF at full precision, and back."""

from datetime import timedelta

import numpy as np

from service.catalogue import NewProduct
from service.fields.contract import from_array, to_array
from service.fields.grib import Product, write_grib
from service.fields.netcdf import read_netcdf, write_netcdf
from worker.model import Array
from worker.work import Work

MOST_MEMBERS = 256  # service.experiments.ExperimentConfig.members


def publish_grib(
    work: Work, state: Array, kind: str, product: Product, lead_hours: int = 0, members_total: int | None = None
) -> NewProduct:
    """`state` [member or 1, channel, latitude, longitude] as GRIB2."""
    draft = work.desk.draft(f"{kind}_{lead_hours:03d}.grib2")
    write_grib(
        draft,
        state,
        work.description,
        base_time=work.valid_time,
        step_hours=lead_hours,
        product=product,
        members_total=members_total,
    )
    return work.publish(draft, kind, "grib2", "grib2", lead_hours)


def publish_netcdf(work: Work, state: Array, kind: str, lead_hours: int = 0) -> NewProduct:
    """`state` [member or 1, channel, latitude, longitude] as CF netCDF; float32, so nothing is lost."""
    draft = work.desk.draft(f"{kind}_{lead_hours:03d}.nc")
    dataset = from_array(
        state,
        work.description,
        work.valid_time + timedelta(hours=lead_hours),
        base_time=work.valid_time,
        step_hours=lead_hours,
        attributes={"experiment": work.experiment, "members": int(work.config.members), "seed": work.cycle.seed},
    )
    write_netcdf(draft, dataset, product=kind)
    return work.publish(draft, kind, "netcdf", "nc", lead_hours)


def read_state(work: Work, key: str) -> Array:
    """A state of the bundle's grid from the archive: [member or 1, channel, latitude, longitude]."""
    dataset = read_netcdf(
        work.archive.existing(key), maximum_values=MOST_MEMBERS * int(np.prod(work.description.shape))
    )
    return to_array(dataset, work.description)


def mean_of(members: Array) -> Array:
    """[1, channel, latitude, longitude]"""
    return np.asarray(members.mean(axis=0, keepdims=True, dtype=np.float64), np.float32)


def spread_of(members: Array) -> Array | None:
    """Standard deviation over the members (n - 1): [1, channel, latitude, longitude]; None for a single state."""
    if len(members) < 2:
        return None
    return np.asarray(members.std(axis=0, ddof=1, keepdims=True, dtype=np.float64), np.float32)
