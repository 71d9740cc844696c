"""What a filter is given and what it is: a short pure function from values to those that it rejects."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from service.experiments import ExperimentConfig
from service.observations.configuration import ObservationConfiguration, TypeConfiguration, VariableConfiguration
from service.observations.reasons import Reason
from worker.stages.observed import Bools, Doubles, Integers, Observed

Group = tuple[str, str, int]
"""Report type, variable, layer: half an octave of pressure around 2^(layer/2) 1000 hPa, 9 at the surface."""
SURFACE_LAYER = 9


@dataclass(frozen=True)
class Comparison:
    """The values beside the background: H(x_b), the spread of its members and the error to be expected of it and of
    the observation, each [n]; nan where the model has no equivalent."""

    background: Doubles
    spread: Doubles
    background_error: Doubles
    observation_error: Doubles

    def where(self, chosen: Bools) -> "Comparison":
        return Comparison(**{name: column[chosen] for name, column in vars(self).items()})

    @property
    def sigma_b(self) -> Doubles:
        """The larger of the members' spread and the error of a background of this age [n]."""
        return np.fmax(self.spread, self.background_error)

    @property
    def expected(self) -> Doubles:
        """1-sigma of O-B to be expected [n]."""
        return np.asarray(np.sqrt(self.observation_error**2 + np.nan_to_num(self.sigma_b) ** 2))


@dataclass(frozen=True)
class Unchanged:
    """A station's value that did not change: since when (microseconds since 1970), in how many reports."""

    value: float
    since: int
    reports: int


@dataclass(frozen=True)
class Setting:
    """What is known beside the values: configuration, time, and what earlier cycles have seen."""

    config: ExperimentConfig
    configuration: ObservationConfiguration
    valid_time: datetime
    ratios: Mapping[Group, float] = field(default_factory=dict)
    """Seen over expected departures of earlier cycles."""
    unchanged: Mapping[tuple[str, str, str], Unchanged] = field(default_factory=dict)
    """By (type, station, variable)."""

    def kind(self, report_type: str) -> TypeConfiguration:
        return self.configuration.types.get(report_type, TypeConfiguration())

    def entries(self, observed: Observed) -> Iterator[tuple[TypeConfiguration, VariableConfiguration | None, Integers]]:
        """(type's entry, variable's entry, positions of the values) for each pair that occurs."""
        for kind, variable, rows in observed.pairs():
            yield self.kind(kind), self.configuration.of(kind, variable), rows


@dataclass(frozen=True)
class Verdict:
    """Which values a check rejects, and for each value the number that decided and its limit (docs/observations.md
    says what they are for which check); nan where there is none. Each [n]."""

    rejected: Bools
    value: Doubles
    limit: Doubles

    @classmethod
    def of(cls, judged: "Bools | Verdict") -> "Verdict":
        """Of a check that decides without a number."""
        if isinstance(judged, Verdict):
            return judged
        none = np.full(len(judged), np.nan)
        return cls(judged, none, none)


Rejects = Callable[[Observed, Comparison, Setting], Bools | Verdict]


@dataclass(frozen=True)
class Filter:
    """One check: its name in the counts, the reason it gives, and what it rejects."""

    name: str
    reason: Reason
    rejects: Rejects
    kept: bool = False
    """Its number is also kept of values that pass every check."""


def layers(pressure: Doubles) -> Integers:
    """The layer of each value, see `Group`: [n]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        layer = np.round(np.log2(pressure / 1e5) * 2)
    return np.where(np.isfinite(layer), layer, SURFACE_LAYER).astype(np.int64)


def groups(observed: Observed) -> Iterator[tuple[Group, Integers]]:
    """(group, positions of its values) for each that occurs."""
    layer = layers(observed.pressure)
    for kind, variable, rows in observed.pairs():
        for which in np.unique(layer[rows]):
            yield (kind, variable, int(which)), rows[layer[rows] == which]
