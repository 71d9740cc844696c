"""From terrain-following sigma levels to pressure levels, hydrostatically consistent.

Between sigma levels t, u, v and q are linear in ln p; z is the cubic Hermite interpolant in ln p whose
slopes are dz/dlnp = -R T (hydrostatic equation). Below the lowest level t follows a constant lapse rate,
z its hydrostatic integral, and u, v, q stay constant (cf. Trenberth et al. 1993, NCAR/TN-396).
"""

import numpy as np
from numpy.typing import NDArray

GAS_CONSTANT = 287.0  # J kg-1 K-1, dry air
GRAVITY = 9.80665  # m s-2
LAPSE_RATE = 0.0065  # K m-1, below the lowest level

Array = NDArray[np.float32]


def to_pressure_levels(
    fields: dict[str, Array], surface_pressure: Array, sigma: NDArray[np.float64], levels: tuple[float, ...]
) -> dict[str, Array]:
    """Interpolate a sigma-level state to pressure levels.

    Args:
        fields: `z` (m2 s-2), `t` (K), `u`, `v` (m s-1), `q` (kg kg-1), each [time, sigma, ...], sigma
            ascending from the top of the atmosphere.
        surface_pressure: [time, ...], Pa.
        sigma: [sigma], full levels, ascending.
        levels: target pressures, Pa.

    Returns:
        The same variables, each [time, level, ...], float32.

    Raises:
        ValueError: sigma is not ascending.
    """
    if np.any(np.diff(sigma) <= 0):
        raise ValueError(f"sigma levels must ascend from the top, got {sigma.tolist()}")
    shape = (1, len(sigma)) + (1,) * (surface_pressure.ndim - 1)
    ln_p = np.log(sigma).reshape(shape) + np.log(surface_pressure.astype(np.float64))[:, None]
    out: dict[str, list[NDArray[np.float64]]] = {name: [] for name in fields}
    for level in levels:
        target = np.log(level)
        upper = np.clip((ln_p <= target).sum(axis=1, keepdims=True) - 1, 0, len(sigma) - 2)
        lower = upper + 1

        def at(values: NDArray[np.floating], index: NDArray[np.intp] = upper) -> NDArray[np.floating]:
            return np.take_along_axis(values, index, axis=1)[:, 0]

        x0, x1 = at(ln_p), at(ln_p, lower)
        width = x1 - x0
        weight = np.clip((target - x0) / width, 0.0, 1.0)
        below = target > ln_p[:, -1]
        for name, values in fields.items():
            if name != "z":
                out[name].append(at(values) * (1 - weight) + at(values, lower) * weight)
        t, z = fields["t"], fields["z"]
        m0, m1 = -GAS_CONSTANT * at(t) * width, -GAS_CONSTANT * at(t, lower) * width
        w2, w3 = weight**2, weight**3
        height = (
            (2 * w3 - 3 * w2 + 1) * at(z)
            + (w3 - 2 * w2 + weight) * m0
            + (3 * w2 - 2 * w3) * at(z, lower)
            + (w3 - w2) * m1
        )
        exponent = GAS_CONSTANT * LAPSE_RATE / GRAVITY
        warmed = t[:, -1] * np.exp(exponent * np.where(below, target - ln_p[:, -1], 0.0))
        out["t"][-1] = np.where(below, warmed, out["t"][-1])
        out["z"].append(np.where(below, z[:, -1] - GRAVITY / LAPSE_RATE * (warmed - t[:, -1]), height))
    return {name: np.stack(values, axis=1).astype(np.float32) for name, values in out.items()}
