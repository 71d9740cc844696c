"""What is observed of a case: random grid values (the paper's protocol), or the simulated network.

Every method is given the same values. Random numbers follow from the seed and the valid time alone.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.evaluation.truth_run import TruthRun
from models.nature.clean import clean_reports
from models.nature.network import Network
from models.observation_operator import ObservationSet
from models.specification import BundleSpec

SMALLEST_ERROR = 0.01  # of a random grid value, in units of `total_std`, as every method is told it


class Observing(Protocol):
    """A source of observations. `screened`: gross errors have been taken out of them already."""

    @property
    def screened(self) -> bool: ...

    def at(self, valid_time: datetime) -> ObservationSet:
        """The observations of the window around this time."""


def case_seed(seed: int, valid_time: datetime) -> int:
    """One seed per case, the same for every method."""
    hours = int(valid_time.timestamp()) // 3600
    return int(np.random.SeedSequence([seed, abs(hours), int(hours < 0)]).generate_state(1)[0])


@dataclass(frozen=True)
class RandomGrid:
    """A share of all grid values of all channels, drawn anew for every case, observed at their grid points.

    `error` in units of `total_std` [channel] (SI) is the standard deviation of the noise. The methods are told that
    error, but never less than `SMALLEST_ERROR`: without an error R has no inverse (some methods add what the
    autoencoder cannot carry, `Assimilator.observation_error`).
    """

    truth: TruthRun
    spec: BundleSpec
    total_std: NDArray[np.floating]
    fraction: float
    error: float
    seed: int
    screened: bool = True

    def at(self, valid_time: datetime) -> ObservationSet:
        state = self.truth.state(valid_time)
        generator = np.random.default_rng([case_seed(self.seed, valid_time), 1])
        chosen = np.sort(generator.choice(state.size, round(self.fraction * state.size), replace=False))
        channel, row, column = np.unravel_index(chosen, state.shape)
        sigma = self.error * np.asarray(self.total_std, np.float64)[channel]
        levels = np.array([np.nan if c.level is None else 100.0 * c.level for c in self.spec.channels])
        return ObservationSet(
            variable=np.array([c.variable for c in self.spec.channels])[channel],
            pressure=levels[channel],
            latitude=np.array(self.spec.grid.latitudes)[row],
            longitude=np.array(self.spec.grid.longitudes)[column],
            value=state.reshape(-1)[chosen] + sigma * generator.standard_normal(len(chosen)),
            error=np.maximum(sigma, SMALLEST_ERROR * np.asarray(self.total_std, np.float64)[channel]),
        )


@dataclass(frozen=True)
class SimulatedNetwork:
    """The simulated network with perfect quality control: gross errors, repetitions and what came late are left out."""

    truth: TruthRun
    network: Network
    screened: bool = True

    def at(self, valid_time: datetime) -> ObservationSet:
        states, hours = self.truth.around(valid_time), float(self.truth.spec.step_hours)
        return clean_reports(self.network, states, valid_time, hours)
