"""Verify: how good the background, the analysis and the earlier forecasts for this time were. Every score has a unit.

Against a posted verification: RMSE, spread-skill; also after the end of the cycle, when a newer one is posted
(worker.late_verification). Against the observations: departures. Of the state: balance.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from service import departure_statistics
from service.archive import ArchiveError
from service.catalogue import NewScore
from service.catalogue.tables import Field
from service.fields.errors import FieldError
from service.fields.grid import Channel
from service.observations.reasons import Reason
from worker.model import Array
from worker.stages.field_files import mean_of, read_state, spread_of
from worker.stages.observed import Bools, Doubles, Observed
from worker.work import CycleError, Result, Work

UNITS = {
    "z": "m2 s-2",
    "q": "kg kg-1",
    "u": "m s-1",
    "v": "m s-1",
    "t": "K",
    "t2m": "K",
    "u10": "m s-1",
    "v10": "m s-1",
    "sp": "Pa",
    "ws": "m s-1",
    "wdir": "degree",
    "rh": "1",
    "td": "K",
    "gh": "m",
    "h": "m",
    "refractivity": "1",
    "tlayer": "K",
    "tb": "K",
    "msl": "Pa",
    "td2m": "K",
    "rh2m": "1",
    "ws10": "m s-1",
    "wdir10": "degree",
}


class NotComparable(CycleError):
    """A verification that says nothing about this cycle, and why."""


@dataclass(frozen=True)
class Verified:
    """What is verified: means of background and analysis [channel, latitude, longitude], the analysis' spread
    (None: a single state) and its number of members.
    """

    background: Array
    analysis: Array
    spread: Array | None
    members: int


def run(work: Work) -> Result:
    """Scores of this valid time; those against a verification only if one has been posted."""
    scores = [*departure_scores(work), *statistics_scores(work), *balance_scores(work)]
    posted = work.catalogue.fields.verification(work.valid_time)
    if posted is None:
        return Result(f"{len(scores)} scores, no verification posted for this time", scores=scores)
    try:
        scores += scores_against(work, posted, of_desk(work))
    except NotComparable as reason:
        return Result(f"{len(scores)} scores; {reason}", scores=scores, verified_with=posted.id)
    return Result(f"{len(scores)} scores, against field {posted.id}", scores=scores, verified_with=posted.id)


def scores_against(work: Work, posted: Field, verified: Verified) -> list[NewScore]:
    """All scores against a posted verification. Raises NotComparable when it is gone or not on the bundle's grid."""
    try:
        truth = read_state(work, posted.path)[0]
    except (FieldError, ArchiveError) as error:
        raise NotComparable(f"field {posted.id} does not verify bundle {work.description.name}: {error}") from error
    return [*state_scores(work, verified, truth), *forecast_scores(work, truth)]


def of_desk(work: Work) -> Verified:
    """As the stages of this cycle have just left it."""
    background, analysis = work.desk.array("background"), work.desk.array("analysis")
    spread = spread_of(analysis)
    return Verified(mean_of(background)[0], mean_of(analysis)[0], None if spread is None else spread[0], len(analysis))


def of_products(work: Work) -> Verified:
    """As an ended cycle has published it: the mean background is the mean analysis less the increment.

    Raises NotComparable when a product is gone.
    """
    analysis, increment = (_product(work, kind) for kind in ("analysis", "increment"))
    if analysis is None or increment is None:
        raise NotComparable("the cycle's analysis or increment is not among its products")
    spread = _product(work, "spread")
    return Verified(analysis - increment, analysis, spread, int(work.cycle.counts["members"]))


def _product(work: Work, kind: str) -> Array | None:
    product = work.catalogue.products.find(work.cycle.id, kind, "netcdf")
    if product is None:
        return None
    try:
        return np.asarray(read_state(work, product.path)[0])
    except (FieldError, ArchiveError) as error:
        raise NotComparable(f"the cycle's {kind} cannot be read: {error}") from error


def state_scores(work: Work, verified: Verified, truth: Array) -> list[NewScore]:
    """RMSE of background and analysis mean per channel; spread-skill ratio of the analysis."""
    error = work.model.rmse(verified.analysis, truth)
    scores = [
        *_rmse_scores(work, "background", work.model.rmse(verified.background, truth)),
        *_rmse_scores(work, "analysis", error),
    ]
    if verified.spread is not None:
        ratio = spread_skill(work.model.rmse(verified.spread, np.zeros_like(truth)), error, verified.members)
        scores += [
            _score(work, "spread_skill_ratio", "analysis", value, "1", channel)
            for channel, value in zip(work.description.channels, ratio, strict=True)
        ]
    return scores


def spread_skill(spread: Array, error: Array, members: int) -> Array:
    """sqrt((m+1)/m) spread / RMSE of the mean, 1 for a reliable ensemble of m (Fortin et al. 2014, eq. 15); [channel]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt((members + 1) / members) * spread / error, np.float32)


def forecast_scores(work: Work, truth: Array) -> list[NewScore]:
    """RMSE of the experiment's earlier forecasts that are valid now."""
    scores = []
    longest = timedelta(hours=work.config.forecast_hours)
    for cycle in work.catalogue.cycles.completed_before(work.cycle.experiment_id, work.valid_time, longest):
        lead = int((work.valid_time - cycle.valid_time) / timedelta(hours=1))
        forecast = work.catalogue.products.find(cycle.id, "forecast", "netcdf", lead)
        if forecast is not None:
            error = work.model.rmse(read_state(work, forecast.path)[0], truth)
            scores += _rmse_scores(work, "forecast", error, lead)
    return scores


