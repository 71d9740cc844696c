"""The baselines under the names of `alignda evaluate`, each with its tuned settings as defaults (docs/baselines.md)."""

from dataclasses import replace

from models.assimilation import Assimilator
from models.baselines.latent_three_d_var import LatentThreeDVar
from models.baselines.letkf import Letkf, LetkfSettings
from models.baselines.prior_mean import PriorMeanThreeDVar
from models.baselines.three_d_var import ThreeDVar, VarianceSettings
from models.covariance.store import BalancedStatistics
from models.evaluation.method import Method
from models.evaluation.options import Options

CYCLED_LEVEL = 0.28
EXPONENT = 0.85


def three_d_var(assimilator: Assimilator, options: Options) -> Method:
    """`3dvar:cycled_level=0.28,factor=1.0,exponent=0.85,innovations=false`."""
    given = options.typed(**_DEFAULTS, innovations=False)
    statistics, settings = _tuned(assimilator, given)
    return ThreeDVar(assimilator, statistics, replace(settings, innovations=given["innovations"]))


def three_d_var_from_prior(assimilator: Assimilator, options: Options) -> Method:
    """`3dvar-from-prior`, options as `3dvar`: started from the mean of the bundle's prior."""
    statistics, settings = _tuned(assimilator, options.typed(**_DEFAULTS))
    return PriorMeanThreeDVar(assimilator, statistics, settings)


def latent_three_d_var(assimilator: Assimilator, options: Options) -> Method:
    """`latent-3dvar:cycled_level=0.28,factor=1.0`."""
    return LatentThreeDVar(assimilator, VarianceSettings(**options.typed(cycled_level=CYCLED_LEVEL, factor=1.0)))


def letkf(assimilator: Assimilator, options: Options) -> Method:
    """`letkf:members=40,horizontal_km=...,vertical_ln_p=...,relaxation=...,to_prior=...,additive=...,stride=...` and
    those of `3dvar`."""
    own = vars(LetkfSettings())
    given = options.typed(**_DEFAULTS, **own)
    statistics, settings = _tuned(assimilator, given)
    return Letkf(assimilator, statistics, settings, LetkfSettings(**{name: given[name] for name in own}))


_DEFAULTS = {"cycled_level": CYCLED_LEVEL, "factor": 1.0, "exponent": EXPONENT}


def _tuned(assimilator: Assimilator, given: dict[str, float]) -> tuple[BalancedStatistics, VarianceSettings]:
    statistics = assimilator.bundle.covariance
    if statistics is None:
        raise ValueError(f"the bundle {assimilator.spec.name} has no covariance; train its stage `covariance`")
    settings = VarianceSettings(cycled_level=given["cycled_level"], factor=given["factor"])
    return statistics.steepened(given["exponent"]), settings
