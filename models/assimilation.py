"""The analysis and the forecast of one cycle, on arrays in SI units: what the worker calls.

An analysis is an ensemble of guided samples of p(z | z_b, s) and their centre, the zero-noise sample (the mean of
the posterior where it is Gaussian). x_a = x_b + P (D(z_a) - D(z_b)): what the autoencoder cannot carry stays, and the
increment is cut to the truncation of the atmosphere (P, as in a forecast step).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import torch
from torch import Tensor

from models.climate import year_fraction
from models.covariance.guiding import BalancedGuide
from models.diffusion.denoiser import Denoiser
from models.diffusion.guidance import Covariance, Dps, Mmps, Repaint
from models.diffusion.prior import PriorDenoiser
from models.diffusion.samplers import ancestral, dpm_solver, heun, part_of
from models.ensemble import by_variable, recentred, updated, widened, with_model_error, without_negative
from models.error_model import FEWEST_MEMBERS_FOR_SPREAD, ErrorModel, States
from models.latent_observations import LatentObservations
from models.observation_operator import ObservationSet
from models.precision import networks_on

Progress = Callable[[float], None]

GUIDANCE = ("obsfree", "dps", "repaint", "mmps")
SAMPLERS = ("dpm", "heun", "ancestral")
# Chosen on the validation year (docs/record.md).
CYCLED_SHARE = 0.3  # of the network correction when the background is a cycled ensemble
# Of the perturbations of a cycled ensemble what is retained at its next analysis, so that slow errors of theirs do not add
# up. And the error of a model step that is added to them, in units of the bundle's table: that is of forecasts from the
# truth, and does not tie mass to wind.
WIND = ("u", "v", "u10", "v10")
RETAINED, RETAINED_OTHERWISE = dict.fromkeys(WIND, 0.97), 0.99
MODEL_ERROR = {**dict.fromkeys(WIND, 1.6), "q": 2.15, "t": 1.25, "t2m": 1.3, "z": 0.6, "sp": 0.6}
# No column of members is wider than this, in units of the climate's standard deviation: should they ever grow without end
# somewhere, as they did at a pole in a trial, an unattended cycle goes on.
WIDEST = 2.0
# What the perturbations of fresh samples (an analysis without a cycled ensemble) are multiplied by: without it they are
# narrower than their error.
FRESH, FRESH_OTHERWISE = {"q": 1.305}, 1.085
# Conjugate gradients of guidance: with B until they converge; with the poorer Gaussian reference stopped early, which holds back
# what it would make of real soundings far from its climate (docs/record.md, what grew).
CONVERGED, STOPPED_EARLY = 60, 12


@dataclass(frozen=True)
class AnalysisSettings:
    """How an analysis is sampled. `steps` levels of the sampler; `seed` fixes every random number; `share` of the
    network's correction to the Gaussian reference (None: CYCLED_SHARE for a cycled ensemble, otherwise all). `hydrostatic`:
    whether the mean of the analysis of a cycled ensemble is drawn to the bundle's hydrostatic balance
    (models.hydrostatic), where it has one; a single forecast is so near to balance that little is to be gained. `remainder`: whether such an analysis keeps
    what the autoencoder cannot carry of its background's wind: in cycles that is errors, which nothing else takes off."""

    guidance: str = "mmps"
    members: int = 16
    steps: int = 8
    seed: int = 0
    alignment: str | None = None
    share: float | None = None
    sampler: Literal["dpm", "heun", "ancestral"] = "dpm"
    hydrostatic: bool = True
    remainder: bool = False

    def __post_init__(self) -> None:
        if self.guidance not in GUIDANCE:
            raise ValueError(f"unknown guidance {self.guidance!r}; choose one of {', '.join(GUIDANCE)}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {self.sampler!r}; choose one of {', '.join(SAMPLERS)}")
        if self.members < 1:
            raise ValueError(f"an analysis needs at least one member, got {self.members}")


@dataclass(frozen=True)
class AnalysisResult:
    """`members` [member, channel, latitude, longitude] SI; `evaluations`: batched runs of the denoiser network."""

    members: States
    evaluations: int


