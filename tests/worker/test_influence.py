"""Influence from members, against linear Gaussian problems where the influence matrix is known."""

import numpy as np

from worker.stages.influence import degrees_of_freedom, normalised_perturbations, self_sensitivity


class Gaussian:
    """x ~ N(0, B), y = H x + e, e ~ N(0, R) with R diagonal: B correlated, H full rows, 40 states, 60 observations."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(5)
        place = np.arange(40.0)
        self.b = 4.0 * np.exp(-0.5 * ((place[:, None] - place) / 3.0) ** 2) + 1e-6 * np.eye(40)
        self.h = self.generator.normal(size=(60, 40)) / np.sqrt(40)
        self.sigma = self.generator.uniform(0.3, 3.0, 60)
        gain = self.b @ self.h.T @ np.linalg.inv(self.h @ self.b @ self.h.T + np.diag(self.sigma**2))
        self.gain, self.a = gain, self.b - gain @ self.h @ self.b
        self.influence = self.h @ gain  # d(H x_a) / d y

    def equivalents(self, members: int) -> np.ndarray:
        """H x of samples of the posterior [member, 60]; its mean plays no part."""
        root = np.linalg.cholesky(self.a + 1e-12 * np.eye(40))
        return 7.0 + self.generator.normal(size=(members, 40)) @ root.T @ self.h.T


def test_influence_is_what_the_analysis_changes_when_the_observation_does() -> None:
    """(H A H^T)_ii / R_ii is the derivative: exact in a linear Gaussian problem."""
    problem = Gaussian()
    np.testing.assert_allclose(
        np.diag(problem.h @ problem.a @ problem.h.T) / problem.sigma**2, np.diag(problem.influence), rtol=1e-9
    )


def test_influence_of_each_observation_is_sampled_within_its_theoretical_error() -> None:
    """S_ii follows S chi2(m - 1) / (m - 1): 400 ensembles of 16 must have its mean and its spread."""
    problem, draws, members = Gaussian(), 400, 16
    exact = np.diag(problem.influence)
    sampled = np.array(
        [self_sensitivity(normalised_perturbations(problem.equivalents(members), problem.sigma)) for _ in range(draws)]
    )
    relative = np.sqrt(2.0 / (members - 1))
    # five standard errors of a mean of 400, and of a standard deviation of 400 (kurtosis 12 / nu allowed for)
    np.testing.assert_allclose(sampled.mean(axis=0) / exact, 1.0, atol=5 * relative / np.sqrt(draws))
    np.testing.assert_allclose(sampled.std(axis=0) / exact / relative, 1.0, atol=5 / np.sqrt(2 * draws) * 1.4)


def test_dfs_and_its_error_are_those_of_the_exact_problem() -> None:
    problem, draws, members = Gaussian(), 400, 16
    exact = float(np.trace(problem.influence))
    found = [
        degrees_of_freedom(normalised_perturbations(problem.equivalents(members), problem.sigma)) for _ in range(draws)
    ]
    dfs = np.array([trace.dfs for trace in found])
    error = np.array([trace.error for trace in found])
    theory = np.sqrt(2.0 * np.trace(problem.influence @ problem.influence) / (members - 1))
    assert abs(dfs.mean() - exact) < 5 * theory / np.sqrt(draws)
    assert abs(dfs.std() / theory - 1) < 5 / np.sqrt(2 * draws)
    assert abs(np.sqrt(np.mean(error**2)) / theory - 1) < 0.05
    covered = np.mean(np.abs(dfs - exact) < 2 * error)
    assert covered > 0.9


def test_two_members_are_enough_for_a_number_and_one_is_not() -> None:
    problem = Gaussian()
    two = degrees_of_freedom(normalised_perturbations(problem.equivalents(2), problem.sigma))
    assert two.error > two.dfs > 0  # it says that it knows next to nothing
    try:
        normalised_perturbations(problem.equivalents(1), problem.sigma)
    except ValueError as error:
        assert "two members" in str(error)
    else:
        raise AssertionError("one member has no covariance")
