"""Scores of an ensemble as rewards: proper, so that accuracy cannot be bought with spread.

Both are "fair" (Ferro 2014): the expectation over ensembles of any size is that of an infinite one, and the best
expected score is that of members drawn from the truth's own distribution. Lower is better.

That holds for independent members. `centred` ones (models.ensemble.recentred: moved to a mean that was found otherwise, each
with its variance about it kept) differ from each other by sqrt(m / (m - 1)) more, which a fair score takes for
spread: of four, it would be best for members 1.4 times too wide. Their differences are scaled back, exactly for Gaussian members.
"""

import torch
from torch import Tensor


def fair_crps(members: Tensor, truth: Tensor, area: Tensor, unit: Tensor, centred: bool = False) -> Tensor:
    """Area-mean fair CRPS by channel: [member, channel, latitude, longitude], [channel, ...] -> [channel].

    mean |x_i - y| - sum_{i, j} |x_i - x_j| / (2 m (m - 1)), in units of `unit` [channel]. Raises ValueError for
    fewer than two members.
    """
    count = _members(members)
    skill = (members - truth).abs().mean(dim=0)
    ordered = members.sort(dim=0).values
    ranks = (2 * torch.arange(count, device=members.device) - count + 1).to(members).view(-1, *[1] * (members.ndim - 1))
    spread = _excess(count, centred) * (ranks * ordered).sum(dim=0) / (count * (count - 1))
    return ((skill - spread) * area).mean(dim=(-2, -1)) / unit


def fair_energy_score(members: Tensor, truth: Tensor, area: Tensor, unit: Tensor, centred: bool = False) -> Tensor:
    """Fair energy score of each channel's field (Gneiting & Raftery 2007, eq. 22): -> [channel], like `fair_crps`.

    mean |x_i - y| - sum_{i, j} |x_i - x_j| / (2 m (m - 1)) with |.| the area-weighted root mean square of a channel.
    """
    count = _members(members)
    skill = _size(members - truth, area).mean(dim=0)
    first, second = torch.triu_indices(count, count, offset=1, device=members.device)
    spread = _excess(count, centred) * _size(members[first] - members[second], area).sum(dim=0) / (count * (count - 1))
    return (skill - spread) / unit


def _excess(count: int, centred: bool) -> float:
    """What differences between members are multiplied by."""
    return ((count - 1) / count) ** 0.5 if centred else 1.0


def _size(field: Tensor, area: Tensor) -> Tensor:
    square = (field**2 * area).mean(dim=(-2, -1))
    return square.clamp_min(torch.finfo(field.dtype).tiny).sqrt()


def _members(members: Tensor) -> int:
    if len(members) < 2:
        raise ValueError("the score of an ensemble needs at least two members")
    return len(members)
