"""Which observations have an equivalent in a state, and why the others have none."""

import numpy as np
from numpy.typing import NDArray

from models.operators.formulas import AIR, HEIGHTS, LAYERS, WIND_AT_10_M
from models.operators.interpolation import Vertical
from models.operators.observation_set import SURFACE, ObservationSet
from models.specification import ChannelSpec

Bools = NDArray[np.bool_]

NO_HUMIDITY_AT_2_M = "the state holds no humidity at 2 m"
OUTSIDE_LEVELS = "not between the top and the lowest level of the state"
UNKNOWN = "no operator for this variable"


def supported(
    observations: ObservationSet, channels: tuple[ChannelSpec, ...], ground: bool = True
) -> NDArray[np.bool_]:
    """Which observations H can compute: a known variable, between the top and the lowest level. Shape [n].

    `ground`: whether the height of the model's ground is known (needed for msl).
    """
    possible: NDArray[np.bool_] = unsupported_reason(observations, channels, ground) == ""
    return possible


def unsupported_reason(
    observations: ObservationSet, channels: tuple[ChannelSpec, ...], ground: bool = True
) -> NDArray[np.object_]:
    """Why H cannot compute each observation, "" where it can. Shape [n]."""
    reasons = np.full(len(observations), "", dtype=object)
    vertical = Vertical(channels)
    for variable in np.unique(observations.variable):
        rows = np.flatnonzero(observations.variable == variable)
        reasons[rows] = _of_variable(str(variable), observations.select(rows), vertical, ground)
    placed = np.isfinite(observations.latitude) & np.isfinite(observations.longitude)
    reasons[~(placed & (np.abs(observations.latitude) <= 90))] = "not on the globe"
    reasons[~np.isfinite(observations.value)] = "no value"
    return reasons


def _of_variable(variable: str, some: ObservationSet, vertical: Vertical, ground: bool) -> NDArray[np.object_] | str:
    if (variable, None) in vertical.index:
        return ""
    if variable in WIND_AT_10_M:
        return _needs(vertical, ("u10", "v10"))
    if variable == "msl":
        return _needs(vertical, ("sp", "t")) if ground else "the height of the model's ground is not known"
    if variable in ("td2m", "rh2m"):
        return NO_HUMIDITY_AT_2_M
    if variable in SURFACE:
        return _needs(vertical, (variable,))
    if variable in LAYERS:
        return _needs(vertical, ("t",)) or _layer_reasons(variable, some, vertical)
    if variable in AIR:
        return _needs(vertical, AIR[variable].inputs) or _air_reasons(variable, some, vertical)
    return _air_reasons(variable, some, vertical) if vertical.levels(variable) else UNKNOWN


def _needs(vertical: Vertical, inputs: tuple[str, ...]) -> str:
    missing = [name for name in inputs if not vertical.levels(name) and (name, None) not in vertical.index]
    return f"the state holds no {', '.join(missing)}" if missing else ""


def _between(pressure: NDArray[np.float64], variable: str, vertical: Vertical) -> Bools:
    top, bottom = vertical.bounds(variable)
    with np.errstate(invalid="ignore"):
        return np.asarray((pressure >= top) & (pressure <= bottom))


def _air_reasons(variable: str, some: ObservationSet, vertical: Vertical) -> NDArray[np.object_]:
    """Heights count by the standard atmosphere: the state's own levels lie within some hundred metres of it."""
    inputs = AIR[variable].inputs if variable in AIR else (variable,)
    inside = np.ones(len(some), bool)
    for name in inputs:
        inside &= _between(some.nominal_pressure(), name, vertical)
    reasons = np.where(inside, "", OUTSIDE_LEVELS).astype(object)
    by_height = some.by_height()
    if variable in HEIGHTS:
        reasons[by_height] = "a height at a height is no observation"
    elif not (vertical.levels("z") and vertical.levels("t")):
        reasons[by_height] = "the state holds no z and t to find a height in"
    elif not all(vertical.levels(name) == vertical.levels("z") for name in (*inputs, "t")):
        reasons[by_height] = "z, t and the variable are not on the same levels"
    reasons[~by_height & ~np.isfinite(some.pressure)] = "neither pressure nor height"
    return reasons


def _layer_reasons(variable: str, some: ObservationSet, vertical: Vertical) -> NDArray[np.object_]:
    inside = _between(some.pressure, "t", vertical)
    if variable == "tlayer":
        top = some.given("pressure_top")
        with np.errstate(invalid="ignore"):
            inside &= _between(top, "t", vertical) & (top < some.pressure / 1.001)
    return np.where(inside, "", OUTSIDE_LEVELS).astype(object)
