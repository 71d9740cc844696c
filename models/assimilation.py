"""The analysis and the forecast of one cycle, on arrays in SI units: what the worker calls.

An analysis is an ensemble of guided samples of p(z | z_b, s) and their centre, the zero-noise sample (the mean of
the posterior where it is Gaussian). x_a = x_b + P (D(z_a) - D(z_b)): what the autoencoder cannot carry stays, and the
increment is cut to the truncation of the atmosphere (P, as in a forecast step).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.bundle import Bundle
from models.climate import year_fraction
from models.covariance.guiding import BalancedGuide
from models.diffusion.denoiser import Denoiser
from models.diffusion.guidance import Covariance, Dps, Mmps, Repaint
from models.diffusion.prior import PriorDenoiser
from models.diffusion.samplers import ancestral, dpm_solver, heun, part_of
from models.ensemble import by_channel, recentred, updated, with_model_error, without_negative
from models.grid import area_weights
from models.latent_observations import LatentObservations
from models.networks.layers import pad_sphere
from models.observation_operator import ObservationOperator, ObservationSet, channel_values, supported
from models.operators.surface import climb, ground_of, reduction_error
from models.specification import BundleSpec

States = NDArray[np.float32]  # [member, channel, latitude, longitude], SI
Floats = NDArray[np.float64]
Progress = Callable[[float], None]

GUIDANCE = ("obsfree", "dps", "repaint", "mmps")
SAMPLERS = ("dpm", "heun", "ancestral")
OUTLIER = 4.0  # a departure counts as at most this many of its expected sigma in the estimate of the error level
INFLATION_BOUNDS = (0.7, 1.5)
FEW_REPORTS = 200.0  # as many count as much as the first guess
FEWEST_MEMBERS_FOR_SPREAD = 8
# Chosen on the validation year (docs/science.md).
CYCLED_SHARE = 0.3  # of the network correction when the background is a cycled ensemble
# Of the error that is added to the members for each model step, in units of the bundle's table: of the other channels
# and of moisture. The table is of forecasts from the truth, made by an earlier forecast model.
MODEL_ERROR_DRY, MODEL_ERROR_MOIST = 0.75, 1.5
# What the perturbations of fresh samples (an analysis without a cycled ensemble) are multiplied by: without it they are
# narrower than their error.
FRESH_DRY, FRESH_MOIST = 1.12, 1.35
MODULATION_BOUNDS = (0.3, 2.0)
# Conjugate gradients of guidance: with B until they converge; with the poorer Gaussian reference stopped early, which holds back
# what it would make of real soundings far from its climate (docs/science.md, real soundings).
CONVERGED, STOPPED_EARLY = 60, 12


@dataclass(frozen=True)
class AnalysisSettings:
    """How an analysis is sampled. `steps` levels of the sampler; `seed` fixes every random number; `share` of the
    network's correction to the Gaussian reference (None: CYCLED_SHARE for a cycled ensemble, otherwise all)."""

    guidance: str = "mmps"
    members: int = 16
    steps: int = 8
    seed: int = 0
    alignment: str | None = None
    share: float | None = None
    sampler: Literal["dpm", "heun", "ancestral"] = "dpm"

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


def modulation_of(variance: Tensor, area: Tensor, patch: int) -> Tensor:
    """Where an error variance [latitude, longitude] is above or below its mean: m [row, column] of the latent.

    Smoothed over neighbouring latent columns and bounded; `area` [latitude, 1] is the weight of each row.
    """
    parts = functional.avg_pool2d(torch.stack([variance * area, area.expand_as(variance)])[:, None], patch)
    smooth, weight = (functional.avg_pool2d(pad_sphere(field[None]), 3, stride=1)[0, 0] for field in parts)
    mean = (variance * area).mean().sqrt()
    return ((smooth / weight).sqrt() / mean).clamp(*MODULATION_BOUNDS)


