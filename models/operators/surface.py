"""Surface values where the station does not stand on the model's ground.

Between the two heights temperature follows the standard lapse rate 6.5 K km-1 (ICAO), so that
p = sp (1 + Gamma (h_model - h) / T_s)^(g / (R Gamma)), the hydrostatic equation with a constant lapse rate (WMO-No. 8, Volume
I, chapter 3, reduction of pressure to standard levels). T_s is the state's temperature at its surface pressure:
between two pressure levels linear in ln p, beneath the lowest with the same lapse.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.constants import GAS_CONSTANT
from models.operators.earth import LAPSE_RATE, STANDARD_GRAVITY, geopotential_height
from models.operators.interpolation import Horizontal, Vertical
from models.operators.observation_set import ObservationSet
from models.specification import ChannelSpec, GridSpec

Floats = NDArray[np.float64]

EXPONENT = STANDARD_GRAVITY / (GAS_CONSTANT * LAPSE_RATE)
SAME_HEIGHT = 5.0  # m: 0.6 hPa, within the error of a station's height and of the model's own ground
LAYER_ERROR = 5.0  # K: 1-sigma of the mean temperature of the layer between station and ground; own choice
LAPSE_ERROR = 0.003  # K m-1: 1-sigma of its lapse rate; own choice


def surface_temperature(sp: Tensor, above: Tensor, beneath: Tensor, ln_above: Tensor, ln_beneath: Tensor) -> Tensor:
    """T_s (K) at `sp` (Pa) [member, n], from t at the two levels at ln p (Pa) [n] around it or above it."""
    share = (torch.log(sp) - ln_above) / (ln_beneath - ln_above)
    between = above + share.clamp_max(1.0) * (beneath - above)
    ratio = torch.exp((torch.log(sp) - ln_beneath).clamp_min(0.0) / EXPONENT)
    return between * ratio


def reduced_pressure(sp: Tensor, temperature: Tensor, ascent: Tensor) -> Tensor:
    """Pressure (Pa) `ascent` [n] (gpm, downward negative) above the ground where it is `sp` [member, n]."""
    base: Tensor = 1.0 - LAPSE_RATE * ascent / temperature
    return sp * base.clamp_min(0.2) ** EXPONENT


def climb(observations: ObservationSet, grid: GridSpec, ground: Floats | None) -> Floats:
    """gpm from the model's ground [latitude, longitude] up to the station of sp and t2m, to sea level for msl: [n].

    NaN where the one or the other is not known, and for all other variables.
    """
    if ground is None or not len(observations):
        return np.full(len(observations), np.nan)
    station = geopotential_height(observations.given("height"), observations.latitude)
    station = np.where(np.isin(observations.variable, ("sp", "t2m")), station, np.nan)
    target = np.where(observations.variable == "msl", 0.0, station)
    return target - Horizontal.of(observations, grid).of_field(ground)


def reduction_error(variable: NDArray[np.str_], ascent: Floats) -> Floats:
    """1-sigma error of the reduction over `ascent` [n] (gpm; NaN: none): of sp and msl in Pa, of t2m in K.

    dp = p g |ascent| dT / (R T^2) with dT = LAYER_ERROR; dT = LAPSE_ERROR |ascent|.
    """
    height = np.abs(np.nan_to_num(ascent))
    pressure = 1e5 * STANDARD_GRAVITY * height * LAYER_ERROR / (GAS_CONSTANT * 280.0**2)
    return np.where(np.isin(variable, ("sp", "msl")), pressure, np.where(variable == "t2m", LAPSE_ERROR * height, 0.0))


def ground_height(z: Tensor, t: Tensor, sp: Tensor, ln_levels: Tensor) -> Tensor:
    """The model's own ground, gpm: where its pressure is `sp` [...], from profiles of z and t [..., L], levels downward.

    A model's orography as it acts (spectrally cut, say) may differ from its orography file by hundreds of metres.
    """
    ln_sp = torch.log(sp)
    upper = ((ln_levels <= ln_sp[..., None]).sum(dim=-1) - 1).clamp(0, z.shape[-1] - 2)

    def at(profile: Tensor, level: Tensor) -> Tensor:
        return torch.gather(profile, -1, level[..., None])[..., 0]

    width = ln_levels[upper + 1] - ln_levels[upper]
    s = ((ln_sp - ln_levels[upper]) / width).clamp(0.0, 1.0)
    m0, m1 = (-GAS_CONSTANT * width * at(t, level) for level in (upper, upper + 1))
    inside = (2 * s**3 - 3 * s**2 + 1) * at(z, upper) + (3 * s**2 - 2 * s**3) * at(z, upper + 1)
    inside = inside + (s**3 - 2 * s**2 + s) * m0 + (s**3 - s**2) * m1
    warmth = t[..., -1] * (torch.exp((ln_sp - ln_levels[-1]).clamp_min(0.0) / EXPONENT) - 1.0)
    return inside / STANDARD_GRAVITY - warmth / LAPSE_RATE


def ground_of(mean: Tensor, channels: tuple[ChannelSpec, ...]) -> Floats | None:
    """`ground_height` of a climatological mean state [1, channel, latitude, longitude] (SI): [latitude, longitude].

    None where the state lacks surface pressure, or z and t on the same levels.
    """
    vertical = Vertical(channels)
    levels = vertical.levels("z")
    if ("sp", None) not in vertical.index or len(levels) < 2 or vertical.levels("t") != levels:
        return None
    z, t = (mean[0, [vertical.index[name, level] for level in levels]].movedim(0, -1) for name in "zt")
    ln_levels = torch.log(100.0 * torch.tensor(levels, dtype=mean.dtype, device=mean.device))
    height = ground_height(z, t, mean[0, vertical.index["sp", None]].clamp_min(1.0), ln_levels)
    return height.double().cpu().numpy()
