"""Accuracy, forecast skill and ensemble rewards against hand-made fields, closed forms and finite differences."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.assimilation import Assimilator
from models.ensemble import recentred
from models.grid import area_weights
from models.precision import networks_on
from models.rewards import (
    accuracy,
    adherence,
    channel_rmse,
    fair_crps,
    fair_energy_score,
    forecast_skill,
    geostrophic_imbalance,
    hydrostatic_imbalance,
    pairwise_scores,
    roll_forward,
)
from models.scores import crps, rmse
from models.training.data import NatureFile
from tests.models.conftest import HELD_OUT_FROM
from tests.models.synthetic import CHANNELS, Atmosphere, gaussian_grid

GRID = gaussian_grid(8)
LATITUDES = np.array(GRID.latitudes)
AREA = area_weights(LATITUDES)[:, None]
TIME = datetime(2001, 1, 20, tzinfo=UTC)


def fields(members: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(members, channels, 8, 16, generator=torch.Generator().manual_seed(seed))


def test_a_constant_error_is_its_own_rmse_whatever_the_area() -> None:
    truth = fields(1)
    x = truth + torch.tensor([0.5, -2.0, 3.0])[:, None, None]
    torch.testing.assert_close(channel_rmse(x, truth, AREA), torch.tensor([[0.5, 2.0, 3.0]]))
    unit = torch.tensor([1.0, 2.0, 3.0])
    assert accuracy(x, truth, AREA, unit).item() == pytest.approx(-(0.25 + 1 + 1) / 3)
    assert accuracy(truth, truth, AREA, unit).item() == 0.0


def test_the_rmse_is_that_of_the_scores() -> None:
    x, truth = fields(1, seed=1), fields(1, seed=2)
    expected = rmse(x[0].numpy(), truth[0].numpy(), LATITUDES)
    np.testing.assert_allclose(channel_rmse(x, truth, AREA)[0].numpy(), expected, rtol=1e-5)


def test_pairwise_scores_are_the_papers_mean_of_sigmoids() -> None:
    errors = torch.tensor([[1.0, 5.0], [2.0, 3.0], [4.0, 4.0]])

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    first = (sigmoid(2 - 1) + sigmoid(4 - 1) + sigmoid(3 - 5) + sigmoid(4 - 5)) / 4
    scores = pairwise_scores(errors, scale=1.0)
    assert scores[0].item() == pytest.approx(first, rel=1e-6)
    assert scores.mean().item() == pytest.approx(0.5, rel=1e-6)


def test_pairwise_scores_rank_by_error_and_do_not_depend_on_the_unit_of_a_channel() -> None:
    errors = torch.rand(32, 5, generator=torch.Generator().manual_seed(3)) + 1
    scores = pairwise_scores(errors)
    torch.testing.assert_close(pairwise_scores(errors * torch.tensor([1.0, 1e3, 1e-3, 7.0, 1.0])), scores)
    better = errors.clone()
    better[4] -= 0.2
    assert pairwise_scores(better)[4] > scores[4]
    with pytest.raises(ValueError, match="two candidates"):
        pairwise_scores(errors[:1])


def test_the_fair_crps_is_that_of_the_scores() -> None:
    members, truth = fields(7), fields(1, seed=9)[0]
    unit = torch.tensor([1.0, 2.0, 5.0])
    expected = crps(members.numpy(), truth.numpy(), LATITUDES) / unit.numpy()
    np.testing.assert_allclose(fair_crps(members, truth, AREA, unit).numpy(), expected, rtol=1e-4)


def test_the_energy_score_of_constant_fields_is_the_crps_of_their_values() -> None:
    members = torch.tensor([0.0, 1.0, 4.0])[:, None, None, None].expand(3, 1, 8, 16)
    truth = torch.full((1, 8, 16), 2.0)
    expected = (2 + 1 + 2) / 3 - (1 + 4 + 3) / (3 * 2)
    for score in (fair_crps, fair_energy_score):
        assert score(members, truth, AREA, torch.ones(1)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("score", [fair_crps, fair_energy_score])
def test_of_centred_members_the_score_is_that_of_independent_ones_and_best_at_the_right_width(
    score: Callable[..., torch.Tensor],
) -> None:
    """Truth and members around the same mean, which the members have exactly."""
    generator = torch.Generator().manual_seed(4)
    truth = torch.randn(1, 1, 300, 400, generator=generator)
    draws = torch.randn(4, 1, 300, 400, generator=generator)
    area, unit = torch.ones(300, 1), torch.ones(1)
    moved = recentred(draws, torch.zeros(1, 1, 300, 400))
    values = {width: score(width * moved, truth[0], area, unit, centred=True).item() for width in (0.8, 1.0, 1.25)}
    assert values[1.0] == pytest.approx(score(draws, truth[0], area, unit).item(), rel=5e-3)
    assert values[1.0] < min(values[0.8], values[1.25])
    fair = [score(width * moved, truth[0], area, unit).item() for width in (1.0, 1.25)]
    assert fair[1] < fair[0]  # what `centred` is there for


@pytest.mark.parametrize("score", [fair_crps, fair_energy_score])
@pytest.mark.parametrize("members", [2, 8])
def test_accuracy_bought_with_spread_does_not_pay(score: Callable[..., Tensor], members: int) -> None:
    """Truth and members from N(0, 1): narrowing or widening the members makes the score worse on average."""
    unit = torch.ones(3)
    averages = {}
    for width in (0.6, 1.0, 1.5):
        values = [
            score(width * fields(members, seed=2 * k + 1), fields(1, seed=2 * k)[0], AREA, unit).mean()
            for k in range(60)
        ]
        averages[width] = torch.stack(values).mean().item()
    assert averages[1.0] < min(averages[0.6], averages[1.5])
    errors = {
        width: -accuracy(width * fields(8, seed=1), fields(1, seed=0), AREA, unit).mean().item() for width in averages
    }
    assert errors[0.6] < errors[1.0]  # while the error of single members asks for no spread at all


def test_the_score_of_one_member_is_refused() -> None:
    for score in (fair_crps, fair_energy_score):
        with pytest.raises(ValueError, match="two members"):
            score(fields(1), fields(1)[0], AREA, torch.ones(3))


def test_balanced_fields_score_one_and_unbalanced_less() -> None:
    grid = gaussian_grid(96)
    state = torch.from_numpy(Atmosphere(3).state(TIME, grid))[None].double()
    assert adherence(geostrophic_imbalance(state, grid, CHANNELS), 0.0).item() > 0.99
    spun = state.clone()
    spun[:, [i for i, c in enumerate(CHANNELS) if c.variable in ("u", "v")]] *= 1.5
    assert adherence(geostrophic_imbalance(spun, grid, CHANNELS), 0.0).item() < 0.9


def numerical(function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, step: float = 1e-5) -> float:
    return ((function(x + step * direction) - function(x - step * direction)) / (2 * step)).item()


UNIT = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
TRUTH = fields(1, seed=5).double()


@pytest.mark.parametrize(
    "reward",
    [
        lambda x: accuracy(x, TRUTH, AREA.double(), UNIT).sum(),
        lambda x: pairwise_scores(channel_rmse(x, TRUTH, AREA.double()))[1],
        lambda x: fair_crps(x, TRUTH[0], AREA.double(), UNIT).sum(),
        lambda x: fair_energy_score(x, TRUTH[0], AREA.double(), UNIT).sum(),
    ],
    ids=["accuracy", "pairwise", "crps", "energy"],
)
def test_gradients_are_those_of_finite_differences(reward: Callable[[Tensor], Tensor]) -> None:
    x = fields(4, seed=6).double().requires_grad_(True)
    direction = fields(4, seed=7).double()
    (gradient,) = torch.autograd.grad(reward(x), x)
    assert (gradient * direction).sum().item() == pytest.approx(numerical(reward, x.detach(), direction), rel=1e-4)


@pytest.mark.parametrize("measure", [geostrophic_imbalance, hydrostatic_imbalance])
def test_gradients_of_the_balance_are_those_of_finite_differences(measure: Callable[..., Tensor]) -> None:
    grid = gaussian_grid(16)
    state = torch.from_numpy(Atmosphere(3).state(TIME, grid))[None].double()
    size = state.std(dim=(-2, -1), keepdim=True)
    direction = size * torch.randn(state.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def reward(x: Tensor) -> Tensor:
        return adherence(measure(x, grid, CHANNELS), 0.0, 0.1).sum()

    x = (state + 0.1 * direction).requires_grad_(True)
    (gradient,) = torch.autograd.grad(reward(x), x)
    assert (gradient * direction).sum().item() == pytest.approx(numerical(reward, x.detach(), direction), rel=1e-4)


def test_the_roll_out_is_the_services_forecast_and_can_be_differentiated(
    assimilator: Assimilator, nature: Path
) -> None:
    bundle = assimilator.bundle
    states = next(NatureFile.open(nature / "validation.nc", before=HELD_OUT_FROM).chunks())[1][8:9]
    states[:, assimilator.moisture] *= 0.02  # so dry that the floor is reached
    expected = list(assimilator.forecast(states.numpy(), TIME, 4))[-1]
    x = bundle.climate.normalise(states, TIME).requires_grad_(True)
    with networks_on(x.device):
        later = roll_forward(
            bundle.forecast, bundle.climate, x, TIME, 4, assimilator.spec.step_hours, assimilator.moisture
        )
    valid = datetime(2001, 1, 21, tzinfo=UTC)
    found = bundle.climate.denormalise(later, valid)
    difference = (found.detach() - torch.from_numpy(expected)) / bundle.climate.std[:, None, None]
    moved = later.detach() - x.detach()
    assert difference.square().mean() < 1e-8 * moved.square().mean()
    assert found[:, assimilator.moisture].min() > -1e-9
    area = area_weights(np.array(assimilator.spec.grid.latitudes))[:, None]
    skill = forecast_skill(later, torch.zeros_like(later), area, torch.ones(len(CHANNELS)))
    (gradient,) = torch.autograd.grad(skill.sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0
