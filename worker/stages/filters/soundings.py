"""Soundings against physics: the hydrostatic equation between heights and temperatures, and static stability.

Complex quality control (Gandin 1988, MWR 116, 1137-1156): a residual says that something is wrong in a layer; which
value it is, is decided by how well one error in it explains all residuals and departures about it.
"""

from dataclasses import dataclass

import numpy as np

from worker.stages.filters.case import Comparison, Setting, Verdict
from worker.stages.observed import Bools, Doubles, Integers, Observed

GAS = 287.05  # J kg-1 K-1, dry air
KAPPA = 2.0 / 7.0
MOIST = 0.608  # Tv = T (1 + MOIST q)
NEW_ASCENT = 3 * 3600.0  # s between levels
THICKEST = 0.8  # ln p; a straight line says nothing about thicker layers
MOST_PASSES = 8
NEAR_GROUND = 0.9  # of the lowest pressure of the ascent


@dataclass(frozen=True)
class Ascents:
    """Levels of soundings from below: `ascent` numbers them; rows of z, t, q in the values, -1: none. All [level]."""

    ascent: Integers
    ln_p: Doubles
    z: Integers
    t: Integers
    q: Integers


def ascents_of(observed: Observed) -> Ascents:
    """The levels of all soundings among the values."""
    wanted = observed.has("type", "temp") & observed.has("variable", "z", "t", "q") & (observed.given_pressure > 0)
    rows = np.flatnonzero(wanted)
    station, seconds = observed.names("station")[1][rows], observed.microseconds()[rows] / 1e6
    pressure = observed.given_pressure[rows]
    order = np.lexsort((-pressure, seconds, station))
    rows, station, seconds, pressure = rows[order], station[order], seconds[order], pressure[order]
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(station) != 0) | (np.diff(seconds) != 0) | (np.diff(pressure) != 0)
    level = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    of: dict[str, Integers] = {}
    for name in ("z", "t", "q"):
        of[name] = np.full(len(first), -1, np.int64)
        mine = observed.has("variable", name)[rows]
        of[name][level[mine]] = rows[mine]
    apart = np.ones(len(first), bool)
    apart[1:] = (np.diff(station[first]) != 0) | (np.diff(seconds[first]) > NEW_ASCENT) | (np.diff(pressure[first]) > 0)
    return Ascents(np.cumsum(apart), np.log(pressure[first]), of["z"], of["t"], of["q"])


def hydrostatic(observed: Observed, comparison: Comparison, setting: Setting) -> Verdict:
    """The z or t that best explains a layer whose residual z2 - z1 - R integral(Tv dlnp) is beyond its limit (sigmas:
    the larger of the layers below and above)."""
    limits = setting.configuration.checks.hydrostatic
    out, levels = np.zeros(len(observed), bool), ascents_of(observed)
    number, limit = np.full(len(observed), np.nan), np.full(len(observed), limits.sigmas)
    if not len(levels.ascent):
        return Verdict(out, number, limit)
    values = _Values.of(observed, comparison)
    for _pass in range(MOST_PASSES):
        worst, off = _worst_in_each_ascent(levels, values, out, limits.sigmas, limits.curvature)
        if not len(worst):
            break
        out[worst], number[worst] = True, off
    return Verdict(out, number, limit)


@dataclass(frozen=True)
class _Values:
    value: Doubles
    error: Doubles
    departure: Doubles
    precision: Doubles  # 1 / expected variance of the departure; 0 where there is no background

    @classmethod
    def of(cls, observed: Observed, comparison: Comparison) -> "_Values":
        value = observed.value
        departure, expected = value - comparison.background, comparison.expected
        known = np.isfinite(departure) & np.isfinite(expected) & (expected > 0)
        precision = np.where(known, 1.0 / np.where(known, expected, 1.0) ** 2, 0.0)
        return cls(value, observed.error, np.where(known, departure, 0.0), precision)


