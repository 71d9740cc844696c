"""Gravity and heights: geopotential and geometric height above sea level, at a latitude.

Z = R h / (g_s/g_0 R - h) with normal gravity g_s at sea level (WGS 84, Somigliana) and the radius R at which the
inverse square law gives its decrease with height (Mahoney 2001; WMO-No. 8, Volume I, chapter 12, annex 12.B).
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

STANDARD_GRAVITY = 9.80665  # m s-2
LAPSE_RATE = 0.0065  # K m-1, ICAO standard atmosphere (Doc 7488)

Floats = NDArray[np.float64]
Heights = TypeVar("Heights", Floats, Tensor)


def gravity_ratio_and_radius(latitude: Floats) -> tuple[Floats, Floats]:
    """g_s / g_0 and R (m) at `latitude` (degrees)."""
    sine = np.sin(np.deg2rad(latitude)) ** 2
    gravity = 9.7803253359 * (1.0 + 0.00193185265241 * sine) / np.sqrt(1.0 - 0.00669437999014 * sine)
    return gravity / STANDARD_GRAVITY, 6378137.0 / (1.006803 - 0.006706 * sine)


def geometric_height(geopotential_height: Heights, ratio: Heights, radius: Heights) -> Heights:
    """m above sea level, from gpm and `gravity_ratio_and_radius`."""
    return radius * geopotential_height / (ratio * radius - geopotential_height)


def geopotential_height(height: Floats, latitude: Floats) -> Floats:
    """gpm, from m above sea level at `latitude` (degrees): the inverse of `geometric_height`."""
    ratio, radius = gravity_ratio_and_radius(latitude)
    return ratio * radius * height / (radius + height)
