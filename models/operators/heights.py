"""Values at a height: where in ln p the state has that geopotential, and the state's temperature there.

Between levels ln p solves z(ln p) = phi for the hydrostatic Hermite cubic of `interpolation`; beneath the lowest level
temperature grows by the standard lapse rate, above the highest it is constant. d ln p / dx follows by the theorem of
implicit functions. Levels [L] run from the top down; profiles are [member, n, L].
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.constants import GAS_CONSTANT
from models.operators.earth import LAPSE_RATE, STANDARD_GRAVITY

NEWTON_STEPS = 4


@dataclass(frozen=True)
class Place:
    """`ln_p`, `temperature` [member, n]; `upper` the level above, `share` of the level beneath it, in [0, 1]."""

    ln_p: Tensor
    temperature: Tensor
    upper: Tensor
    share: Tensor

    def interpolate(self, profile: Tensor) -> Tensor:
        """A profile [member, n, L] here, linear in ln p, constant beyond the levels: [member, n]."""
        above, beneath = take(profile, self.upper), take(profile, self.upper + 1)
        return above + self.share * (beneath - above)


def take(profile: Tensor, level: Tensor) -> Tensor:
    """[member, n, L] at level [member, n]: [member, n]."""
    return torch.gather(profile, -1, level[..., None])[..., 0]


def locate(phi: Tensor, z: Tensor, t: Tensor, ln_levels: Tensor) -> Place:
    """Where geopotential is `phi` [n] (m2 s-2), given profiles of z (m2 s-2) and t (K)."""
    phi = phi.expand(z.shape[:-1])
    upper = ((z.detach() >= phi[..., None]).sum(dim=-1) - 1).clamp(0, z.shape[-1] - 2)
    z0, z1, t0, t1 = take(z, upper), take(z, upper + 1), take(t, upper), take(t, upper + 1)
    top, width = ln_levels[upper], ln_levels[upper + 1] - ln_levels[upper]
    m0, m1 = -GAS_CONSTANT * width * t0, -GAS_CONSTANT * width * t1

    def excess(s: Tensor) -> Tensor:
        cubic = (2 * s**3 - 3 * s**2 + 1) * z0 + (3 * s**2 - 2 * s**3) * z1
        return cubic + (s**3 - 2 * s**2 + s) * m0 + (s**3 - s**2) * m1 - phi

    def slope(s: Tensor) -> Tensor:
        chord = (6 * s**2 - 6 * s) * (z0 - z1)
        return chord + (3 * s**2 - 4 * s + 1) * m0 + (3 * s**2 - 2 * s) * m1

    with torch.no_grad():
        s = ((z0 - phi) / (z0 - z1)).clamp(0.0, 1.0)
        for _ in range(NEWTON_STEPS):
            s = (s - excess(s) / slope(s)).clamp(0.0, 1.0)
        gradient = slope(s)
    s = s - excess(s) / gradient  # one step more, for the derivative: ds = -d(excess) / slope
    beneath, above = phi < z[..., -1], phi > z[..., 0]
    inside = ~(beneath | above)
    warmed = t[..., -1] + LAPSE_RATE / STANDARD_GRAVITY * (z[..., -1] - phi).clamp_min(0.0)
    exponent = STANDARD_GRAVITY / (GAS_CONSTANT * LAPSE_RATE)
    ln_beneath = ln_levels[-1] + exponent * torch.log(warmed / t[..., -1])
    ln_above = ln_levels[0] - (phi - z[..., 0]).clamp_min(0.0) / (GAS_CONSTANT * t[..., 0])
    share = torch.where(inside, s, torch.where(beneath, 1.0, 0.0).to(s))
    ln_p = torch.where(inside, top + s * width, torch.where(beneath, ln_beneath, ln_above))
    temperature = torch.where(beneath, warmed, t0 + share * (t1 - t0))
    return Place(ln_p, temperature, upper, share)