@dataclass(frozen=True)
class _Layers:
    """Between the levels of `joint` that have z and t: residual, 1 / its variance (0: no layer) and how far a
    temperature at its lower and upper level reaches into it (J kg-1 K-1). All [joint - 1]."""

    joint: Integers
    residual: Doubles
    weight: Doubles
    reach_low: Doubles
    reach_high: Doubles


def _worst_in_each_ascent(
    levels: Ascents, values: _Values, out: Bools, sigmas: float, curvature: float
) -> tuple[Integers, Doubles]:
    """Of each ascent with a layer beyond its limit the one row whose error explains most, and by how many sigmas the
    layers beside it are off; none: empty."""
    z, t, q = (np.where((rows >= 0) & ~out[rows], rows, -1) for rows in (levels.z, levels.t, levels.q))
    layers = _layers(levels, values, z, t, q, curvature)
    off = np.where(layers.weight > 0, np.abs(layers.residual) * np.sqrt(layers.weight), 0.0)
    suspect = off > sigmas
    if not suspect.any():
        return np.zeros(0, np.int64), np.zeros(0)
    touched = np.append(suspect, False) | np.append(False, suspect)
    # an error e of a value adds a e to the residual of the layer above it and b e to that below
    ones = np.ones(len(suspect))
    at_z, at_t = z[layers.joint], t[layers.joint]
    gain = np.concatenate(
        [
            _gain(values, at_z, layers, -ones, ones)[touched],
            _gain(values, at_t, layers, -layers.reach_low, -layers.reach_high)[touched],
        ]
    )
    row = np.concatenate([at_z[touched], at_t[touched]])
    beside = np.tile(np.fmax(np.append(off, 0.0), np.append(0.0, off))[touched], 2)
    ascent = np.tile(levels.ascent[layers.joint][touched], 2)
    order = np.lexsort((-gain, ascent))
    best = np.ones(len(order), bool)
    best[1:] = np.diff(ascent[order]) != 0
    return np.asarray(row[order[best]]), np.asarray(beside[order[best]])


def _layers(levels: Ascents, values: _Values, z: Integers, t: Integers, q: Integers, curvature: float) -> _Layers:
    """`z`, `t`, `q`: the rows of the values that still count, -1: none, each [level]."""
    thickness, moisture, spacing = _integrals(levels, values, t, q)
    joint = np.flatnonzero((t >= 0) & (z >= 0))
    low, high = joint[:-1], joint[1:]
    depth = levels.ln_p[low] - levels.ln_p[high]
    there = (levels.ascent[low] == levels.ascent[high]) & (depth < THICKEST)
    residual = values.value[z[high]] - values.value[z[low]] - (thickness[high] - thickness[low])
    after = spacing[np.minimum(low + 1, len(t) - 1)]
    # a temperature reaches half-way to its neighbours in the integral
    reach_low = GAS * np.where(np.isfinite(after), np.minimum(depth, after), depth) / 2
    reach_high = GAS * spacing[high] / 2
    variance = (
        values.error[z[low]] ** 2 + values.error[z[high]] ** 2
        + (reach_low * values.error[t[low]]) ** 2 + (reach_high * values.error[t[high]]) ** 2
        + (GAS * depth * curvature * spacing[high]) ** 2 + (0.5 * (moisture[high] - moisture[low])) ** 2
    )  # fmt: skip
    weight = np.where(there, 1.0 / variance, 0.0)
    return _Layers(joint, residual, weight, np.where(there, reach_low, 0.0), np.where(there, reach_high, 0.0))