class Assimilator:
    """A bundle on a device. Raises models.bundle.BundleError when the bundle cannot be used."""

    def __init__(self, bundle: Path | Bundle, device: str = "auto") -> None:
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.device = torch.device(chosen)
        self.bundle = bundle.to(self.device) if isinstance(bundle, Bundle) else Bundle.load(bundle, self.device)
        self.spec = self.bundle.spec
        self.moisture = [i for i, c in enumerate(self.spec.channels) if c.variable == "q"]

    @property
    def description(self) -> BundleSpec:
        """Grid, channels and references of the bundle."""
        return self.spec

    def supported(self, observations: ObservationSet) -> NDArray[np.bool_]:
        """Which observations the operator can compute from the state. [n]"""
        return supported(observations, self.spec.channels, self.ground is not None)

    def operator(self, observations: ObservationSet) -> ObservationOperator:
        """H for these observations, which must be `supported`."""
        return ObservationOperator(observations, self.spec.grid, self.spec.channels, self.device, self.ground)

    @cached_property
    def ground(self) -> Floats | None:
        """Height of the model's own ground [latitude, longitude], gpm; None where the state does not tell it."""
        return ground_of(self._mean_state, self.spec.channels)

    @cached_property
    def _mean_state(self) -> Tensor:
        """The annual mean of the climate: [1, channel, latitude, longitude], SI."""
        return self.bundle.climate.harmonics[:1]

    def equivalents(self, state: States, observations: ObservationSet) -> Floats:
        """H(x): [member, channel, latitude, longitude] SI -> [member, n] SI. A wind direction lies within 180 degrees
        of the observed value, so that differences of the two are taken on the circle."""
        return self.operator(observations)(self._tensor(state)).double().cpu().numpy()

    def climatology(self, valid_time: datetime) -> tuple[States, States]:
        """Mean and standard deviation of the season: [channel, latitude, longitude] and [channel, 1, 1], SI."""
        climate = self.bundle.climate
        return climate.mean(valid_time).cpu().numpy(), climate.std[:, None, None].cpu().numpy()

    def error_level(self, lead_hours: float | None) -> float:
        """Background-error level of a forecast of this age; None: no background (the climatology)."""
        table = self.spec.error_levels
        if lead_hours is None:
            return table.level[-1]
        known = [(h, s) for h, s in zip(table.lead_hours, table.level, strict=True) if h is not None]
        hours, levels = zip(*known, strict=True)
        return float(np.exp(np.interp(np.log(max(lead_hours, 1.0)), np.log(hours), np.log(levels))))

    def observation_error(self, observations: ObservationSet, autoencoder: bool = True) -> Floats:
        """Effective 1-sigma error [n], SI: instrument, what the autoencoder cannot carry, and time offset.

        R = error^2 + floor^2 + (offset / 6 h * tendency)^2, for surface values away from the model's ground also the error
        of their reduction: a report is used as if valid at analysis time. Methods
        that do not use the autoencoder leave out its floor (`autoencoder` False).
        """
        variance = observations.error**2 + self._reduction_error(observations) ** 2
        if autoencoder:
            variance = variance + self._at_observations(self._floor_si(), observations) ** 2
        if observations.time_offset is not None:
            tendency = self.bundle.climate.tendency_std.double().cpu().numpy()
            per_hour = self._at_observations(tendency, observations) / self.spec.step_hours
            variance = variance + (per_hour * observations.time_offset) ** 2
        return np.sqrt(variance)

    def _at_observations(self, per_channel: Floats, observations: ObservationSet) -> Floats:
        """A per-channel scale (SI) at each observation: [n]."""
        grid, channels = self.spec.grid, self.spec.channels
        return channel_values(per_channel, observations, grid, channels, self._mean_state, self.ground)

    def _reduction_error(self, observations: ObservationSet) -> Floats:
        return reduction_error(observations.variable, climb(observations, self.spec.grid, self.ground))

    def _floor_si(self) -> Floats:
        return (self.bundle.statistics.floor * self.bundle.climate.std).double().cpu().numpy()

    def background_error(self, observations: ObservationSet, error_level: float) -> Floats:
        """1-sigma background error at each observation [n], SI, for a background of this level."""
        errors = self.bundle.statistics.channel_errors(error_level) * self.bundle.climate.std
        return self._at_observations(errors.double().cpu().numpy(), observations)

    def estimate_error_level(
        self,
        observations: ObservationSet,
        departures: Floats,
        valid_time: datetime,
        first: float,
        background: States | None = None,
    ) -> float:
        """Background-error level of this cycle: a first guess, times an inflation factor from the innovations.

        E[d^2] = R + b^2 gives lambda^2 = (mean d^2/R - 1) / mean b^2/R (Wang and Bishop 2003, eq. 14), with d
        limited to `OUTLIER` of its expected size and lambda to `INFLATION_BOUNDS`. With an ensemble `background` [member > 2, ...] the
        first guess and b follow its spread, the model's own error added; otherwise `first` and the bundle's table. Innovations
        speak of observed places, where backgrounds are better than elsewhere: what sets the spread of the members, here
        the level of a single background (for an ensemble see `_inflated`), is only raised by them.
        """
        lowest, highest = INFLATION_BOUNDS
        if background is not None and len(background) > 2:
            inherited = self.error_level(self.spec.step_hours)  # the model's own error adds to the members' spread
            spread = self.equivalents(background, observations).std(axis=0, ddof=1)
            first = float(np.hypot(self.spread_level(background), inherited))
            spread = np.hypot(spread, self.background_error(observations, inherited))
        else:
            lowest, spread = 1.0, self.background_error(observations, first)
        ratio = self.innovation_ratio(observations, departures, spread)
        return float(first * min(max(ratio, lowest), highest) ** self.confidence(observations))

    def innovation_ratio(self, observations: ObservationSet, departures: Floats, spread: Floats) -> float:
        """lambda of Wang and Bishop (2003, eq. 14): the background error at the observations in units of `spread` [n], its
        expected standard deviation there (SI), as the innovations `departures` [n] tell; 1 without observations."""
        if not len(observations):
            return 1.0
        error = self.observation_error(observations)
        limited = np.minimum(np.abs(departures), OUTLIER * np.hypot(error, spread))
        excess = float(np.mean((limited / error) ** 2)) - 1
        return float(np.sqrt(max(excess, 0.0) / float(np.mean((spread / error) ** 2))))

    @staticmethod
    def confidence(observations: ObservationSet) -> float:
        """How much an estimate from these observations counts beside a first guess: a few do not decide."""
        return len(observations) / (len(observations) + FEW_REPORTS)

    def spread_level(self, background: States) -> float:
        """RMS spread of an ensemble over all channels in units of the anomalies: its own background-error level."""
        return float((self._spread_variance(background) * self._area()).mean().sqrt())

    def _area(self) -> Tensor:
        return area_weights(np.array(self.spec.grid.latitudes)).to(self.device)[:, None]

    def _spread_variance(self, background: States) -> Tensor:
        """Ensemble variance in units of the anomalies' variance, mean over channels: [latitude, longitude]."""
        variance = self._tensor(background).var(dim=0) / self.bundle.climate.std[:, None, None] ** 2
        return variance.mean(dim=0)

    def _modulation(self, background: States) -> Tensor | None:
        """Where the background's spread is above or below its mean: [row, column] of the latent, or None.

        The model's own 6 h error is added to the spread, which is smoothed over neighbouring latent columns.
        """
        if len(background) < FEWEST_MEMBERS_FOR_SPREAD:
            return None
        variance = self._spread_variance(background) + self.error_level(self.spec.step_hours) ** 2
        return modulation_of(variance, self._area(), self.spec.networks.autoencoder.patch)

    def distance(self, a: States, b: States) -> float:
        """RMS difference of two states over all channels in units of the anomalies, area weighted: the unit of s."""
        difference = (self._tensor(a) - self._tensor(b)) / self.bundle.climate.std[:, None, None]
        return float((difference**2 * self._area()).mean().sqrt())

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
        share = settings.share
        if share is None:
            share = CYCLED_SHARE if background is not None and len(background) > 1 else 1.0
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
            perturbations = self._inflated(
                climate.normalise(self._tensor(background), valid_time) - anomaly, error_level, noise
            )
            state = latent.state(centre) + updated(perturbations, latent.linearised(centre), noise)
        else:
            state = latent.state(self._sample(guided, guided_centre, z_b, settings, noise, progress))
            if settings.sampler == "dpm":
                state = recentred(state, state.mean(dim=0, keepdim=True), self._by_channel(FRESH_DRY, FRESH_MOIST))
        if background is not None:  # a cold start's increment is a whole state, with what mountains hold beyond it
            state = anomaly + self.bundle.forecast.cut(state - anomaly)
        members = climate.denormalise(state, valid_time)
        members[:, self.moisture] = without_negative(members[:, self.moisture])
        if not bool(torch.isfinite(members).all()):
            raise FloatingPointError("the analysis holds values that are not finite")
        return AnalysisResult(members.cpu().numpy(), denoiser.evaluations)

    def _cycled(self, background: States, settings: AnalysisSettings) -> bool:
        """Whether the members of `background` live on, each with its own perturbation."""
        return len(background) == settings.members and len(background) >= FEWEST_MEMBERS_FOR_SPREAD

    def _inflated(self, perturbations: Tensor, error_level: float, noise: torch.Generator) -> Tensor:
        """Background perturbations with the model's own error added, scaled up to `error_level` where they are smaller.

        Never down: see `estimate_error_level`.
        """
        model_error = self.bundle.statistics.at(self.error_level(self.spec.step_hours))
        amplitude = self._by_channel(MODEL_ERROR_DRY, MODEL_ERROR_MOIST)
        out = with_model_error(perturbations, model_error, self.bundle.autoencoder, noise, amplitude)
        return out * max(1.0, error_level / float((out.var(dim=0) * self._area()).mean().sqrt()))

    def _by_channel(self, dry: float, moist: float) -> Tensor:
        return by_channel(len(self.spec.channels), self.moisture, dry, moist).to(self.device)

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
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                x = self.bundle.forecast(x, season)
            valid_time = valid_time + step
            physical = climate.denormalise(x, valid_time)
            physical[:, self.moisture] = physical[:, self.moisture].clamp_min(0.0)
            x = climate.normalise(physical, valid_time)
            yield physical.cpu().numpy()

    def _tensor(self, values: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self.device)
