"""The product's own analysis, and the two that make none, as methods of an evaluation."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.assimilation import AnalysisSettings, Assimilator
from models.evaluation.method import Given, Method, States
from models.evaluation.options import Options


@dataclass(frozen=True)
class Ours:
    """Guided samples of the prior, as a cycle of the worker draws them: error level first, then the ensemble.
    `estimated` False: the level of the bundle's table for this lead time, whatever the innovations say."""

    assimilator: Assimilator
    settings: AnalysisSettings
    estimated: bool = True
    name: str = "ours"

    def analyse(self, given: Given) -> States:
        level = self.assimilator.error_level(given.lead_hours)
        if self.estimated:
            departures = departures_of_mean(self.assimilator, given)
            level = self.assimilator.estimate_error_level(given.observations, departures, level, given.background)
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
    """`ours:guidance=mmps,members=16,steps=8,alignment=NAME,sampler=dpm,share=0.3,estimated=true,hydrostatic=true,
    remainder=false`; `share` of the network's correction is the product's own if it is not given."""
    given = options.typed(
        guidance="mmps", members=16, steps=8, sampler="dpm", alignment="", share=math.nan, estimated=True,
        hydrostatic=True, remainder=False,
    )  # fmt: skip
    estimated = given.pop("estimated")
    own = {"alignment": given["alignment"] or None, "share": None if math.isnan(given["share"]) else given["share"]}
    return Ours(assimilator, AnalysisSettings(**{**given, **own}), estimated)


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
