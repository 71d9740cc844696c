"""The derivative of every operator against finite differences, and its adjoint by the dot product, in double precision."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from models.observation_operator import ObservationOperator, ObservationSet, supported
from models.operators.surface import ground_of
from tests.models.synthetic import CHANNELS, Atmosphere, gaussian_grid

GRID, COUNT = gaussian_grid(), 40
STATE = torch.from_numpy(Atmosphere(1).state(datetime(2001, 5, 1, tzinfo=UTC), GRID)).double()[None]
GROUND = ground_of(STATE, CHANNELS)

AT_PRESSURE = ("z", "t", "u", "q", "ws", "wdir", "rh", "td", "refractivity", "gh", "h", "tlayer", "tb")
AT_HEIGHT = ("t", "u", "v", "q", "ws", "wdir", "rh", "td", "refractivity")
AT_SURFACE = ("sp", "msl", "t2m", "u10", "v10", "ws10", "wdir10")
CASES = [
    *((name, "pressure") for name in AT_PRESSURE),
    *((name, "height") for name in AT_HEIGHT),
    *((name, "surface") for name in AT_SURFACE),
]


def observed(variable: str, place: str, count: int = COUNT, seed: int = 0) -> ObservationSet:
    """Reports all over the sphere, stations up to 800 m above or beneath the model's ground."""
    generator = np.random.default_rng(seed)
    none = np.full(count, np.nan)
    height = generator.uniform(1500, 10_000, count) if place == "height" else generator.uniform(-300, 1500, count)
    return ObservationSet(
        np.full(count, variable),
        generator.uniform(45_000, 90_000, count) if place == "pressure" else none,
        np.rad2deg(np.arcsin(generator.uniform(-0.9, 0.9, count))),
        generator.uniform(-180, 180, count),
        generator.uniform(0, 360, count) if variable.startswith("wdir") else np.zeros(count),
        np.ones(count),
        height=none if place == "pressure" else height,
        pressure_top=generator.uniform(21_000, 40_000, count) if variable == "tlayer" else none,
    )


def operator_of(given: ObservationSet) -> ObservationOperator:
    assert supported(given, CHANNELS).all()
    return ObservationOperator(given, GRID, CHANNELS, ground=GROUND, dtype=torch.float64)


def increment(seed: int, members: int = 1) -> torch.Tensor:
    """Random, of the size of each channel's errors."""
    size = {"z": 100.0, "q": 5e-4, "u": 1.0, "v": 1.0, "t": 0.5, "u10": 1.0, "v10": 1.0, "t2m": 1.0, "sp": 100.0}
    scale = torch.tensor([size[c.variable] for c in CHANNELS], dtype=torch.float64)[:, None, None]
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(members, *STATE.shape[1:], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("variable", "place"), CASES)
def test_the_tangent_is_the_limit_of_finite_differences(variable: str, place: str) -> None:
    operator, dx = operator_of(observed(variable, place)), increment(1)
    step = 1e-3
    difference = (operator(STATE + step * dx) - operator(STATE - step * dx)) / (2 * step)
    tangent = operator.linearised(STATE)(dx)
    if variable.startswith("wdir"):  # guarded in weak wind, by the factor |V|^2 / (|V|^2 + WEAK^2)
        names = ("u10", "v10") if place == "surface" else ("u", "v")
        parts = [ObservationSet(np.full(COUNT, n), *_rest(observed(variable, place))) for n in names]
        squared = sum(operator_of(part)(STATE) ** 2 for part in parts)
        difference = difference * squared / (squared + 4.0)
    assert difference.abs().max() > 0
    assert (difference - tangent).norm() < 1e-5 * difference.norm()


def _rest(given: ObservationSet) -> tuple[np.ndarray | None, ...]:
    return (
        given.pressure, given.latitude, given.longitude, given.value, given.error, None, given.height,
        given.pressure_top,
    )  # fmt: skip


