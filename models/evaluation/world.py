"""What all methods of an evaluation share: the truth, the forecast model and the scorer; and how one analysis is run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from models.assimilation import Assimilator
from models.evaluation.extremes import thresholds
from models.evaluation.method import Given, Method, States
from models.evaluation.observing import case_seed
from models.evaluation.quality import without_gross_errors
from models.evaluation.scoring import Cost, Forecasts, Scorer
from models.evaluation.truth_run import TruthRun
from models.networks.denoiser import DenoiserNetwork
from models.observation_operator import ObservationSet

BACKGROUND_HOURS = 48  # age of a first background, as in the paper
FORECAST_HOURS = 48  # of the forecasts that are verified
THRESHOLD_STATES = 200  # from which the extremes' quantiles are taken


@dataclass(frozen=True)
class World:
    """One bundle at work beside one truth."""

    assimilator: Assimilator
    truth: TruthRun
    scorer: Scorer

    @classmethod
    def of(cls, assimilator: Assimilator, truth: TruthRun, climate: TruthRun, times: Sequence[datetime]) -> "World":
        """`times` of the run `climate` (thinned evenly to 200) give the thresholds of the extremes."""
        chosen = times[:: max(1, -(-len(times) // THRESHOLD_STATES))]
        limits = thresholds((climate.state(t) for t in chosen), assimilator.spec.channels)
        total_std = assimilator.bundle.climate.total_std.cpu().numpy()
        return cls(assimilator, truth, Scorer(assimilator.spec, total_std, limits))

    @property
    def step(self) -> timedelta:
        """From one cycle to the next."""
        return timedelta(hours=self.assimilator.spec.step_hours)

    def first_background(self, valid_time: datetime) -> States:
        """The 48 h forecast from the truth two days before: [1, channel, latitude, longitude]."""
        base = valid_time - timedelta(hours=BACKGROUND_HOURS)
        return self.forecast(self.truth.state(base)[None], base, BACKGROUND_HOURS)

    def forecast(self, states: States, valid_time: datetime, hours: int) -> States:
        """All members `hours` later, in one batch; only the last step is kept."""
        *_, last = self.assimilator.forecast(states, valid_time, hours // self.assimilator.spec.step_hours)
        return last

    def forecasts(self, analyses: Sequence[States], valid_time: datetime) -> list[Forecasts | None]:
        """48 h forecasts from the mean and the first member of each method's analysis, all in one batch.

        None where the truth ends before.
        """
        end = valid_time + timedelta(hours=FORECAST_HOURS)
        if not self.truth.holds(end) or not analyses:
            return [None] * len(analyses)
        starts = np.stack([state for a in analyses for state in (a.mean(axis=0), a[0])])
        later, truth = self.forecast(starts, valid_time, FORECAST_HOURS), self.truth.state(end)
        return [Forecasts(later[2 * i], later[2 * i + 1], truth) for i in range(len(analyses))]

    def given(
        self,
        background: States,
        observations: ObservationSet,
        valid_time: datetime,
        lead_hours: float,
        seed: int,
        screened: bool,
    ) -> Given:
        """The input of one analysis: supported observations, gross errors taken out unless `screened` already."""
        usable = observations.select(self.assimilator.supported(observations))
        if not screened:
            usable = without_gross_errors(self.assimilator, usable, background, lead_hours)
        return Given(background, usable, valid_time, lead_hours, case_seed(seed, valid_time))

    def analyse(self, method: Method, given: Given) -> tuple[States, Cost]:
        """Run a method and count what it costs. Raises FloatingPointError when the analysis is not finite."""
        with counted() as runs:
            if self.assimilator.device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            analysis = method.analyse(given)
            seconds = time.perf_counter() - start
        if not np.isfinite(analysis).all():
            raise FloatingPointError(f"{method.name} at {given.valid_time:%Y-%m-%dT%H}: values that are not finite")
        cost = Cost(seconds=round(seconds, 4), evaluations=len(runs), evaluated_states=sum(runs))
        return np.asarray(analysis, np.float32), cost


@contextmanager
def counted() -> Iterator[list[int]]:
    """The batch size of every run of a denoiser, aligned or not, while the context lasts."""
    runs: list[int] = []

    def note(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, DenoiserNetwork):
            runs.append(len(arguments[0]))

    hook = register_module_forward_pre_hook(note)
    try:
        yield runs
    finally:
        hook.remove()