def _integrals(levels: Ascents, values: _Values, t: Integers, q: Integers) -> tuple[Doubles, Doubles, Doubles]:
    """R integral of Tv dlnp from the first level, its moist part, and the distance in ln p to the last t: [level]."""
    warm = np.flatnonzero(t >= 0)
    humidity = np.where(q >= 0, np.maximum(values.value[q], 0.0), 0.0)[warm]
    moist = MOIST * humidity * values.value[t[warm]]
    virtual = values.value[t[warm]] + moist
    width = np.where(np.diff(levels.ascent[warm]) == 0, -np.diff(levels.ln_p[warm]), 0.0)
    thickness, moisture, spacing = np.zeros(len(t)), np.zeros(len(t)), np.full(len(t), np.nan)
    thickness[warm[1:]] = GAS * width * (virtual[:-1] + virtual[1:]) / 2
    moisture[warm[1:]] = GAS * width * (moist[:-1] + moist[1:]) / 2
    spacing[warm[1:]] = -np.diff(levels.ln_p[warm])
    return np.cumsum(thickness), np.cumsum(moisture), spacing


def _gain(values: _Values, row: Integers, layers: _Layers, above: Doubles, below: Doubles) -> Doubles:
    """How much one error of each value explains: (sum a s / tau^2 + d / sigma^2)^2 / (sum a^2 / tau^2 + 1 / sigma^2)."""
    residual, weight = np.where(layers.weight > 0, layers.residual, 0.0), layers.weight
    projected, norm = values.departure[row] * values.precision[row], values.precision[row].copy()
    projected[:-1] += above * residual * weight
    norm[:-1] += above**2 * weight
    projected[1:] += below * residual * weight
    norm[1:] += below**2 * weight
    return np.asarray(projected**2 / np.maximum(norm, 1e-300))


def lapse_rate(observed: Observed, comparison: Comparison, setting: Setting) -> Verdict:
    """Of two levels less stable than dry adiabatic, or of an impossible inversion, the one farther from the background.
    (K below the adiabat, or K of inversion.)

    theta(above) < theta(below) - tolerance; T(above) - T(below) > `inversion` dlnp + tolerance; the tolerance is
    `sigmas` of the two errors, near the ground `near_ground` more. Without a background both are rejected.
    """
    out, levels = np.zeros(len(observed), bool), ascents_of(observed)
    number, limit = np.full(len(observed), np.nan), np.full(len(observed), np.nan)
    if not len(levels.ascent):
        return Verdict(out, number, limit)
    values, limits = _Values.of(observed, comparison), setting.configuration.checks.lapse
    lowest = np.full(levels.ascent.max() + 1, -np.inf)
    np.maximum.at(lowest, levels.ascent, levels.ln_p)
    suspicion = np.where(values.precision > 0, np.abs(values.departure) * np.sqrt(values.precision), np.nan)
    for _pass in range(MOST_PASSES):
        warm = np.flatnonzero((levels.t >= 0) & ~out[levels.t])
        low, high = levels.t[warm[:-1]], levels.t[warm[1:]]
        depth = levels.ln_p[warm[:-1]] - levels.ln_p[warm[1:]]
        together = levels.ascent[warm[:-1]] == levels.ascent[warm[1:]]
        tolerance = limits.sigmas * np.hypot(values.error[low], values.error[high])
        ground = levels.ln_p[warm[:-1]] > lowest[levels.ascent[warm[:-1]]] + np.log(NEAR_GROUND)
        adiabat = values.value[low] * np.exp(-KAPPA * depth)
        below = tolerance + np.where(ground, limits.near_ground, 0.0)
        unstable = values.value[high] < adiabat - below
        steepest = limits.inversion * depth + tolerance
        inverted = values.value[high] - values.value[low] > steepest
        bad = together & (unstable | inverted)
        if not bad.any():
            break
        a, b = suspicion[low[bad]], suspicion[high[bad]]
        unknown = np.isnan(a) | np.isnan(b)
        seen = np.where(unstable, adiabat - values.value[high], values.value[high] - values.value[low])[bad]
        allowed = np.where(unstable, below, steepest)[bad]
        for rows, which in ((low[bad], (a >= b) | unknown), (high[bad], (a < b) | unknown)):
            out[rows[which]], number[rows[which]], limit[rows[which]] = True, seen[which], allowed[which]
    return Verdict(out, number, limit)
