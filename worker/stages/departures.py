"""The departures of a cycle: the observation table with reason code (qc), H(x_b), H(x_a) and spreads; Parquet and ODB-2.
(IODA: service/observations/encode_ioda.py.)

ODB-2 columns and codes follow ECMWF's feedback archive (codes.ecmwf.int/odb: varno, obstype, codetype, datum_status).
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from service.observations.odb_codes import ACTIVE, HEIGHT, OBSTYPE_CODETYPE, PASSIVE, PRESSURE, REJECTED, VARNO
from service.observations.reasons import Reason
from worker.model import Array, Model
from worker.stages.observed import Observed, with_columns


def with_analysis(controlled: pa.Table, analysis: Array, model: Model, valid_time: datetime) -> pa.Table:
    """`controlled` with `analysis` and `analysis_spread` (SI): H(x_a) mean and spread; null without equivalent."""
    observed = Observed(controlled)
    usable = np.isfinite(observed.number("background"))
    mean, spread = np.full(len(observed), np.nan), np.full(len(observed), np.nan)
    if usable.any():
        members = model.equivalents(analysis, observed.observations(valid_time).where(usable))
        mean[usable] = members.mean(axis=0, dtype=np.float64)
        if len(members) > 1:
            spread[usable] = members.std(axis=0, ddof=1, dtype=np.float64)
    return with_columns(controlled, {"analysis": mean.astype(np.float32), "analysis_spread": spread.astype(np.float32)})


def write_parquet(table: pa.Table, path: Path) -> None:
    """The departures as they are, `qc` as the number of service.observations.reasons.Reason."""
    pq.write_table(table, path, compression="zstd")


def write_odb2(table: pa.Table, path: Path, valid_time: datetime) -> None:
    """The departures as ODB-2. Raises ValueError for an empty table, which ODB-2 cannot hold."""
    import pyodc

    if not table.num_rows:
        raise ValueError("ODB-2 cannot hold a file without rows")
    with path.open("wb") as file:
        pyodc.encode_odb(odb_frame(table, valid_time), file, types=_types(pyodc.constants.DataType))


def odb_frame(table: pa.Table, valid_time: datetime) -> pd.DataFrame:
    """One row per value under ECMWF's column names; departures are O-B and O-A
    of the values less their bias, as there."""
    observed = Observed(table)
    time = table.column("time").cast(pa.timestamp("s"), safe=False).to_pandas()
    reason = observed.number("qc").astype(np.int64)
    pressure, height = observed.given_pressure, observed.number("height")
    by_height = np.isnan(pressure) & ~np.isnan(height)
    report, entry = _reports(observed, table)
    active = np.isin(report, report[reason == Reason.ASSIMILATED])
    kinds = np.array([OBSTYPE_CODETYPE.get(str(kind), (0, 0)) for kind in observed.type], np.int64).reshape(-1, 2)
    return pd.DataFrame(
        {
            "andate": np.full(len(observed), int(f"{valid_time:%Y%m%d}"), np.int64),
            "antime": np.full(len(observed), int(f"{valid_time:%H%M%S}"), np.int64),
            "seqno@hdr": report,
            "obstype@hdr": kinds[:, 0],
            "codetype@hdr": kinds[:, 1],
            "statid@hdr": observed.station.astype(object),
            "source@hdr": observed.text("source").astype(object),
            "date@hdr": time.dt.strftime("%Y%m%d").astype(np.int64).to_numpy(),
            "time@hdr": time.dt.strftime("%H%M%S").astype(np.int64).to_numpy(),
            "lat@hdr": observed.number("latitude"),
            "lon@hdr": observed.number("longitude"),
            "report_status@hdr": np.where(active, ACTIVE, REJECTED),
            "entryno@body": entry,
            "varno@body": np.array([VARNO.get(str(name), 0) for name in observed.variable], np.int64),
            "vertco_type@body": np.where(by_height, HEIGHT, PRESSURE),
            "vertco_reference_1@body": np.where(by_height, height, pressure),
            "obsvalue@body": observed.number("value"),
            "biascorr@body": np.nan_to_num(observed.number("bias")),
            "fg_depar@body": observed.value - observed.number("background"),
            "an_depar@body": observed.value - observed.number("analysis"),
            "datum_status@body": _status(reason),
            "obs_error@errstat": observed.number("error"),
            "final_obs_error@errstat": observed.error,
            "fg_error@errstat": observed.number("background_spread"),
            "an_error@errstat": observed.number("analysis_spread"),
            "weight@alignda": observed.number("weight"),
            "reason@alignda": reason,
            "id@alignda": observed.text("id").astype(object),
        }
    )


def _reports(observed: Observed, table: pa.Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Number of the report (station, type, time) of each value, and of the value in it; both from 1."""
    times = table.column("time").cast(pa.int64()).to_numpy()
    keys = zip(observed.station.tolist(), observed.type.tolist(), times.tolist(), strict=True)
    numbers: dict[tuple[str, str, int], int] = {}
    counted: dict[int, int] = {}
    report = np.array([numbers.setdefault(key, len(numbers) + 1) for key in keys], np.int64)
    entry = np.zeros(len(report), np.int64)
    for i, number in enumerate(report.tolist()):
        entry[i] = counted[number] = counted.get(number, 0) + 1
    return report, entry


def _status(reason: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    passive = np.isin(reason, [int(kind) for kind in (Reason.PASSIVE, Reason.WITHHELD, Reason.SUPEROBBED)])
    return np.where(reason == Reason.ASSIMILATED, ACTIVE, np.where(passive, PASSIVE, REJECTED))


def _types(data_type: Any) -> dict[str, Any]:
    """Real numbers must stay real where they happen to be whole: pyodc would guess integers."""
    names = (
        "lat@hdr",
        "lon@hdr",
        "vertco_reference_1@body",
        "obsvalue@body",
        "biascorr@body",
        "fg_depar@body",
        "an_depar@body",
        "obs_error@errstat",
        "final_obs_error@errstat",
        "fg_error@errstat",
        "an_error@errstat",
        "weight@alignda",
    )
    return {name: data_type.DOUBLE for name in names}