def departure_scores(work: Work) -> list[NewScore]:
    """RMS and bias of O-B and O-A per variable and report type; of the withheld ones per variable and level."""
    observed = Observed(work.desk.table("departures"))
    reason = observed.number("qc")
    used = reason == (Reason.ASSIMILATED if work.config.assimilate else Reason.PASSIVE)
    scores: list[NewScore] = []
    for field in ("background", "analysis"):
        departure = observed.value - observed.number(field)
        for variable in np.unique(observed.variable[used]):
            of_variable = used & (observed.variable == variable)
            scores += _departure_scores(work, field, str(variable), "", departure[of_variable])
            for kind in np.unique(observed.type[of_variable]):
                some = departure[of_variable & (observed.type == kind)]
                scores += _departure_scores(work, field, str(variable), str(kind), some)
        scores += withheld_scores(work, observed, field, departure, reason == Reason.WITHHELD)
    return scores


def statistics_scores(work: Work) -> list[NewScore]:
    """What `departure_statistics` says of the whole globe: counts, chi-square, DFS, diagnosed over assumed errors."""
    use = "assimilated" if work.config.assimilate else "passive"
    scores = []
    if not work.desk.has(departure_statistics.KIND):  # published by a version before this one
        return []
    for row in work.desk.table(departure_statistics.KIND).to_pylist():
        if row["use"] == use and not row["layer"] and not row["region"]:
            scores += _of_statistics(work, row)
    return scores


def _of_statistics(work: Work, row: dict[str, Any]) -> list[NewScore]:
    known = {"departure_count": ("background", float(row["count"])), "chi_square": ("background", row["chi_square"])}
    if row["variable"]:
        known["sigma_o_ratio"] = ("observation", _ratio(row["sigma_o_diagnosed"], row["sigma_o"]))
        known["sigma_b_ratio"] = ("background", _ratio(row["sigma_b_diagnosed"], row["sigma_b"]))
    else:
        known |= {name: ("analysis", row[name]) for name in ("dfs", "dfs_error", "dfs_departures")}
    return [
        NewScore(name, field, value, "1", work.valid_time, row["variable"], type=row["type"])
        for name, (field, value) in known.items()
        if value is not None and np.isfinite(value)
    ]


def _ratio(diagnosed: float | None, assumed: float | None) -> float | None:
    return diagnosed / assumed if diagnosed is not None and assumed else None


def withheld_scores(work: Work, observed: Observed, field: str, departure: Doubles, withheld: Bools) -> list[NewScore]:
    """`withheld_rmse`: RMS departure of the observations that were kept back, at the level (hPa) nearest in ln p, and over all."""
    levels = np.array([channel.level for channel in work.description.channels if channel.level is not None])
    scores = []
    for variable in np.unique(observed.variable[withheld]):
        mine = withheld & (observed.variable == variable)
        pressure = observed.pressure[mine]
        scores.append(_observation_score(work, "withheld_rmse", field, str(variable), rms(departure[mine])))
        if np.isnan(pressure).all():
            continue
        nearest = levels[np.argmin(np.abs(np.log(pressure[:, None] / 100.0) - np.log(levels)), axis=1)]
        scores += [
            _observation_score(
                work, "withheld_rmse", field, str(variable), rms(departure[mine][nearest == level]), level=float(level)
            )
            for level in np.unique(nearest)
        ]
    return scores


def balance_scores(work: Work) -> list[NewScore]:
    """Geostrophic and hydrostatic adherence as the gate measured them."""
    balance = work.catalogue.cycles.get(work.cycle.id).counts["balance"]
    return [
        NewScore(f"balance_{kind}", field, value, "1", work.valid_time)
        for field, values in balance.items()
        for kind, value in zip(("geostrophic", "hydrostatic"), values, strict=True)
    ]


def rms(values: Doubles) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def _departure_scores(work: Work, field: str, variable: str, kind: str, departure: Doubles) -> list[NewScore]:
    return [
        _observation_score(work, "departure_rms", field, variable, rms(departure), kind),
        _observation_score(work, "departure_bias", field, variable, float(np.mean(departure)), kind),
    ]


def _observation_score(
    work: Work, name: str, field: str, variable: str, value: float, kind: str = "", level: float | None = None
) -> NewScore:
    return NewScore(name, field, value, UNITS[variable], work.valid_time, variable, level, None, kind)


def _rmse_scores(work: Work, field: str, error: Array, lead: int | None = None) -> list[NewScore]:
    return [
        _score(work, "rmse", field, value, UNITS[channel.variable], channel, lead)
        for channel, value in zip(work.description.channels, error, strict=True)
    ]


def _score(
    work: Work, name: str, field: str, value: float, unit: str, channel: Channel, lead: int | None = None
) -> NewScore:
    return NewScore(name, field, float(value), unit, work.valid_time, channel.variable, channel.level, lead)
