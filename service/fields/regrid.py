"""From one global latitude-longitude grid to another, and from pressure levels to levels between them.

Horizontally: bilinear, which on such grids is one matrix for the latitudes and one for the longitudes,
`G = A F B^T`. Periodic in longitude; beyond the last row the field continues across the pole.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.fields.errors import FieldError
from service.fields.grid import Grid

GAS_CONSTANT = 287.06  # J kg-1 K-1, dry air

Matrix = NDArray[np.float64]


class Regridder:
    """Bilinear interpolation from the axes of a source to a grid; second order in the spacing of the source.

    A point north of the first row lies between that row and the same row seen across the pole: its values half
    a circle away, with the sign of wind components reversed, because east and north turn round at the pole.
    """

    def __init__(self, latitudes: Matrix, longitudes: Matrix, target: Grid) -> None:
        """
        Args:
            latitudes: of the source, degrees, north to south.
            longitudes: of the source, degrees, ascending in [0, 360).

        Raises:
            FieldError: the source does not cover the globe.
        """
        self.identity = target.matches(latitudes, longitudes)
        if self.identity:
            return
        _check_global(latitudes, longitudes)
        around = _longitude_weights(longitudes, np.array(target.longitudes))
        half_turn = _longitude_weights(longitudes, np.array(target.longitudes) + 180.0)
        self._around, self._half_turn = around.T, half_turn.T
        self._direct, self._across = _latitude_weights(latitudes, np.array(target.latitudes))

    def __call__(self, field: NDArray[np.floating], *, vector: bool = False) -> NDArray[np.floating]:
        """Interpolate [..., latitude, longitude]; `vector` for components of the wind."""
        if self.identity:
            return field
        values = field.astype(np.float64)
        sign = -1.0 if vector else 1.0
        direct = self._direct @ (values @ self._around)
        return np.asarray(direct + sign * (self._across @ (values @ self._half_turn)))


def vertical_weights(levels: NDArray[np.float64], wanted: float) -> tuple[int, int, float] | None:
    """Where `wanted` lies among the levels: (i, j, w) with value = (1 - w) f[i] + w f[j], linear in ln p.

    Args:
        levels: pressures, hPa, in any order.
        wanted: pressure, hPa.

    Returns:
        None if no two levels enclose the wanted one.
    """
    exact = np.flatnonzero(np.abs(levels - wanted) < 1e-3)
    if exact.size:
        return int(exact[0]), int(exact[0]), 0.0
    above, below = np.flatnonzero(levels < wanted), np.flatnonzero(levels > wanted)
    if not above.size or not below.size:
        return None
    upper = int(above[np.argmax(levels[above])])
    lower = int(below[np.argmin(levels[below])])
    weight = np.log(wanted / levels[upper]) / np.log(levels[lower] / levels[upper])
    return upper, lower, float(weight)


def hydrostatic_curvature(
    levels: NDArray[np.float64], where: tuple[int, int, float], upper_t: NDArray[Any], lower_t: NDArray[Any]
) -> NDArray[np.float64]:
    """What linear interpolation of geopotential in ln p lacks, m2 s-2: 1/2 R (T_lower - T_upper) dlnp w (1 - w).

    Exact where T is linear in ln p (d2z/dlnp2 = -R dT/dlnp). It is worth 5 m at 925 between 1000 and 850 hPa, and
    50 m at 700 between 850 and 500 hPa. Dry air: the virtual temperature effect is below a tenth of it.
    """
    upper, lower, weight = where
    thickness = np.log(levels[lower] / levels[upper])
    return np.asarray(0.5 * GAS_CONSTANT * (lower_t - upper_t) * thickness * weight * (1.0 - weight))


def _check_global(latitudes: Matrix, longitudes: Matrix) -> None:
    if len(latitudes) < 2 or len(longitudes) < 4:
        raise FieldError(f"a grid of {len(latitudes)} x {len(longitudes)} points is too coarse to interpolate from")
    gaps = np.diff(np.append(longitudes, longitudes[0] + 360.0))
    if gaps.max() > 1.5 * np.median(gaps) + 1e-3:
        raise FieldError(
            f"the fields cover longitudes {longitudes[0]:g} to {longitudes[-1]:g} only; send fields of the whole globe"
        )
    spacing = float(np.max(-np.diff(latitudes)))
    if 90.0 - latitudes[0] > spacing + 1e-3 or latitudes[-1] + 90.0 > spacing + 1e-3:
        raise FieldError(
            f"the fields cover latitudes {latitudes[-1]:g} to {latitudes[0]:g} only; send fields of the whole globe"
        )


def _longitude_weights(source: Matrix, target: Matrix) -> Matrix:
    """Linear and periodic: [target, source]."""
    extended = np.append(source, source[0] + 360.0)
    position = source[0] + np.mod(target - source[0], 360.0)
    right = np.clip(np.searchsorted(extended, position, side="right"), 1, len(source))
    weight = (position - extended[right - 1]) / (extended[right] - extended[right - 1])
    matrix = np.zeros((len(target), len(source)))
    rows = np.arange(len(target))
    matrix[rows, right - 1] += 1.0 - weight
    matrix[rows, right % len(source)] += weight
    return matrix


def _latitude_weights(source: Matrix, target: Matrix) -> tuple[Matrix, Matrix]:
    """Linear: two [target, source] matrices, for the rows themselves and for those seen across a pole."""
    count = len(source)
    extended = np.concatenate([[180.0 - source[0]], source, [-180.0 - source[-1]]])
    below = np.clip(np.searchsorted(-extended, -target, side="left"), 1, count + 1)
    gap = extended[below - 1] - extended[below]
    # a source row on the pole itself is its own mirror image
    weight = np.divide(extended[below - 1] - target, gap, out=np.ones_like(gap), where=gap > 1e-9)
    full = np.zeros((len(target), count + 2))
    rows = np.arange(len(target))
    full[rows, below - 1] += 1.0 - weight
    full[rows, below] += weight
    across = np.zeros((len(target), count))
    across[:, 0] += full[:, 0]
    across[:, -1] += full[:, -1]
    return full[:, 1:-1], across
