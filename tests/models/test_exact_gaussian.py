"""Samplers and guidance against a problem with a closed answer: a Gaussian prior and linear observations."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from models.diffusion.gaussian import ZonalGaussian, fit_zonal_covariance
from models.diffusion.guidance import Dps, Mmps, Repaint, conjugate_gradients
from models.diffusion.samplers import ancestral, dpm_solver, heun
from models.diffusion.schedule import Level, levels

SIZE, COUNT = 6, 20000


class Problem:
    """x ~ N(mean, P) in SIZE dimensions, y = H x + e: prior, exact denoiser, exact posterior (all float64)."""

    def __init__(self, observed: int = 3, error: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(11)
        root = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) / math.sqrt(SIZE)
        self.mean = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        self.covariance = root @ root.T + 0.05 * torch.eye(SIZE, dtype=torch.float64)
        self.h = torch.randn(observed, SIZE, generator=generator, dtype=torch.float64) / error
        self.y = self.h @ self.mean + 2.0 * torch.randn(observed, generator=generator, dtype=torch.float64)
        self.evaluations = 0
        gain = (
            self.covariance
            @ self.h.T
            @ torch.linalg.inv(self.h @ self.covariance @ self.h.T + torch.eye(observed, dtype=torch.float64))
        )
        self.posterior_mean = self.mean + gain @ (self.y - self.h @ self.mean)
        self.posterior_covariance = self.covariance - gain @ self.h @ self.covariance

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        self.evaluations += 1
        return self.conditional(x, level, self.mean, self.covariance)

    def conditional(self, x: Tensor, level: Level, mean: Tensor, covariance: Tensor) -> Tensor:
        total = level.alpha**2 * covariance + level.sigma**2 * torch.eye(SIZE, dtype=torch.float64)
        gain = level.alpha * covariance @ torch.linalg.inv(total)
        return mean + (x - level.alpha * mean) @ gain.T

    def given_y(self, x: Tensor, level: Level) -> Tensor:
        return self.conditional(x, level, self.posterior_mean, self.posterior_covariance)

    def covariance_times(self, x: Tensor, level: Level) -> Tensor:
        identity = torch.eye(SIZE, dtype=torch.float64)
        total = level.alpha**2 * self.covariance + level.sigma**2 * identity
        return x @ (level.sigma**2 * self.covariance @ torch.linalg.inv(total)).T

    def residual(self, x: Tensor) -> Tensor:
        return self.y - x @ self.h.T

    def linearised(self, x: Tensor) -> "Problem":
        return self

    def jacobian(self, dx: Tensor) -> Tensor:
        return dx @ self.h.T

    def adjoint(self, v: Tensor) -> Tensor:
        return v @ self.h


@pytest.fixture
def problem() -> Problem:
    return Problem()


def exact_mmps(problem: Problem) -> Mmps:
    return Mmps(problem, problem, problem.covariance_times, iterations=50, tolerance=1e-12)


def noise(seed: int, count: int = COUNT) -> Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_moments(samples: Tensor, mean: Tensor, covariance: Tensor, sigmas: float = 5.0, bias: float = 0.0) -> None:
    """Sample mean and covariance within `sigmas` of their sampling error (plus a stated discretisation bias)."""
    variance = torch.diagonal(covariance)
    error = (samples.mean(dim=0) - mean).abs()
    assert (error < sigmas * (variance / len(samples)).sqrt() + bias * variance.sqrt()).all(), error
    scale = (variance[:, None] * variance[None]).sqrt()
    difference = (torch.cov(samples.T) - covariance).abs()
    assert (difference < (sigmas * math.sqrt(2 / len(samples)) + bias) * scale).all(), difference / scale


@pytest.mark.parametrize("t", [0.05, 0.3, 0.7, 0.95])
def test_mmps_is_the_exact_conditional_denoiser_at_every_noise_level(problem: Problem, t: float) -> None:
    x, level = noise(1, 10), Level(t)
    torch.testing.assert_close(exact_mmps(problem)(x, level), problem.given_y(x, level), rtol=1e-8, atol=1e-8)


def test_mmps_with_the_sde_sampler_recovers_the_exact_gaussian_posterior(problem: Problem) -> None:
    generator = torch.Generator().manual_seed(3)
    samples = dpm_solver(exact_mmps(problem), noise(2), 64, stochastic=True, generator=generator)
    final = Level(0.03)
    # the last denoising replaces the remaining noise by its mean: that variance is known and small
    removed = (
        problem.posterior_covariance
        * final.sigma**2
        @ torch.linalg.inv(
            final.alpha**2 * problem.posterior_covariance + final.sigma**2 * torch.eye(SIZE, dtype=torch.float64)
        )
    )
    assert_moments(samples, problem.posterior_mean, problem.posterior_covariance - removed, bias=0.03)


def test_without_guidance_the_samplers_recover_the_prior(problem: Problem) -> None:
    for samples in (
        dpm_solver(problem, noise(4), 64, stochastic=False),
        heun(problem, noise(5), 32),
        dpm_solver(problem, noise(6), 64, stochastic=True, generator=torch.Generator().manual_seed(7)),
        ancestral(problem, noise(8, 8000), 128, corrections=2, generator=torch.Generator().manual_seed(9)),
    ):
        assert_moments(samples, problem.mean, problem.covariance, bias=0.06)


def test_the_zero_noise_start_gives_the_posterior_mean(problem: Problem) -> None:
    start = torch.zeros(1, SIZE, dtype=torch.float64)
    centre = dpm_solver(exact_mmps(problem), start, 16, stochastic=False)[0]
    error = (centre - problem.posterior_mean).norm() / (problem.posterior_mean - problem.mean).norm()
    assert error < 0.03
    eight, thirty_two = (
        (dpm_solver(exact_mmps(problem), start, n, stochastic=False)[0] - problem.posterior_mean).norm()
        for n in (8, 32)
    )
    assert thirty_two < eight


@pytest.mark.parametrize("solver", ["dpm", "heun"])
def test_the_deterministic_solvers_are_of_second_order(problem: Problem, solver: str) -> None:
    x = noise(10, 50)
    ends = {"t_start": 0.9, "t_end": 0.1}

    def solve(steps: int) -> Tensor:
        schedule = levels(steps, **ends)
        if solver == "dpm":
            return dpm_solver(problem, x, steps, stochastic=False, schedule=schedule)
        return heun(problem, x, steps, schedule=schedule)

    reference = solve(4096)
    errors = [(solve(steps) - reference).norm().item() for steps in (32, 64, 128)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(1.8 < order < 2.4 for order in orders), orders


def test_dps_with_the_exact_variance_of_one_observation_is_exact() -> None:
    problem = Problem(observed=1)
    level, x = Level(0.5), noise(12, 20)
    v = problem.covariance_times(problem.h, level)
    exact_spread = (v @ problem.h.T).item() * (level.alpha**2 + level.sigma**2) / level.sigma**2
    guided = Dps(problem, problem, exact_spread, zeta=1.0, gamma=1.0, longest=1e9)(x, level)
    torch.testing.assert_close(guided, problem.given_y(x, level), rtol=1e-8, atol=1e-8)


def test_dps_shortens_a_step_that_would_overshoot(problem: Problem) -> None:
    level, x = Level(0.5), noise(12, 20)
    step = Dps(problem, problem, 0.0, zeta=1e6, gamma=0.0, longest=0.5)(x, level) - problem(x, level)
    assert step.square().mean(dim=1).sqrt().max() <= 0.5 + 1e-9


def test_repaint_keeps_what_is_not_observed_and_paints_what_is(problem: Problem) -> None:
    def paint(x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[:, :2], 7.0), x[:, 2:]], dim=1)

    x, level = noise(13, 5), Level(0.4)
    painted = Repaint(problem, paint)(x, level)
    assert (painted[:, :2] == 7.0).all()
    torch.testing.assert_close(painted[:, 2:], problem(x, level)[:, 2:])


def test_conjugate_gradients_from_a_first_guess_reach_the_same_solution_sooner() -> None:
    root = noise(20, 12)
    matrix = root.T @ root + torch.eye(SIZE, dtype=torch.float64)
    b, runs = noise(21, 3), [0]

    def times(v: Tensor) -> Tensor:
        runs[0] += 1
        return v @ matrix

    cold = conjugate_gradients(times, b, 30, 1e-10)
    of_cold = runs[0]
    exact = torch.linalg.solve(matrix, b.T).T
    along_one_axis = torch.linalg.eigh(matrix).eigenvectors[:, 2]
    warm = conjugate_gradients(times, b, 30, 1e-10, exact + along_one_axis)
    torch.testing.assert_close(cold, exact, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(warm, exact, rtol=1e-8, atol=1e-10)
    assert of_cold == SIZE and runs[0] - of_cold == 2  # the residual of the guess, and one step
    # nothing is left to do where the guess is the solution: one product tells
    runs[0] = 0
    assert conjugate_gradients(times, b, 30, 1e-6, exact).equal(exact) and runs[0] == 1


def test_guidance_that_goes_on_from_its_last_solution_spares_iterations_and_nothing_else() -> None:
    """The zero-noise sample of a Gaussian is the posterior mean, and R^-1/2 (y - h(x_a)) solves every level's system."""
    problem, products = Problem(observed=5), [0]
    plain = problem.jacobian

    def counted(dx: Tensor) -> Tensor:
        products[0] += 1
        return plain(dx)

    problem.jacobian = counted  # type: ignore[method-assign]
    spent = {}
    for warm in (False, True):
        products[0] = 0
        guide = Mmps(problem, problem, problem.covariance_times, iterations=50, tolerance=1e-4, warm=warm)
        start = levels(16)[0].alpha * problem.posterior_mean[None]
        found = dpm_solver(guide, start, 16, stochastic=False)
        torch.testing.assert_close(found[0], problem.posterior_mean, rtol=1e-3, atol=1e-3)
        spent[warm] = products[0]
    assert spent[True] < 0.7 * spent[False], spent


