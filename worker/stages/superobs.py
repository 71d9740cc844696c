"""Superobs as rows of the controlled table: what stands for the values that `filters.thinning.averaged` took out."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from service.observations.reasons import Reason
from service.observations.table import SCHEMA, columns_to_table
from worker.stages.filters import Comparison, Setting
from worker.stages.filters.background import huber_weight
from worker.stages.filters.thinning import Superobs
from worker.stages.observed import Bools, Observed, with_columns

SOURCE = "superob"


def append_superobs(
    table: pa.Table,
    observed: Observed,
    comparison: Comparison,
    reasons: "np.ndarray[tuple[int], np.dtype[np.int16]]",
    setting: Setting,
    compare: Callable[[Observed], Comparison],
) -> tuple[pa.Table, int]:
    """`table` with a row for each superob, and how many there are.

    Their value is H(x_b) at the mean place plus the mean departure of what they stand for; the feed is "superob".
    """
    members: Bools = reasons == Reason.SUPEROBBED
    if not members.any():
        return table, 0
    some = observed.where(members)
    means = Superobs(some, comparison.where(members), setting)
    n = len(means.count)
    places = {
        "time": means.time.astype("datetime64[us]"), "receipt_time": means.received.astype("datetime64[us]"),
        "latitude": means.latitude, "longitude": means.longitude, "pressure": means.pressure, "height": means.height,
        "variable": some.variable[means.first].astype(object), "value": means.value, "error": means.error,
        "type": some.type[means.first].astype(object), "station": some.station[means.first].astype(object),
        "pressure_top": means.pressure_top, "source": np.full(n, SOURCE, object), "preqc": np.full(n, -1),
    }  # fmt: skip
    beside = compare(Observed(columns_to_table(places), setting.configuration))
    departure = means.value - means.background
    placed = np.isfinite(beside.background)
    places["value"] = np.where(placed, beside.background + departure, means.value)
    rows = Observed(columns_to_table(places), setting.configuration)
    weight = np.where(placed, huber_weight(rows, beside, setting), np.nan)
    qc = np.where(placed, int(Reason.ASSIMILATED), int(Reason.OUTSIDE_DOMAIN)).astype(np.int16)
    added = with_columns(
        rows.table,
        {
            "bias": np.full(n, np.nan, np.float32),
            "background": beside.background.astype(np.float32),
            "background_spread": beside.spread.astype(np.float32),
            "weight": weight.astype(np.float32),
            "qc": qc,
            "check_value": np.full(n, np.nan, np.float32),
            "check_limit": np.full(n, np.nan, np.float32),
        },
    ).select(table.column_names)
    plain = pa.schema(
        [SCHEMA.field(name) if name in SCHEMA.names else table.schema.field(name) for name in table.column_names]
    )
    joined = pa.concat_tables([table.cast(plain), added.cast(plain)])
    return joined.unify_dictionaries().combine_chunks(), n
