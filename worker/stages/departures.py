"""The departures of a cycle: the observation table with reason code (qc), H(x_b), H(x_a) and spreads; Parquet and ODB-2.
(IODA: service/observations/encode_ioda.py.)

ODB-2 columns and codes follow ECMWF's feedback archive (codes.ecmwf.int/odb: varno, obstype, codetype, datum_status).
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from service.departures import id_numbers
from service.observations.odb_codes import ACTIVE, HEIGHT, OBSTYPE_CODETYPE, PASSIVE, PRESSURE, REJECTED, VARNO
from service.observations.reasons import Reason
from worker.model import Array, Model
from worker.stages.analyse import weighted
from worker.stages.influence import normalised_perturbations, self_sensitivity
from worker.stages.observed import Bools, Doubles, Observed, with_columns

ADDED = ("analysis", "analysis_spread", "observation_error", "background_error", "influence")
ROW_GROUP = 32_768  # rows; a query of one observation reads one group


@dataclass(frozen=True)
class Taken:
    """How the accepted analysis took the observations."""

    error_level: float
    """Of the background error (the bundle's own measure)."""
    error_factor: float = 1.0
    """Errors times this, where the gate had it drawn with weaker guidance."""
    fitted: bool = True
    """False: the background is the analysis; no observation has influence."""


@dataclass(frozen=True)
class Departures:
    """The table of a cycle, and of the rows `used` the perturbations [member, used] that their influence is from."""

    table: pa.Table
    used: Bools
    perturbations: Doubles | None


def with_analysis(
    controlled: pa.Table, analysis: Array, model: Model, valid_time: datetime, taken: Taken
) -> Departures:
    """`controlled` with H(x_a) (mean and spread), the errors that the analysis took (1-sigma, SI; Huber's weight not
    in them) and the influence of what it used; null where there is no equivalent or no influence."""
    observed = Observed(controlled)
    columns = {name: np.full(len(observed), np.nan) for name in ADDED}
    usable = np.isfinite(observed.number("background"))
    used = usable & (observed.number("qc") == Reason.ASSIMILATED) & taken.fitted & (len(analysis) > 1)
    perturbations = None
    if usable.any():
        some = observed.observations(valid_time).where(usable)
        members = model.equivalents(analysis, some)
        columns["analysis"][usable] = members.mean(axis=0, dtype=np.float64)
        columns["observation_error"][usable] = model.observation_error(some)
        columns["background_error"][usable] = model.background_error(some, taken.error_level)
        if len(members) > 1:
            columns["analysis_spread"][usable] = members.std(axis=0, ddof=1, dtype=np.float64)
        if used.any():
            error = _error_taken(observed.where(used), columns["observation_error"][used], model, valid_time, taken)
            perturbations = normalised_perturbations(members[:, used[usable]].astype(np.float64), error)
            columns["influence"][used] = self_sensitivity(perturbations)
    full = with_columns(controlled, {name: column.astype(np.float32) for name, column in columns.items()})
    return Departures(full, used, perturbations)


def given_error(observed: Observed, observation_error: Doubles) -> Doubles:
    """1-sigma error that the analysis gave each value: R divided by Huber's weight, [n]."""
    weight = observed.number("weight")
    return np.asarray(observation_error / np.sqrt(np.where(weight > 0, weight, 1.0)))


def _error_taken(
    used: Observed, observation_error: Doubles, model: Model, valid_time: datetime, taken: Taken
) -> Doubles:
    """1-sigma error [n] with which the accepted analysis was drawn."""
    given = weighted(used.observations(valid_time), used.number("weight"), observation_error)
    return model.observation_error(given.inflated(taken.error_factor))


def write_parquet(table: pa.Table, path: Path) -> None:
    """The departures as they are, `qc` as the number of service.observations.reasons.Reason."""
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


def write_ids(table: pa.Table, path: Path) -> None:
    """Where each value stands in the file: [2, n] of the sorted `id` as numbers, and the rows that they are in.

    Read with a memory map, a value is found in it by bisection (service.departures.rows_of).
    """
    ids = id_numbers(table.column("id").to_pylist())
    order = np.argsort(ids, kind="stable")
    with path.open("wb") as file:
        np.save(file, np.stack([ids[order], order.astype(np.uint64)]), allow_pickle=False)


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
            "influence@alignda": observed.number("influence"),
            "check_value@alignda": observed.number("check_value"),
            "check_limit@alignda": observed.number("check_limit"),
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
    passive = np.isin(
        reason, [int(kind) for kind in (Reason.PASSIVE, Reason.WITHHELD, Reason.DENIED, Reason.SUPEROBBED)]
    )
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
        "influence@alignda",
        "check_value@alignda",
        "check_limit@alignda",
    )
    return {name: data_type.DOUBLE for name in names}
