"""The product's own analysis, and the two that make none, as methods of an evaluation."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.assimilation import AnalysisSettings, Assimilator
from models.evaluation.method import Given, Method, States
from models.evaluation.options import Options


@dataclass(frozen=True)
class Ours:
    """Guided samples of the prior, as a cycle of the worker draws them: error level first, then the ensemble."""

    assimilator: Assimilator
    settings: AnalysisSettings
    name: str = "ours"

    def analyse(self, given: Given) -> States:
        departures = departures_of_mean(self.assimilator, given)
        level = self.assimilator.estimate_error_level(
            given.observations,
            departures,
            self.assimilator.error_level(given.lead_hours),
            given.background,
        )
        settings = replace(self.settings, seed=given.seed)
        result = self.assimilator.analyse(given.background, given.observations, given.valid_time, level, settings)
        return result.members


@dataclass(frozen=True)
class Unchanged:
    """The background is the analysis: a free run of the forecast model, the floor of every comparison."""

    name: str = "background"

    def analyse(self, given: Given) -> States:
        return given.background


def ours(assimilator: Assimilator, options: Options) -> Method:
    """`ours:guidance=mmps,members=16,steps=8,alignment=NAME,sampler=dpm`."""
    given = options.typed(guidance="mmps", members=16, steps=8, sampler="dpm", alignment="")
    return Ours(assimilator, AnalysisSettings(**{**given, "alignment": given["alignment"] or None}))


def unchanged(_: Assimilator, options: Options) -> Method:
    """`free`, `background`."""
    options.typed()
    return Unchanged()


def departures_of_mean(assimilator: Assimilator, given: Given) -> NDArray[np.float64]:
    """y - mean H(x_b): [n]."""
    departures: NDArray[np.float64] = given.observations.value - assimilator.equivalents(
        given.background, given.observations
    ).mean(axis=0)
    return departures
