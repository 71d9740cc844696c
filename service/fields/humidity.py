"""Specific humidity from relative humidity, as the ECMWF Integrated Forecasting System defines it.

Saturation over water above 0 C, over ice below -23 C, between them a mixture quadratic in temperature:
IFS Documentation CY41R2, Part IV, 7.2.1b, eqs. 7.4, 7.5 (Tetens; over water Buck 1981, over ice Alduchov, Eskridge 1996).
"""

import numpy as np
from numpy.typing import NDArray

EPSILON = 287.0597 / 461.5250  # ratio of the gas constants of dry air and water vapour
TRIPLE_POINT = 273.16  # K
ALL_ICE = 250.16  # K


def saturation_vapour_pressure(temperature: NDArray[np.floating]) -> NDArray[np.float64]:
    """Saturation vapour pressure (Pa) over mixed-phase water; temperature in K."""
    t = np.asarray(temperature, dtype=np.float64)
    water = 611.21 * np.exp(17.502 * (t - TRIPLE_POINT) / (t - 32.19))
    ice = 611.21 * np.exp(22.587 * (t - TRIPLE_POINT) / (t + 0.7))
    share = np.clip((t - ALL_ICE) / (TRIPLE_POINT - ALL_ICE), 0.0, 1.0) ** 2
    return np.asarray(share * water + (1.0 - share) * ice)


def specific_humidity(
    relative_humidity: NDArray[np.floating], temperature: NDArray[np.floating], pressure: NDArray[np.floating] | float
) -> NDArray[np.float64]:
    """q (kg kg-1) of air with a relative humidity (per cent), a temperature (K) and a pressure (Pa).

    Negative relative humidities, which packing and spectral truncation leave behind, count as zero. The vapour
    pressure is kept below the pressure, which matters only for spurious values high up.
    """
    vapour = np.maximum(relative_humidity, 0.0) / 100.0 * saturation_vapour_pressure(temperature)
    vapour = np.minimum(vapour, 0.5 * np.asarray(pressure))
    return np.asarray(EPSILON * vapour / (pressure - (1.0 - EPSILON) * vapour))
