"""Wind as it is measured: how strong, and where from.

speed = sqrt(u^2 + v^2); direction = atan2(-u, -v), degrees clockwise from north, where the wind comes from
(WMO-No. 8, Volume I, chapter 5). As observations: Gao, Huang et al. 2015 (MWR 143, 153-164).
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CALM = 1e-4  # m2 s-2: keeps the derivative of the speed finite where there is no wind
WEAK = 2.0  # m s-1: the direction of a weaker wind says little about its components
USUAL = 5.0  # m s-1: a usual wind, for the size of direction errors


def speed(u: Tensor, v: Tensor) -> Tensor:
    """m s-1; the square root is shifted by CALM, 0.01 m s-1 where it is calm."""
    return torch.sqrt(u**2 + v**2 + CALM)


def direction_near(value: NDArray[np.float64]) -> Callable[[Tensor, Tensor], Tensor]:
    """The direction (degrees) on that turn of the circle that is nearest to the observed `value` [n].

    So the departure value - H(x) lies in [-180, 180] wherever it is taken. The derivative
    d(direction) = (v du - u dv) / |V|^2 is taken with |V|^2 + WEAK^2 below: it does not blow up in a calm, where the
    direction means nothing, and a Gauss-Newton step stays a step of the wind.
    """

    def direction(u: Tensor, v: Tensor) -> Tensor:
        observed = torch.as_tensor(value, dtype=u.dtype, device=u.device)
        with torch.no_grad():
            exact = torch.rad2deg(torch.atan2(-u, -v))
            exact = observed + (exact - observed + 180.0) % 360.0 - 180.0
            east, north = (torch.rad2deg(part / (u**2 + v**2 + WEAK**2)) for part in (v, -u))
        # straight through: the value is exact, the derivative the guarded one
        return exact + east * (u - u.detach()) + north * (v - v.detach())

    return direction


def usual_direction_gradient(columns: Tensor) -> Tensor:
    """How much a direction differs by an error of either component, degrees per m s-1: as [..., 2] `columns` of u, v."""
    size = columns.square().sum(dim=-1, keepdim=True).sqrt().clamp_min(USUAL)
    return torch.rad2deg(1.0 / size).expand_as(columns) / 2**0.5
