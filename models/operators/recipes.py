"""How the equivalents of one variable are made of the state: predictors, linear in the state, and a function of them.

A predictor is a channel, or an interpolation between channels, at the place of the observation; K of them make one value.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.operators.earth import LAPSE_RATE, STANDARD_GRAVITY, geopotential_height
from models.operators.formulas import AIR, DIRECTIONS, LAYERS, WIND_AT_10_M, Air
from models.operators.heights import locate
from models.operators.interpolation import Predictor, Vertical
from models.operators.layers import channel_weights, layer_weights
from models.operators.observation_set import ObservationSet, standard_pressure
from models.operators.surface import SAME_HEIGHT, reduced_pressure, surface_temperature
from models.operators.wind import usual_direction_gradient

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """`rows` [k] of the set: the function of `predictors` [member, k, K] -> [member, k], or, without one, the single
    predictor plus `offset` [k]."""

    rows: Integers
    predictors: list[Predictor]
    function: Callable[[Tensor], Tensor] | None = None
    offset: Floats | None = None
    usual_gradient: Callable[[Tensor], Tensor] | None = None
    """In place of the derivative where only the size of errors is asked for."""


def recipes(observations: ObservationSet, vertical: Vertical, climb: Floats) -> Iterator[Recipe]:
    """For all observations, which must be supported. `climb` [n]: gpm from the model's ground to the station (or to sea
    level for msl); NaN: not known, then surface values are taken as they are."""
    far = np.abs(np.nan_to_num(climb)) > SAME_HEIGHT
    by_height = observations.by_height()
    for name in np.unique(observations.variable):
        variable, mine = str(name), observations.variable == name
        if variable in LAYERS:
            yield _layers(variable, np.flatnonzero(mine), observations, vertical)
        elif variable in WIND_AT_10_M:
            yield _wind_at_10_m(variable, np.flatnonzero(mine), observations, vertical)
        elif variable in ("sp", "msl"):
            yield from _pressures(mine, far, observations, vertical, climb)
        elif vertical.levels(variable) or variable in AIR:
            air = AIR.get(variable, Air((variable,)))
            for aloft, make in ((False, _at_pressure), (True, _at_height)):
                rows = np.flatnonzero(mine & (by_height == aloft))
                if len(rows):
                    yield make(air, variable, rows, observations, vertical)
        else:
            rows = np.flatnonzero(mine)
            offset = np.where(far[rows], -LAPSE_RATE * np.nan_to_num(climb[rows]), 0.0) if variable == "t2m" else None
            yield Recipe(rows, [vertical.at_level(variable, None, len(rows))], offset=offset)


def _constant(values: Floats, like: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=like.dtype, device=like.device)


def _at_pressure(air: Air, variable: str, rows: Integers, observations: ObservationSet, vertical: Vertical) -> Recipe:
    some = observations.select(rows)
    predictors = [vertical.at_pressure(name, some.pressure) for name in air.inputs]
    if air.function is None:
        return Recipe(rows, [[(channel, weight * air.factor) for channel, weight in predictors[0]]])
    function = air.function(some)

    def equivalents(x: Tensor) -> Tensor:
        return function(list(x.unbind(-1)), _constant(some.pressure, x))

    return Recipe(rows, predictors, equivalents, usual_gradient=_usual(variable))


def _at_height(air: Air, variable: str, rows: Integers, observations: ObservationSet, vertical: Vertical) -> Recipe:
    """At a height above sea level: the profiles of z and t say where that is."""
    some, levels = observations.select(rows), vertical.levels("z")
    names = list(dict.fromkeys(("z", "t", *air.inputs)))
    predictors = [vertical.at_level(name, level, len(rows)) for name in names for level in levels]
    function = None if air.function is None else air.function(some)
    phi = STANDARD_GRAVITY * geopotential_height(some.given("height"), some.latitude)
    ln_levels = np.log(100.0 * np.array(levels))

    def equivalents(x: Tensor) -> Tensor:
        profiles = dict(zip(names, x.unflatten(-1, (len(names), len(levels))).unbind(-2), strict=True))
        place = locate(_constant(phi, x), profiles["z"], profiles["t"], _constant(ln_levels, x))
        inputs = [place.temperature if name == "t" else place.interpolate(profiles[name]) for name in air.inputs]
        return inputs[0] if function is None else function(inputs, place.ln_p.exp())

    return Recipe(rows, predictors, equivalents, usual_gradient=None)


def _usual(variable: str) -> Callable[[Tensor], Tensor] | None:
    return usual_direction_gradient if variable in DIRECTIONS else None


def _wind_at_10_m(variable: str, rows: Integers, observations: ObservationSet, vertical: Vertical) -> Recipe:
    function = WIND_AT_10_M[variable](observations.select(rows))
    predictors = [vertical.at_level(name, None, len(rows)) for name in ("u10", "v10")]

    def equivalents(x: Tensor) -> Tensor:
        return function(list(x.unbind(-1)), x.new_zeros(()))

    return Recipe(rows, predictors, equivalents, usual_gradient=_usual(variable))


def _layers(variable: str, rows: Integers, observations: ObservationSet, vertical: Vertical) -> Recipe:
    some, levels = observations.select(rows), vertical.levels("t")
    ln_levels = np.log(100.0 * np.array(levels))
    if variable == "tlayer":
        weights = layer_weights(ln_levels, some.pressure, some.given("pressure_top"))
    else:
        weights = channel_weights(ln_levels, some.pressure)
    channels = [np.full(len(rows), vertical.index["t", level]) for level in levels]
    return Recipe(rows, [list(zip(channels, weights.T, strict=True))])


def _pressures(
    mine: NDArray[np.bool_], far: NDArray[np.bool_], observations: ObservationSet, vertical: Vertical, climb: Floats
) -> Iterator[Recipe]:
    """sp where the station stands on the model's ground, and reduced where it does not; msl likewise."""
    rows = np.flatnonzero(mine & ~far)
    if len(rows):
        yield Recipe(rows, [vertical.at_level("sp", None, len(rows))])
    rows = np.flatnonzero(mine & far)
    if not len(rows):
        return
    some = observations.select(rows)
    reduced = np.nan_to_num(climb[rows])
    # the levels around the ground by the standard atmosphere: they must not change with the state
    station = np.where(some.variable == "msl", 0.0, np.nan_to_num(some.given("height")))
    ln_ground = np.log(standard_pressure(station - reduced))
    levels = np.array(vertical.levels("t"))
    ln_levels = np.log(100.0 * levels)
    upper = np.clip(np.searchsorted(ln_levels, ln_ground, side="right") - 1, 0, len(levels) - 2)
    of = np.array([vertical.index["t", level] for level in levels])
    ones = np.ones(len(rows))
    predictors = [vertical.at_level("sp", None, len(rows)), [(of[upper], ones)], [(of[upper + 1], ones)]]

    def equivalents(x: Tensor) -> Tensor:
        ends = (_constant(ln_levels[upper + k], x) for k in (0, 1))
        temperature = surface_temperature(*x.unbind(-1), *ends)
        return reduced_pressure(x[..., 0], temperature, _constant(reduced, x))

    yield Recipe(rows, predictors, equivalents)
