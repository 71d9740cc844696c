"""Verify: how good the background, the analysis and the earlier forecasts for this time were. Every score has a unit.

Against a posted verification: RMSE, spread-skill. Against the observations: departures. Of the state: balance.
"""

from datetime import timedelta

import numpy as np

from service.catalogue import NewScore
from service.fields.grid import Channel
from service.observations.reasons import Reason
from worker.model import Array
from worker.stages.field_files import mean_of, read_state, spread_of
from worker.stages.observed import Bools, Doubles, Observed
from worker.work import Result, Work

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
}


def run(work: Work) -> Result:
    """Scores of this valid time; those against a verification only if one has been posted."""
    scores = [*departure_scores(work), *balance_scores(work)]
    posted = work.catalogue.fields.verification(work.valid_time)
    if posted is not None:
        truth = read_state(work, posted.path)[0]
        scores += [*state_scores(work, truth), *forecast_scores(work, truth)]
    verified = f"against field {posted.id}" if posted is not None else "no verification posted for this time"
    return Result(f"{len(scores)} scores, {verified}", scores=scores)


def state_scores(work: Work, truth: Array) -> list[NewScore]:
    """RMSE of background and analysis mean per channel; spread-skill ratio of the analysis."""
    background, analysis = work.desk.array("background"), work.desk.array("analysis")
    error = work.model.rmse(mean_of(analysis)[0], truth)
    scores = [
        *_rmse_scores(work, "background", work.model.rmse(mean_of(background)[0], truth)),
        *_rmse_scores(work, "analysis", error),
    ]
    spread = spread_of(analysis)
    if spread is not None:
        ratio = spread_skill(work.model.rmse(spread[0], np.zeros_like(truth)), error, len(analysis))
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


def withheld_scores(work: Work, observed: Observed, field: str, departure: Doubles, withheld: Bools) -> list[NewScore]:
    """`withheld_rmse`: RMS departure of the observations that were kept back, at the level (hPa) nearest in ln p."""
    levels = np.array([channel.level for channel in work.description.channels if channel.level is not None])
    scores = []
    for variable in np.unique(observed.variable[withheld]):
        mine = withheld & (observed.variable == variable)
        pressure = observed.pressure[mine]
        if np.isnan(pressure).all():
            scores.append(_observation_score(work, "withheld_rmse", field, str(variable), rms(departure[mine])))
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
