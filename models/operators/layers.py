"""Temperature over a depth of the atmosphere: a mean over a layer, and what a sounding channel sees.

Both are int T W dlnp / int W dlnp with T linear in ln p between the levels, so linear in the state; the weights of
the levels sum to one. W = 1 between two pressures is the mean temperature of the hypsometric equation (Holton 2004,
An Introduction to Dynamic Meteorology, section 1.6); W = 2 u exp(-u), u = (p / p_peak)^2, the weighting function of a channel in
the wing of a pressure-broadened line of a well-mixed gas, as the oxygen band around 60 GHz (Houghton, Taylor and
Rodgers 1984, Remote Sounding of Atmospheres, chapter 4), which peaks at p_peak.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weighting = Callable[[Floats], Floats]
"""W at ln p [n, node] (Pa), not normalised: [n, node]."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


def level_weights(weighting: Weighting, ln_levels: Floats, start: Floats, end: Floats) -> Floats:
    """Weights of T at `ln_levels` [L] (ascending) for W between ln p `start` and `end` [n]: [n, L], rows sum to one."""
    weights = np.zeros((len(start), len(ln_levels)))
    for k, (a, b) in enumerate(pairwise(ln_levels)):
        low, high = np.clip(start, a, b)[:, None], np.clip(end, a, b)[:, None]
        x = 0.5 * (low + high) + 0.5 * (high - low) * _NODES
        density = weighting(x) * _WEIGHTS * 0.5 * (high - low)
        share = (x - a) / (b - a)
        weights[:, k] += (density * (1 - share)).sum(axis=1)
        weights[:, k + 1] += (density * share).sum(axis=1)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def layer_weights(ln_levels: Floats, pressure: Floats, pressure_top: Floats) -> Floats:
    """Weights of the mean temperature between `pressure_top` and `pressure` (Pa) [n]: [n, L]."""
    bounds = (ln_levels[0], ln_levels[-1])
    start, end = (np.clip(np.log(p), *bounds) for p in (pressure_top, pressure))
    return level_weights(np.ones_like, ln_levels, start, end)


def channel_weights(ln_levels: Floats, peak: Floats) -> Floats:
    """Weights of a sounding channel that peaks at `peak` (Pa) [n], of what lies between the levels: [n, L]."""

    def weighting(x: Floats) -> Floats:
        u = np.exp(2.0 * (x - np.log(peak)[:, None]))
        return 2.0 * u * np.exp(-u)

    ends = (np.full(len(peak), ln_levels[0]), np.full(len(peak), ln_levels[-1]))
    return level_weights(weighting, ln_levels, *ends)