@pytest.mark.parametrize(("variable", "place"), CASES)
def test_the_adjoint_is_the_transpose_of_the_tangent(variable: str, place: str) -> None:
    tangent, dx = operator_of(observed(variable, place)).linearised(STATE), increment(2, members=2)
    v = torch.randn(2, COUNT, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    left, right = (tangent(dx) * v).sum(), (dx * tangent.adjoint(v)).sum()
    assert abs(left - right) < 1e-10 * tangent(dx).norm() * v.norm()


@pytest.mark.parametrize(("variable", "place"), CASES)
def test_autograd_goes_the_way_of_the_adjoint(variable: str, place: str) -> None:
    operator = operator_of(observed(variable, place))
    v = torch.randn(1, COUNT, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    state = STATE.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((operator(state) * v).sum(), state)
    torch.testing.assert_close(gradient, operator.linearised(STATE).adjoint(v), rtol=1e-8, atol=1e-12)
    dx = torch.zeros_like(STATE).requires_grad_(True)
    (gradient,) = torch.autograd.grad((operator.change(STATE, dx) * v).sum(), dx)
    torch.testing.assert_close(gradient, operator.linearised(STATE).adjoint(v), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("variable", "place"), CASES)
def test_a_change_is_the_difference_of_two_equivalents(variable: str, place: str) -> None:
    operator, dx = operator_of(observed(variable, place)), increment(5)
    torch.testing.assert_close(operator.change(STATE, dx), operator(STATE + dx) - operator(STATE), rtol=1e-9, atol=1e-6)


def test_each_member_has_a_derivative_of_its_own() -> None:
    operator = operator_of(observed("ws", "pressure"))
    states, dx = torch.cat([STATE, STATE + 5 * increment(6)]), increment(7, members=2)
    together = operator.linearised(states)(dx)
    for member in range(2):
        alone = operator.linearised(states[member : member + 1])(dx[member : member + 1])
        torch.testing.assert_close(together[member : member + 1], alone)
    assert (together[:1] - operator.linearised(states[1:])(dx[:1])).abs().max() > 0.1


def test_mixed_sets_give_each_value_what_it_gets_alone() -> None:
    parts = [observed(variable, place, count=5, seed=k) for k, (variable, place) in enumerate(CASES)]
    columns = {
        name: np.concatenate([part.given(name) if name != "variable" else part.variable for part in parts])
        for name in ("variable", "pressure", "latitude", "longitude", "value", "error", "height", "pressure_top")
    }
    order = np.random.default_rng(1).permutation(len(columns["value"]))
    mixed = ObservationSet(**{name: column[order] for name, column in columns.items()})
    alone = torch.cat([operator_of(part)(STATE) for part in parts], dim=1)
    torch.testing.assert_close(operator_of(mixed)(STATE), alone[:, order])
    tangent = torch.cat([operator_of(part).linearised(STATE)(increment(8)) for part in parts], dim=1)
    torch.testing.assert_close(operator_of(mixed).linearised(STATE)(increment(8)), tangent[:, order])


def test_sets_that_are_linear_in_the_state_say_so_and_others_want_a_state() -> None:
    assert operator_of(observed("tlayer", "pressure")).linear
    operator = operator_of(observed("rh", "pressure"))
    assert not operator.linear
    with pytest.raises(ValueError, match="say where to linearise"):
        operator.adjoint(torch.zeros(1, COUNT, dtype=torch.float64))


def test_painting_has_the_effect_that_was_asked_for() -> None:
    """One lonely value each: what is painted on its cells changes its equivalent by the innovation."""
    std = torch.tensor([{"z": 800.0, "q": 1e-3, "sp": 600.0}.get(c.variable, 3.0) for c in CHANNELS]).double()
    for variable, place in CASES:
        given = observed(variable, place, count=1, seed=3)
        operator = operator_of(given)
        tangent = operator.linearised(STATE)
        pull, reach = tangent.painted(torch.ones(1, 1, dtype=torch.float64), std)
        painted = torch.where(reach.abs() > 1e-9, pull / torch.where(reach.abs() > 1e-9, reach, 1.0), 0.0)
        effect = float(tangent(painted))
        if (variable, place) not in {("z", "pressure"), ("gh", "pressure")}:  # T has no part in painting those
            assert effect == pytest.approx(1.0, rel=0.7), (variable, place)