def test_conjugate_gradients_solve_each_member_and_survive_an_indefinite_matrix() -> None:
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(8, dtype=torch.float64)
    b = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    b[1] = 0.0
    solution = conjugate_gradients(lambda v: v @ matrix, b, 30, 1e-12)
    torch.testing.assert_close(solution, b @ torch.linalg.inv(matrix), rtol=1e-7, atol=1e-9)
    assert torch.isfinite(conjugate_gradients(lambda v: -(v @ matrix), b, 30, 1e-12)).all()


@pytest.fixture
def zonal() -> tuple[ZonalGaussian, Tensor]:
    """A Gaussian on 2 components, 4 latitudes, 8 longitudes and its dense covariance."""
    generator = torch.Generator().manual_seed(21)
    root = torch.randn(2, 5, 4, 4, generator=generator)
    gaussian = ZonalGaussian(root @ root.transpose(-1, -2) / 4 + 0.1 * torch.eye(4))
    basis = torch.eye(64).reshape(64, 2, 4, 8)
    return gaussian, gaussian.times(basis).reshape(64, 64)


def test_the_zonal_gaussian_equals_its_dense_covariance(zonal: tuple[ZonalGaussian, Tensor]) -> None:
    gaussian, dense = zonal
    torch.testing.assert_close(dense, dense.T, atol=1e-5, rtol=0)
    x, level = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(1)), Level(0.6)
    total = torch.linalg.inv(level.alpha**2 * dense + level.sigma**2 * torch.eye(64))
    wiener = (x.reshape(3, 64) @ total @ dense * level.alpha).reshape(x.shape)
    torch.testing.assert_close(gaussian.denoise(x, level), wiener, atol=1e-4, rtol=1e-4)
    covariance = (x.reshape(3, 64) @ total @ dense * level.sigma**2).reshape(x.shape)
    torch.testing.assert_close(gaussian.covariance_times(x, level), covariance, atol=1e-4, rtol=1e-4)


def test_the_zonal_covariance_is_found_again_from_samples(zonal: tuple[ZonalGaussian, Tensor]) -> None:
    gaussian, dense = zonal
    samples = gaussian.sample(torch.randn(20000, 2, 4, 8, generator=torch.Generator().manual_seed(2)))
    found = ZonalGaussian(fit_zonal_covariance(samples, shrinkage=0.0)).times(torch.eye(64).reshape(64, 2, 4, 8))
    assert (found.reshape(64, 64) - dense).norm() / dense.norm() < 0.05