class Assimilator(ErrorModel):
    """A bundle on a device, that makes analyses and forecasts. Raises models.bundle.BundleError when the bundle cannot be used."""

    def climatology(self, valid_time: datetime) -> tuple[States, States]:
        """Mean and standard deviation of the season: [channel, latitude, longitude] and [channel, 1, 1], SI."""
        climate = self.bundle.climate
        return climate.mean(valid_time).cpu().numpy(), climate.std[:, None, None].cpu().numpy()

    @torch.no_grad()
    def analyse(
        self,
        background: States | None,
        observations: ObservationSet,
        valid_time: datetime,
        error_level: float,
        settings: AnalysisSettings = AnalysisSettings(),
        progress: Progress | None = None,
        modulation: Tensor | None = None,
    ) -> AnalysisResult:
        """Sample the analysis ensemble.

        Args:
            background: [member, channel, latitude, longitude] SI, or None for a cold start. Its mean is the
                background, its spread (of eight members or more) says where the prior is wide.
            observations: all of them `supported`; may be empty.
            valid_time: of the analysis.
            error_level: of the background, from `error_level` or `estimate_error_level`.
            modulation: where the background is better or worse than that [row, column] of the latent, if it is
                known otherwise than by the spread.

        Returns:
            `settings.members` members centred on the zero-noise analysis.

        Raises:
            ValueError: an observation that is not supported, or an impossible setting.
            FloatingPointError: the background or the analysis is not finite.
        """
        climate, coder = self.bundle.climate, self.bundle.autoencoder
        if background is None:
            anomaly = torch.zeros(1, *climate.harmonics.shape[1:], device=self.device)
            z_b = torch.zeros_like(coder.encode(anomaly))
        else:
            mean = self._tensor(background).mean(dim=0, keepdim=True)
            if not bool(torch.isfinite(mean).all()):
                raise FloatingPointError("the background holds values that are not finite")
            anomaly = climate.normalise(mean, valid_time)
            z_b = coder.encode(anomaly)
        if modulation is None and background is not None:
            modulation = self._modulation(background)
        prior = self.bundle.statistics.at(error_level).modulated(modulation)
        cycled = background is not None and len(background) > 1
        share = settings.share
        if share is None:
            share = CYCLED_SHARE if cycled else 1.0
        denoiser = PriorDenoiser(self.bundle.aligned(settings.alignment), prior, z_b, year_fraction(valid_time), share)
        latent = LatentObservations(
            coder,
            climate,
            prior,
            anomaly,
            z_b,
            valid_time,
            self.operator(observations),
            self._tensor(observations.value),
            self._tensor(self.observation_error(observations)),
            self._kept(cycled and not settings.remainder),
        )
        guided = self._guide(denoiser, latent, settings.guidance, prior.gaussian.covariance_times, STOPPED_EARLY)
        guided_centre = guided
        if background is not None and self.bundle.covariance is not None:
            balanced = BalancedGuide(self.bundle.covariance, prior, coder)
            guided_centre = self._guide(denoiser, latent, settings.guidance, balanced.covariance_times)
        noise = torch.Generator(device=self.device).manual_seed(settings.seed)
        if background is not None and self._cycled(background, settings):
            centre = dpm_solver(
                guided_centre, torch.zeros_like(z_b), settings.steps, stochastic=False, progress=progress
            )
            perturbations = climate.normalise(self._tensor(background), valid_time) - anomaly
            perturbations = self._inflated(latent.without_remainder(perturbations), error_level, noise)
            state = latent.state(centre) + updated(perturbations, latent.linearised(centre), noise)
        else:
            state = latent.state(self._sample(guided, guided_centre, z_b, settings, noise, progress))
            if settings.sampler == "dpm":
                state = widened(state, self._by_variable(FRESH, FRESH_OTHERWISE))
        if background is not None:  # a cold start's increment is a whole state, with what mountains hold beyond it
            if settings.hydrostatic and self.bundle.hydrostatic is not None and cycled:
                mean = state.mean(dim=0, keepdim=True)  # drawn by itself each member may grow without end at the poles
                state = state + (self.bundle.hydrostatic.balanced(mean) - mean)
            state = anomaly + self.bundle.forecast.cut(state - anomaly)
        members = climate.denormalise(state, valid_time)
        members[:, self.moisture] = without_negative(members[:, self.moisture])
        if not bool(torch.isfinite(members).all()):
            raise FloatingPointError("the analysis holds values that are not finite")
        return AnalysisResult(members.cpu().numpy(), denoiser.evaluations)

    @torch.no_grad()
    def balanced(self, states: States, valid_time: datetime) -> States:
        """States [member, channel, latitude, longitude] SI, each drawn to the bundle's hydrostatic balance as the mean
        of `analyse` is. Raises ValueError when the bundle has none."""
        if self.bundle.hydrostatic is None:
            raise ValueError(f"the bundle {self.spec.name} has no hydrostatic balance; train its stage `hydrostatic`")
        x = self.bundle.climate.normalise(self._tensor(states), valid_time)
        x = x + self.bundle.forecast.cut(self.bundle.hydrostatic.balanced(x) - x)
        return self.bundle.climate.denormalise(x, valid_time).cpu().numpy()

    def _cycled(self, background: States, settings: AnalysisSettings) -> bool:
        """Whether the members of `background` live on, each with its own perturbation."""
        return len(background) == settings.members and len(background) >= FEWEST_MEMBERS_FOR_SPREAD

    def _inflated(self, perturbations: Tensor, error_level: float, noise: torch.Generator) -> Tensor:
        """What is retained of background perturbations, with the model's own error added, scaled up to `error_level`
        where they are smaller, and in each column down to `WIDEST`.

        Otherwise never down: see `estimate_error_level`.
        """
        model_error = self.bundle.statistics.at(self.error_level(self.spec.step_hours))
        amplitude = self._by_variable(MODEL_ERROR)
        retained = self._by_variable(RETAINED, RETAINED_OTHERWISE) * perturbations
        out = with_model_error(retained, model_error, self.bundle.autoencoder, noise, amplitude)
        out = out * max(1.0, error_level / float((out.var(dim=0) * self._area()).mean().sqrt()))
        width = out.var(dim=0).mean(dim=0).sqrt()
        return out * (WIDEST / width.clamp_min(WIDEST))

    def _kept(self, without_wind: bool) -> Tensor:
        """How much stays of what the autoencoder cannot carry, by channel: all, or all but the wind's."""
        kept = [0.0 if without_wind and c.variable in WIND else 1.0 for c in self.spec.channels]
        return torch.tensor(kept, device=self.device)[:, None, None]

    def _by_variable(self, numbers: Mapping[str, float], otherwise: float = 1.0) -> Tensor:
        return by_variable(self.spec.channels, numbers, otherwise).to(self.device)

    def _guide(
        self,
        denoiser: PriorDenoiser,
        latent: LatentObservations,
        guidance: str,
        covariance: Covariance,
        iterations: int = CONVERGED,
    ) -> Denoiser:
        if guidance == "obsfree" or not len(latent.value):
            return denoiser
        if guidance == "mmps":
            return Mmps(denoiser, latent, covariance, iterations=iterations, warm=iterations == CONVERGED)
        if guidance == "dps":
            return Dps(denoiser, latent, latent.spread())
        return Repaint(denoiser, latent.paint)

    def _sample(
        self,
        guided: Denoiser,
        guided_centre: Denoiser,
        z_b: Tensor,
        settings: AnalysisSettings,
        noise: torch.Generator,
        progress: Progress | None,
    ) -> Tensor:
        """Whitened increments [member, ...]: a centre from zero noise, members recentred on it."""
        shape = (settings.members, *z_b.shape[1:])
        start = torch.randn(shape, generator=noise, device=self.device)
        if settings.sampler == "heun":
            return heun(guided, start, settings.steps, progress=progress)
        if settings.sampler == "ancestral":
            return ancestral(guided, start, settings.steps, generator=noise, progress=progress)
        share = 1 / (settings.members + 1) if settings.members > 1 else 1.0
        told = part_of(progress, 0.0, share)
        centre = dpm_solver(guided_centre, torch.zeros_like(start[:1]), settings.steps, stochastic=False, progress=told)
        if settings.members == 1:
            return centre
        told = part_of(progress, share, 1.0)
        samples = dpm_solver(guided, start, settings.steps, stochastic=True, generator=noise, progress=told)
        return recentred(samples, centre)

    @torch.no_grad()
    def forecast(self, state: States, valid_time: datetime, steps: int) -> Iterator[States]:
        """Roll the learned model forward: yields `steps` states [member, ...] SI, one per `step_hours`."""
        climate = self.bundle.climate
        step = timedelta(hours=self.spec.step_hours)
        x = climate.normalise(self._tensor(state), valid_time)
        for _ in range(steps):
            season = torch.full((len(x),), year_fraction(valid_time), device=self.device)
            with networks_on(self.device):
                x = self.bundle.forecast(x, season)
            valid_time = valid_time + step
            physical = climate.denormalise(x, valid_time)
            physical[:, self.moisture] = physical[:, self.moisture].clamp_min(0.0)
            x = climate.normalise(physical, valid_time)
            yield physical.cpu().numpy()
