"""What can be configured about observations, per type, per variable, and for the checks. Unknown keys are refused.

Levels are pressures in hPa, values and errors SI units. A profile is linear in ln p between its levels, constant beyond.
"""

from __future__ import annotations

from datetime import UTC
from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Utc = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"the first of {list(bounds)} must be the smaller one")
    return bounds


Bounds = Annotated[tuple[Finite, Finite], AfterValidator(_in_order)]
ErrorModel = Positive | Annotated[dict[Positive, Positive], Field(min_length=1)]
Limits = Bounds | Annotated[dict[Positive, Bounds], Field(min_length=1)]


class Usage(StrEnum):
    """`use`: assimilated if it passes; `monitor`: checked and compared, never assimilated; `reject`: not looked at."""

    USE = "use"
    MONITOR = "monitor"
    REJECT = "reject"


class Strict(BaseModel):
    """Values cannot be changed, unknown keys not be given: a misspelt option must not pass unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Thinning(Strict):
    """Boxes of `distance_km` x `depth` (ln p; surface: one layer) x `hours`, each type and variable for itself.

    `thin` keeps the report nearest to the analysis time and the middle of the box, `superob` averages all of the box.
    """

    method: Literal["none", "thin", "superob"] = "none"
    distance_km: Positive = 100.0
    depth: Positive = 0.1
    hours: Positive = 6.0
    fewest: int = Field(default=3, ge=2)
    """Values that make a superob; fewer stay as they are."""
    correlation: float = Field(default=0.5, ge=0.0, le=1.0)
    """Of the errors in a box: sigma^2 of a superob of n is sigma^2 (1/n + correlation (1 - 1/n))."""


class BiasCorrection(Strict):
    """A bias that is estimated from the departures, cycle by cycle, and taken off the value.

    value = truth + sum_k beta_k p_k + beta_station + error; see docs/observations.md for the update.
    """

    predictors: tuple[Literal["constant", "height", "ascent", "descent"], ...] = ("constant",)
    prior_std: Positive
    """1-sigma of the coefficients before anything was seen (unit of the variable): the ridge."""
    memory_days: Positive = 30.0
    """How soon certainty is lost while a sensor is silent or changes."""
    station: bool = False
    """A constant of its own for each station with at least `fewest` cycles."""
    fewest: int = Field(default=8, ge=1)


class VariableConfiguration(Strict):
    """One variable of a type."""

    usage: Usage = Usage.USE
    operator: Literal["pressure_level", "surface", "reduced"]
    """How the model's equivalent is made: `pressure_level` in the air, at its pressure or height; `surface` as the model
    has it on its own ground; `reduced` from there to the height of the station, where that is known."""
    error: ErrorModel | None = None
    """1-sigma of values that bring none; none: only values with an error of their own are used."""
    limits: Limits | None = None
    """Gross limits: what is outside cannot be."""
    first_guess: Positive | None = None
    """Sigmas of the first-guess check; none: the experiment's `gross_check_sigma`."""
    buddy: Positive | None = None
    """Sigmas of the buddy check; none: that of `checks.buddy`."""
    huber: Positive | None = None
    """Normalised departures beyond this lose weight; none: that of `checks.huber`."""
    bias: BiasCorrection | None = None


class TypeConfiguration(Strict):
    """One report type."""

    usage: Usage = Usage.USE
    """The stricter of this and the variable's counts."""
    window_hours: Bounds | None = None
    """Hours from the analysis time; none: the experiment's window."""
    thinning: Thinning = Thinning()
    fastest: Positive | None = None
    """m s-1: a platform that moved faster between two reports was not where it said; none: no track check."""
    withheld: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of this type's stations that are never assimilated; none: the general `withheld.share`."""
    fixed: bool = False
    """A station that does not move: reports from elsewhere under its name are wrong."""
    variables: dict[str, VariableConfiguration] = Field(default_factory=dict)


class Denied(Strict):
    """Values that are not used: all conditions that are given must hold. `station` may end in `*`."""

    station: str | None = Field(default=None, min_length=1, max_length=64)
    type: str | None = None
    variables: tuple[str, ...] = ()
    start: Utc | None = None
    end: Utc | None = None
    why: str = Field(default="", max_length=500)

    @model_validator(mode="after")
    def says_what(self) -> Denied:
        """An entry without a station and a type would deny everything."""
        if self.station is None and self.type is None:
            raise ValueError("name a station or a type")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError("end lies before start")
        return self


