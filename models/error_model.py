"""What a bundle knows of errors: of observations, of backgrounds, and how the level of a background follows from them.

Levels are RMS errors over all channels in units of the anomalies' standard deviation.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.bundle import Bundle
from models.grid import area_weights
from models.networks.layers import pad_sphere
from models.observation_operator import ObservationOperator, ObservationSet, channel_values, supported
from models.operators.surface import climb, ground_of, reduction_error
from models.specification import BundleSpec

States = NDArray[np.float32]  # [member, channel, latitude, longitude], SI
Floats = NDArray[np.float64]

OUTLIER = 4.0  # a departure counts as at most this many of its expected sigma in the estimate of the error level
INFLATION_BOUNDS = (0.7, 1.5)
FEW_REPORTS = 200.0  # as many count as much as the first guess
FEWEST_MEMBERS_FOR_SPREAD = 8
MODULATION_BOUNDS = (0.3, 2.0)


def modulation_of(variance: Tensor, area: Tensor, patch: int) -> Tensor:
    """Where an error variance [latitude, longitude] is above or below its mean: m [row, column] of the latent.

    Smoothed over neighbouring latent columns and bounded; `area` [latitude, 1] is the weight of each row.
    """
    parts = functional.avg_pool2d(torch.stack([variance * area, area.expand_as(variance)])[:, None], patch)
    smooth, weight = (functional.avg_pool2d(pad_sphere(field[None]), 3, stride=1)[0, 0] for field in parts)
    mean = (variance * area).mean().sqrt()
    return ((smooth / weight).sqrt() / mean).clamp(*MODULATION_BOUNDS)


class ErrorModel:
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

    def _tensor(self, values: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self.device)
