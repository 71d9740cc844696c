"""How much each observation influences its own analysis, from the members of the analysis at the observations.

Self-sensitivity S_ii = d(H x_a)_i / d y_i = (H A H^T)_ii / R_ii (Cardinali, Pezzulli and Andersson 2004, QJRMS 130,
2767-2786, eq. 3.6; by an ensemble: Liu, Kalnay, Miyoshi and Cardinali 2009, QJRMS 135, 1842-1851, eq. 12), R diagonal.
Its sum is the degrees of freedom for signal (DFS). Members must sample the posterior covariance A.
"""

from dataclasses import dataclass

import numpy as np

from worker.stages.observed import Doubles


@dataclass(frozen=True)
class SampledTrace:
    """Degrees of freedom for signal, and the standard error that it has for being taken from few members."""

    dfs: float
    error: float


def normalised_perturbations(equivalents: Doubles, error: Doubles) -> Doubles:
    """(H x_k - mean H x) / (sigma_o sqrt(m - 1)): [member, n], of `equivalents` [member, n] and 1-sigma `error` [n].

    Raises ValueError for fewer than two members, which have no covariance.
    """
    members = len(equivalents)
    if members < 2:
        raise ValueError("influence needs two members or more")
    full = np.asarray(equivalents, np.float64)
    return np.asarray((full - full.mean(axis=0)) / (error * np.sqrt(members - 1)))


def self_sensitivity(perturbations: Doubles) -> Doubles:
    """S_ii of each observation [n]; unbiased, with a relative standard error of sqrt(2 / (m - 1)) (Gaussian members).

    True influences lie in [0, 1]; sampled ones can exceed 1 by that error.
    """
    return np.asarray(np.square(perturbations).sum(axis=0))


def degrees_of_freedom(perturbations: Doubles) -> SampledTrace:
    """Of the observations whose `perturbations` [member, n] are given.

    With nu = m - 1 and W the sampled S: var(tr W) = 2 tr(S^2) / nu, and by the moments of a Wishart matrix
    E[tr W^2 - (tr W)^2 / nu] = tr(S^2) (1 + 1/nu - 2/nu^2), so tr(S^2) is estimated without bias.
    """
    nu = len(perturbations) - 1
    gram = perturbations @ perturbations.T  # the same trace and trace of the square as the n x n matrix
    trace, square = float(np.trace(gram)), float(np.square(gram).sum())
    if nu < 2:  # a single perturbation cannot tell tr(S^2) from (tr S)^2
        return SampledTrace(trace, float(np.sqrt(2.0 * square / nu)))
    squared = max(square - trace**2 / nu, 0.0) / (1 + 1 / nu - 2 / nu**2)
    return SampledTrace(trace, float(np.sqrt(2.0 * squared / nu)))