class Duplicates(Strict):
    """Between feeds the same value differs by rounding: it is found on a grid of these widths.

    Soundings of a station through any feeds that are no further apart than `ascent_minutes` are one ascent.
    """

    minutes: Positive
    degrees: Positive
    pascal: Positive
    ascent_minutes: Positive
    sources: tuple[str, ...] = ()
    """Feeds in the order in which they are preferred; those not named come last."""


class Level(Strict):
    """Height against pressure: |height - height of the standard atmosphere| in m, where a value has both."""

    furthest: Positive


class Hydrostatic(Strict):
    """`sigmas` of the residual of a layer; `curvature` in K per unit of ln p: what a straight line in ln p misses."""

    sigmas: Positive
    curvature: Positive


class Lapse(Strict):
    """`sigmas` by which a layer may be less stable than dry adiabatic; `near_ground`, K more below 0.9 of the lowest p.

    `inversion`: K per unit of ln p, the steepest that there is.
    """

    sigmas: Positive
    near_ground: Positive
    inversion: Positive


class Wind(Strict):
    """`turned`: degrees between observed and background direction where both blow above `speed` (m s-1)."""

    turned: Positive
    speed: Positive
    fastest: Annotated[dict[Positive, Positive], Field(min_length=1)]


class Track(Strict):
    """`slack_km`, `slack_minutes`: how much positions and times are rounded."""

    slack_km: Positive
    slack_minutes: Positive
    adrift_degrees: Positive
    """How far from its median position a fixed station may be."""


class Stuck(Strict):
    """`levels` equal values in a row over `depth` of ln p, or equal values of a station for `hours` in `reports`."""

    levels: int = Field(ge=3)
    depth: Positive
    hours: Positive
    reports: int = Field(ge=3)


class FirstGuess(Strict):
    """How far the limits follow the running statistics: the ratio of seen to expected departures, within `bounds`."""

    fewest: int = Field(ge=2)
    days: Positive
    bounds: Bounds


class Buddy(Strict):
    """Correlation exp(-(r/length_km)^2 / 2 - (dlnp/depth)^2 / 2) of background errors; `neighbours` per value.

    Values closer to the background than `innocent` sigmas are not questioned.
    """

    sigmas: Positive
    innocent: Positive
    length_km: Positive
    depth: Positive
    neighbours: int = Field(ge=2, le=32)
    fewest: int = Field(ge=1)


class Checks(Strict):
    """The numbers of the checks that are the same for all types."""

    ahead_minutes: Positive
    """A report may be valid this long after it was received: clocks differ."""
    huber: Positive
    duplicates: Duplicates
    level: Level
    hydrostatic: Hydrostatic
    lapse: Lapse
    wind: Wind
    track: Track
    stuck: Stuck
    first_guess: FirstGuess
    buddy: Buddy


class Withheld(Strict):
    """Stations that are never assimilated and verify every cycle: those with crc32("seed/station") / 2^32 < share."""

    share: float | None = Field(default=None, ge=0.0, le=1.0)
    """None: the experiment's `withheld_fraction`."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """None: the experiment's. Experiments with equal seeds withhold the same stations."""


class ObservationConfiguration(Strict):
    """All of it."""

    checks: Checks
    withheld: Withheld = Withheld()
    types: dict[str, TypeConfiguration]
    denylist: tuple[Denied, ...] = ()

    def of(self, report_type: str, variable: str) -> VariableConfiguration | None:
        """The entry of a pair; None where there is none."""
        kind = self.types.get(report_type)
        return None if kind is None else kind.variables.get(variable)

    def usage(self, report_type: str, variable: str) -> Usage:
        """The stricter of the type's and the variable's. A pair without an entry is used with the error it brings."""
        kind, entry = self.types.get(report_type), self.of(report_type, variable)
        order = [Usage.USE, Usage.MONITOR, Usage.REJECT]
        given = [part.usage for part in (kind, entry) if part is not None]
        return max(given, key=order.index, default=Usage.USE)


def at_pressure(profile: float | dict[float, float], pressure: ArrayLike) -> NDArray[np.float64]:
    """A profile (levels in hPa) at `pressure` (Pa, any shape), linear in ln p, constant beyond its ends.

    nan where the pressure is nan and the profile has more than one level.
    """
    p = np.asarray(pressure, dtype=np.float64)
    if not isinstance(profile, dict):
        return np.full(p.shape, float(profile))
    if len(profile) == 1:
        return np.full(p.shape, next(iter(profile.values())))
    levels = np.array(sorted(profile))
    with np.errstate(invalid="ignore", divide="ignore"):
        ln_p = np.log(p / 100.0)
    return np.asarray(np.interp(ln_p, np.log(levels), [profile[level] for level in levels]))
