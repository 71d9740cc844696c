"""What an experiment is: the configuration of its cycles, checked when it is created and recorded with it."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from service.observations.configuration import ObservationConfiguration, resolve

Guidance = Literal["obsfree", "dps", "repaint", "mmps"]
ReportType = Literal[
    "temp", "pilot", "amdar", "synop", "ship", "buoy", "satwind", "scatterometer", "gnssro", "sounder"
]  # fmt: skip


def _in_utc(moment: datetime) -> datetime:
    # also keeps window and forecast arithmetic away from the ends of the calendar.
    if not 1700 <= moment.year <= 2500:
        raise ValueError("give a time between the years 1700 and 2500")
    return moment.astimezone(UTC)


def _on_the_hour(moment: datetime) -> datetime:
    if (moment.minute, moment.second, moment.microsecond) != (0, 0, 0):
        raise ValueError("valid times are whole hours UTC")
    return moment


def _written_out(moment: object) -> object:
    """Seconds since 1970 are too easily something else."""
    if isinstance(moment, int | float) or (isinstance(moment, str) and not moment.strip()[4:5] == "-"):
        raise ValueError("give a time as in 2026-01-31T12:00:00Z")
    return moment


Utc = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
ValidTime = Annotated[Utc, AfterValidator(_on_the_hour)]

WORD = r"^[A-Za-z0-9_]{1,32}$"
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class Schedule(BaseModel):
    """Cycles at `start`, `start + every_hours`, ... up to and including `until` (for ever if not given)."""

    model_config = ConfigDict(extra="forbid")

    start: ValidTime
    every_hours: int = Field(default=6, ge=1, le=168)
    until: Utc | None = None

    @model_validator(mode="after")
    def in_order(self) -> Schedule:
        """A schedule that ends before it starts is a mistake."""
        if self.until is not None and self.until < self.start:
            raise ValueError("until lies before start")
        return self

    def valid_times(self, after: datetime | None, not_after: datetime, at_most: int) -> list[datetime]:
        """The first `at_most` valid times t with after < t <= not_after, in order."""
        end = not_after if self.until is None else min(not_after, self.until)
        every = timedelta(hours=self.every_hours)
        first = 0 if after is None or after < self.start else (after - self.start) // every + 1
        last = (end - self.start) // every
        return [self.start + number * every for number in range(first, min(last + 1, first + at_most))]


class Denial(BaseModel):
    """Observations that an experiment does without: of these types, of these variables, or (both given) of both."""

    model_config = ConfigDict(extra="forbid")

    types: list[Annotated[str, Field(pattern=WORD)]] = Field(default_factory=list, max_length=32)
    variables: list[Annotated[str, Field(pattern=WORD)]] = Field(default_factory=list, max_length=32)

    @model_validator(mode="after")
    def says_what(self) -> Denial:
        """Without a type and a variable it would deny nothing, or everything."""
        if not self.types and not self.variables:
            raise ValueError("name a type or a variable")
        return self

    def covers(self, report_type: str, variable: str) -> bool:
        """Are values of this pair denied?"""
        return (not self.types or report_type in self.types) and (not self.variables or variable in self.variables)


class Shadow(BaseModel):
    """An experiment that follows another: from `start` on it makes the other's cycles with a state of its own."""

    model_config = ConfigDict(extra="forbid")

    of: Annotated[str, Field(pattern=NAME_PATTERN)]
    start: ValidTime


