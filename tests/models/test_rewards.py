"""Balance of states whose imbalance is known: analytic flows, and known departures from them."""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.assimilation import Assimilator
from models.constants import GAS_CONSTANT
from models.rewards import (
    adherence,
    geostrophic_adherence,
    geostrophic_imbalance,
    hydrostatic_adherence,
    hydrostatic_imbalance,
    levels_of,
)
from models.specification import ChannelSpec, GridSpec
from models.training.data import NatureFile
from tests.models.conftest import HELD_OUT_FROM
from tests.models.synthetic import CHANNELS, Atmosphere, gaussian_grid

TIME = datetime(2001, 1, 20, tzinfo=UTC)


def flow(rows: int) -> tuple[Tensor, GridSpec]:
    """A jet with waves, geostrophic in closed form: [1, channel, latitude, longitude]."""
    grid = gaussian_grid(rows)
    return torch.from_numpy(Atmosphere(3).state(TIME, grid))[None], grid


def wind(state: Tensor) -> list[int]:
    return [i for i, channel in enumerate(CHANNELS) if channel.variable in ("u", "v")]


def test_an_exactly_geostrophic_flow_has_no_imbalance_but_that_of_the_grid_of_second_order() -> None:
    sizes = [geostrophic_imbalance(*flow(rows), CHANNELS).item() for rows in (24, 48, 96, 192)]
    orders = [np.log2(a / b) for a, b in pairwise(sizes)]
    assert sizes[-1] < 3e-3 and all(1.7 < order < 2.3 for order in orders), (sizes, orders)


def test_a_zonal_jet_without_meridional_wind_is_balanced_too() -> None:
    state, grid = flow(96)
    zonal = state.mean(dim=-1, keepdim=True).expand_as(state).clone()
    v = [i for i, channel in enumerate(CHANNELS) if channel.variable == "v"]
    zonal[:, v] = 0.0
    assert geostrophic_imbalance(zonal, grid, CHANNELS).item() < 0.01


@pytest.mark.parametrize("excess", [0.1, -0.2, 1.0])
def test_an_ageostrophic_excess_is_measured_relative_to_the_wind(excess: float) -> None:
    state, grid = flow(96)
    state[:, wind(state)] *= 1 + excess
    expected = abs(excess) / (1 + excess)
    assert geostrophic_imbalance(state, grid, CHANNELS).item() == pytest.approx(expected, rel=0.03)


def test_wind_in_the_tropics_and_at_the_poles_does_not_count() -> None:
    state, grid = flow(48)
    before = geostrophic_imbalance(state, grid, CHANNELS)
    latitude = np.abs(np.array(grid.latitudes))
    outside = torch.from_numpy((latitude < 20) | (latitude > 80))
    state[:, wind(state)] += 50.0 * outside[:, None]
    torch.testing.assert_close(geostrophic_imbalance(state, grid, CHANNELS), before)
    state[:, wind(state)] += 50.0 * ~outside[:, None]
    assert geostrophic_imbalance(state, grid, CHANNELS).item() > 0.5


def test_each_member_has_its_own_imbalance() -> None:
    state, grid = flow(48)
    other = state.clone()
    other[:, wind(state)] *= 1.5
    both = geostrophic_imbalance(torch.cat([state, other]), grid, CHANNELS)
    torch.testing.assert_close(both[:1], geostrophic_imbalance(state, grid, CHANNELS))
    assert both[1] > 0.3 > both[0]


PRESSURES = (925.0, 850.0, 500.0, 200.0)
COLUMN = tuple(ChannelSpec(variable=v, level=p) for v in "zt" for p in PRESSURES)


def column(t0: float, slope: float, warming: float = 1.0) -> Tensor:
    """T = t0 + slope ln(p / 1000 hPa) (times `warming`) with z the integral of the unwarmed T."""
    grid = gaussian_grid(8)
    x = torch.log(torch.tensor(PRESSURES, dtype=torch.float64) / 1000)
    profile = torch.cat([-GAS_CONSTANT * (t0 * x + 0.5 * slope * x**2), warming * (t0 + slope * x)])
    return profile[None, :, None, None].expand(1, -1, grid.N * 2, grid.N * 4).clone()


@pytest.mark.parametrize(("t0", "slope"), [(250.0, 0.0), (288.0, 40.0)], ids=["isothermal", "linear in ln p"])
def test_a_hydrostatic_column_has_no_imbalance(t0: float, slope: float) -> None:
    assert hydrostatic_imbalance(column(t0, slope), gaussian_grid(8), COLUMN).item() < 1e-9


def test_a_warmed_column_is_imbalanced_by_its_warming() -> None:
    warmed = hydrostatic_imbalance(column(250.0, 0.0, warming=1.02), gaussian_grid(8), COLUMN)
    assert warmed.item() == pytest.approx(0.02 / 1.02, rel=1e-9)


def test_the_order_of_the_channels_does_not_matter() -> None:
    order = [2, 0, 3, 1, 6, 4, 7, 5]
    shuffled = tuple(COLUMN[i] for i in order)
    value = hydrostatic_imbalance(column(250.0, 30.0, 1.1)[:, order], gaussian_grid(8), shuffled)
    torch.testing.assert_close(value, hydrostatic_imbalance(column(250.0, 30.0, 1.1), gaussian_grid(8), COLUMN))
    assert levels_of("t", shuffled) == ([6, 4, 7, 5], [20000.0, 50000.0, 85000.0, 92500.0])


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_adherence_is_one_at_the_reference_and_falls_equally_on_either_side(scale: float) -> None:
    differences = torch.tensor([0.0, 1.0, -1.0, 10.0])
    scores = adherence(0.2 + scale * differences, 0.2, scale)
    expected = [1.0, 0.537883, 0.537883, 2 / (1 + np.exp(10.0))]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)


def test_a_balanced_flow_adheres_fully_to_a_balanced_reference() -> None:
    assert adherence(geostrophic_imbalance(*flow(192), CHANNELS), 0.0).item() == pytest.approx(1.0, abs=2e-3)
    assert adherence(torch.tensor([1.0]), 0.0).item() < 0.6


def test_states_of_the_nature_run_adhere_to_it_and_noisy_ones_do_not(assimilator: Assimilator, nature: Path) -> None:
    spec, file = assimilator.description, NatureFile.open(nature / "validation.nc", before=HELD_OUT_FROM)
    states = next(file.chunks())[1][::4].numpy()
    noise = np.random.default_rng(1).standard_normal(states.shape).astype(np.float32)
    noisy = states + 0.3 * noise * assimilator.climatology(TIME)[1]
    for score in (geostrophic_adherence, hydrostatic_adherence):
        assert score(states, spec).mean() > 0.9
        assert score(noisy, spec).max() < score(states, spec).min()
    assert hydrostatic_adherence(noisy, spec).max() < 0.01  # relative to a reference of less than a per mille


def test_the_reference_is_the_mean_imbalance_of_the_validation_states(assimilator: Assimilator, nature: Path) -> None:
    spec, file = assimilator.description, NatureFile.open(nature / "validation.nc", before=HELD_OUT_FROM)
    states = next(file.chunks())[1]
    for measure, reference in (
        (geostrophic_imbalance, spec.balance.geostrophic),
        (hydrostatic_imbalance, spec.balance.hydrostatic),
    ):
        assert measure(states, spec.grid, spec.channels).mean().item() == pytest.approx(reference, rel=0.05)
