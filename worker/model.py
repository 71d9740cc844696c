"""What a cycle needs of a model bundle, and the one place of the worker where `models` (and torch) is imported.

Arrays are float32, physical SI units, [member, channel, latitude, longitude]; observations are 1-D of length n.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from service.fields.grid import BundleDescription

if TYPE_CHECKING:
    from models.observation_operator import ObservationSet

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Observations:
    """n observed values: `pressure` in Pa (nan for surface variables), degrees, SI values and 1-sigma errors.

    `time_offset`: hours from the valid time of the analysis. `height` in m above sea level, of the station or of a
    value without a pressure; `pressure_top` in Pa, where a layer from `pressure` ends; nan: none.
    """

    variable: npt.NDArray[np.str_]
    pressure: Doubles
    latitude: Doubles
    longitude: Doubles
    value: Doubles
    error: Doubles
    time_offset: Doubles
    height: Doubles | None = None
    pressure_top: Doubles | None = None

    def __len__(self) -> int:
        return len(self.value)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Observations":
        """The values for which `chosen` [n] is true."""
        columns: dict[str, Any] = {k: None if column is None else column[chosen] for k, column in vars(self).items()}
        return Observations(**columns)

    def inflated(self, factor: float) -> "Observations":
        """The same values, believed less: errors times `factor`."""
        return Observations(**{**vars(self), "error": self.error * factor})


@dataclass(frozen=True)
class Sampling:
    """How analyses are drawn; see service.experiments.ExperimentConfig for each entry."""

    guidance: str
    members: int
    steps: int
    seed: int
    alignment: str | None = None


class Model(Protocol):
    """A bundle at work. Every method raises ValueError on shapes that are not its grid's."""

    @property
    def description(self) -> BundleDescription: ...

    def supported(self, observations: Observations) -> npt.NDArray[np.bool_]:
        """[n]: the variable is known and its level is bracketed by the bundle's."""

    def equivalents(self, state: Array, observations: Observations) -> Array:
        """H(x): [member, n], in the units of the observations; wind directions within 180 degrees of the observed."""

    def observation_error(self, observations: Observations) -> Doubles:
        """1-sigma errors as the analysis takes them: instrument, representativeness, time offset: [n]."""

    def background_error(self, observations: Observations, error_level: float) -> Doubles:
        """1-sigma error of a background of this level at each observation: [n]."""

    def analyse(
        self,
        background: Array | None,
        observations: Observations,
        valid_time: datetime,
        error_level: float,
        sampling: Sampling,
        progress: Progress,
    ) -> Array:
        """Draw `sampling.members` analyses given a background [m or 1, ...] (None: a cold start)."""

    def forecast(self, state: Array, valid_time: datetime, steps: int) -> Iterator[Array]:
        """The states 1, 2, ... `steps` steps later."""

    def error_level(self, lead_hours: float | None) -> float:
        """How wrong a background of this age is, in the bundle's own measure; None: there is none."""

    def estimate_error_level(
        self, observations: Observations, departures: Doubles, first: float, background: Array
    ) -> float:
        """The level that explains the departures O - mean(H(x_b)) [n].

        Starts from the spread of `background` [member, ...], or from `first` where it is a single state.
        """

    def climatology(self, valid_time: datetime) -> tuple[Array, Array]:
        """Mean and standard deviation [channel, latitude, longitude]."""

    def rmse(self, a: Array, b: Array) -> Array:
        """Area-weighted root mean square of a - b, both [channel, latitude, longitude]: [channel]."""

    def balance(self, state: Array) -> tuple[Array, Array]:
        """Geostrophic and hydrostatic adherence of each member, 0 to 1: [member], [member]."""


class BundleModel:
    """A `Model` from a bundle's folder. Loads torch: construct it in the process that computes, never before a fork."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        from models.assimilation import Assimilator

        self.description = BundleDescription.load(folder / "bundle.json")
        self._assimilator = Assimilator(folder, device=device)

    def supported(self, observations: Observations) -> npt.NDArray[np.bool_]:
        return np.asarray(self._assimilator.supported(_observation_set(observations)), bool)

    def equivalents(self, state: Array, observations: Observations) -> Array:
        return _array(self._assimilator.equivalents(state, _observation_set(observations)))

    def observation_error(self, observations: Observations) -> Doubles:
        return np.asarray(self._assimilator.observation_error(_observation_set(observations)), np.float64)

    def background_error(self, observations: Observations, error_level: float) -> Doubles:
        return np.asarray(self._assimilator.background_error(_observation_set(observations), error_level), np.float64)

    def analyse(
        self,
        background: Array | None,
        observations: Observations,
        valid_time: datetime,
        error_level: float,
        sampling: Sampling,
        progress: Progress,
    ) -> Array:
        from models.assimilation import AnalysisSettings

        settings = AnalysisSettings(**vars(sampling))
        given = _observation_set(observations)
        result = self._assimilator.analyse(background, given, valid_time, error_level, settings, progress)
        return _array(result.members)

    def forecast(self, state: Array, valid_time: datetime, steps: int) -> Iterator[Array]:
        for later in self._assimilator.forecast(state, valid_time, steps):
            yield _array(later)

    def error_level(self, lead_hours: float | None) -> float:
        return float(self._assimilator.error_level(lead_hours))

    def estimate_error_level(
        self, observations: Observations, departures: Doubles, first: float, background: Array
    ) -> float:
        given = _observation_set(observations)
        return float(self._assimilator.estimate_error_level(given, departures, first, background))

    def climatology(self, valid_time: datetime) -> tuple[Array, Array]:
        mean, deviation = self._assimilator.climatology(valid_time)
        return _array(mean), _array(np.broadcast_to(deviation, np.shape(mean)))

    def rmse(self, a: Array, b: Array) -> Array:
        from models.scores import rmse

        return _array(rmse(a, b, np.asarray(self.description.grid.latitudes)))

    def balance(self, state: Array) -> tuple[Array, Array]:
        from models.rewards import geostrophic_adherence, hydrostatic_adherence

        description = self._assimilator.spec
        return (
            _array(geostrophic_adherence(state, description)),
            _array(hydrostatic_adherence(state, description)),
        )


def _observation_set(observations: Observations) -> "ObservationSet":
    from models.observation_operator import ObservationSet

    return ObservationSet(**vars(observations))


def _array(values: npt.ArrayLike) -> Array:
    return np.asarray(values, np.float32)
