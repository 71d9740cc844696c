"""Humidity and refractivity of air from temperature (K), specific humidity (kg kg-1) and pressure (Pa).

Saturation is over water at all temperatures, as WMO defines reported humidity (WMO-No. 8, Volume I, chapter 4, annex
4.B): e_s = 611.21 exp(17.502 (T - 273.16) / (T - 32.19)) Pa (ECMWF IFS Documentation CY47R1, Part IV, eq. 7.5; Buck
1981). Refractivity: Smith and Weintraub 1953 (Proc. IRE 41, 1035-1037), as Healy and Thepaut 2006 (QJRMS 132,
605-623, eq. 2) use it.
"""

import torch
from torch import Tensor

EPSILON = 287.0597 / 461.5250  # gas constants of dry air and of water vapour (IFS)
DRIEST = 1e-7  # kg kg-1: less has no dewpoint that means anything; networks may give less than zero

_E0, _A, _B, _TRIPLE_POINT = 611.21, 17.502, 32.19, 273.16
_DRY, _WET = 77.6e-2, 3.73e3  # K Pa-1, K2 Pa-1: 77.6 K hPa-1 and 3.73e5 K2 hPa-1


def saturation_pressure(temperature: Tensor) -> Tensor:
    """e_s over water, Pa."""
    return _E0 * torch.exp(_A * (temperature - _TRIPLE_POINT) / (temperature - _B))


def vapour_pressure(humidity: Tensor, pressure: Tensor) -> Tensor:
    """e = q p / (eps + (1 - eps) q), Pa."""
    return humidity * pressure / (EPSILON + (1.0 - EPSILON) * humidity)


def relative_humidity(humidity: Tensor, temperature: Tensor, pressure: Tensor) -> Tensor:
    """e / e_s(T), a fraction."""
    return vapour_pressure(humidity, pressure) / saturation_pressure(temperature)


def dewpoint(humidity: Tensor, pressure: Tensor) -> Tensor:
    """T_d with e_s(T_d) = e, K."""
    ratio = torch.log(vapour_pressure(humidity.clamp_min(DRIEST), pressure) / _E0)
    return (_A * _TRIPLE_POINT - _B * ratio) / (_A - ratio)


def refractivity(temperature: Tensor, humidity: Tensor, pressure: Tensor) -> Tensor:
    """N = 77.6 p / T + 3.73e5 e / T^2 (p, e in hPa): 10^6 (n - 1)."""
    return _DRY * pressure / temperature + _WET * vapour_pressure(humidity, pressure) / temperature**2
