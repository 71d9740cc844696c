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
from models.nature.random_values import random_values
from models.observation_operator import ObservationSet
from models.specification import BundleSpec


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
    """A share of all grid values of all channels, drawn anew for every case (`models.nature.random_values`)."""

    truth: TruthRun
    spec: BundleSpec
    total_std: NDArray[np.floating]
    fraction: float
    error: float
    seed: int
    screened: bool = True

    def at(self, valid_time: datetime) -> ObservationSet:
        generator = np.random.default_rng([case_seed(self.seed, valid_time), 1])
        state = self.truth.state(valid_time)
        return random_values(state, self.spec, self.total_std, self.fraction, self.error, generator)


@dataclass(frozen=True)
class SimulatedNetwork:
    """The simulated network with perfect quality control: gross errors, repetitions and what came late are left out."""

    truth: TruthRun
    network: Network
    screened: bool = True

    def at(self, valid_time: datetime) -> ObservationSet:
        states, hours = self.truth.around(valid_time), float(self.truth.spec.step_hours)
        return clean_reports(self.network, states, valid_time, hours)