class ExperimentConfig(BaseModel):
    """How each cycle of an experiment is made. Unknown keys are refused: a misspelt option must not pass unseen."""

    model_config = ConfigDict(extra="forbid")

    members: int = Field(default=16, ge=1, le=256)
    """Analyses sampled per cycle. More cost proportionally more and sharpen the spread."""
    window_hours: int = Field(default=6, ge=1, le=24)
    """Observations of [valid - w/2, valid + w/2) are used."""
    step_hours: int = Field(default=6, ge=1, le=24)
    """The step of the forecast model; must be the bundle's."""
    forecast_hours: int = Field(default=48, ge=0, le=720)
    """How far each analysis is rolled forward."""
    cutoff_minutes: int = Field(default=0, ge=0, le=100_000)
    """Scheduled cycles start this long after the end of their window, by the wall clock."""
    guidance: Guidance = "mmps"
    """How observations steer the sampler: none (obsfree), DPS, Repaint or MMPS-style Gauss-Newton."""
    sampler_steps: int = Field(default=8, ge=2, le=256)
    """Steps of the sampler; 16 to 32 are enough for second order."""
    alignment: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """The bundle's alignment to sample with; none: the prior as trained."""
    assimilate: bool = True
    """False: a free run, where the analysis is the background."""
    withheld_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the stations that are kept back and only compared with."""
    gross_check_sigma: float = Field(default=5.0, gt=0.0, le=1000.0)
    """Reject |O-B| above this many sigmas, where the type's configuration says nothing else."""
    use_types: list[ReportType] | None = None
    """Report types to use; none: all."""
    observations: dict[str, Any] = Field(default_factory=dict)
    """Changes to the shipped observation configuration (JSON Merge Patch), the only entry that may be changed later."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Start of all random numbers: the same seed and inputs give the same analysis."""
    denied: Denial | None = None
    """Observations to do without; they get the reason DENIED and are compared with the analysis."""
    shadow: Shadow | None = None
    """The experiment that it follows; set by POST /v1/experiments/{name}/shadow."""
    schedule: Schedule | None = None
    """When cycles are made without being asked for; none: only on request."""

    @field_validator("observations")
    @classmethod
    def a_configuration(cls, changes: dict[str, Any]) -> dict[str, Any]:
        """What comes out must be a configuration."""
        resolve(changes)
        return changes

    @property
    def observation_configuration(self) -> ObservationConfiguration:
        """The shipped configuration with the changes of this experiment."""
        return resolve(self.observations)

    @model_validator(mode="after")
    def whole_steps(self) -> ExperimentConfig:
        """The forecast ends on a step."""
        if self.forecast_hours % self.step_hours:
            raise ValueError(f"forecast_hours {self.forecast_hours} is not a multiple of step_hours {self.step_hours}")
        return self

    @model_validator(mode="after")
    def denies_what_there_is(self) -> ExperimentConfig:
        """A misspelt type would deny nothing, unseen."""
        if self.denied is not None:
            types = self.observation_configuration.types
            variables = {variable for kind in types.values() for variable in kind.variables}
            for named, known in ((self.denied.types, set(types)), (self.denied.variables, variables)):
                if unknown := set(named) - known:
                    raise ValueError(f"{', '.join(sorted(unknown))}: choose from {', '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def follows_no_clock(self) -> ExperimentConfig:
        """A shadow's cycles are made by those of the experiment that it follows."""
        if self.shadow is not None and self.schedule is not None:
            raise ValueError("a shadow follows the cycles of another experiment and has no schedule of its own")
        return self

    def check_alignment(self, bundle: Path) -> None:
        """Raises ValueError when the bundle in this folder has no such alignment."""
        if self.alignment is None:
            return
        known = sorted(path.stem for path in (bundle / "alignments").glob("*.json"))
        if self.alignment not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"bundle {bundle.name} has no alignment {self.alignment!r}: {there}")

    def cutoff(self, valid_time: datetime) -> datetime:
        """When a scheduled cycle may start."""
        return valid_time + timedelta(hours=self.window_hours / 2, minutes=self.cutoff_minutes)

    def cycle_seed(self, valid_time: datetime) -> int:
        """The seed of one cycle: fixed by the experiment's seed and the valid time, different for each."""
        return zlib.crc32(f"{self.seed}/{valid_time.astimezone(UTC):%Y%m%dT%H%M%S}".encode()) & 0x7FFFFFFF
