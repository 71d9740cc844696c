"""What each variable is made of at a point: inputs of the state and a function of them, in the air and at the surface.

`Air` functions take the inputs [member, n] and the pressure (Pa); None: the input itself is the equivalent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.operators import moist, wind
from models.operators.earth import STANDARD_GRAVITY, geometric_height, gravity_ratio_and_radius
from models.operators.observation_set import ObservationSet

Function = Callable[[list[Tensor], Tensor], Tensor]
"""(inputs, pressure) -> equivalents [member, n]."""


@dataclass(frozen=True)
class Air:
    """A variable of the free air, at a pressure or at a height."""

    inputs: tuple[str, ...]
    function: Callable[[ObservationSet], Function] | None = None
    factor: float = 1.0
    """Of the single input, where there is no function."""


def _dewpoint(_: ObservationSet) -> Function:
    return lambda x, p: moist.dewpoint(x[0], p)


def _relative_humidity(_: ObservationSet) -> Function:
    return lambda x, p: moist.relative_humidity(x[0], x[1], p)


def _refractivity(_: ObservationSet) -> Function:
    return lambda x, p: moist.refractivity(x[0], x[1], p)


def _speed(_: ObservationSet) -> Function:
    return lambda x, _: wind.speed(x[0], x[1])


def _direction(observations: ObservationSet) -> Function:
    near = wind.direction_near(observations.value)
    return lambda x, _: near(x[0], x[1])


def _geometric_height(observations: ObservationSet) -> Function:
    ratio, radius = gravity_ratio_and_radius(observations.latitude)

    def height(x: list[Tensor], _: Tensor) -> Tensor:
        g, r = (torch.as_tensor(np.asarray(part), dtype=x[0].dtype, device=x[0].device) for part in (ratio, radius))
        return geometric_height(x[0] / STANDARD_GRAVITY, g, r)

    return height


AIR: dict[str, Air] = {
    "z": Air(("z",)),
    "t": Air(("t",)),
    "u": Air(("u",)),
    "v": Air(("v",)),
    "q": Air(("q",)),
    "ws": Air(("u", "v"), _speed),
    "wdir": Air(("u", "v"), _direction),
    "rh": Air(("q", "t"), _relative_humidity),
    "td": Air(("q",), _dewpoint),
    "refractivity": Air(("t", "q"), _refractivity),
    "gh": Air(("z",), factor=1.0 / STANDARD_GRAVITY),
    "h": Air(("z",), _geometric_height),
}
WIND_AT_10_M: dict[str, Callable[[ObservationSet], Function]] = {"ws10": _speed, "wdir10": _direction}
DIRECTIONS = ("wdir", "wdir10")
HEIGHTS = ("z", "gh", "h")
"""At a height these are that height again: they need a pressure."""
LAYERS = ("tlayer", "tb")
"""Layer-mean temperature between `pressure_top` and `pressure`; brightness temperature of a channel peaking at `pressure`."""
