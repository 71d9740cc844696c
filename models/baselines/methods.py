"""The baselines under the names of `alignda evaluate`, each with its tuned settings as defaults (docs/baselines.md)."""

from dataclasses import dataclass, replace

from models.assimilation import Assimilator
from models.baselines.latent_three_d_var import LatentThreeDVar
from models.baselines.letkf import Letkf, LetkfSettings
from models.baselines.prior_mean import PriorMeanThreeDVar
from models.baselines.three_d_var import ThreeDVar, VarianceSettings
from models.covariance.store import BalancedStatistics
from models.evaluation.method import Given, Method, States
from models.evaluation.options import Options

CYCLED_LEVEL = 0.28
EXPONENT = 0.85


@dataclass(frozen=True)
class Balanced:
    """A method whose analyses are drawn to the bundle's hydrostatic balance, as ours are (models/hydrostatic.py)."""

    method: Method
    assimilator: Assimilator

    @property
    def name(self) -> str:
        return self.method.name

    def analyse(self, given: Given) -> States:
        return self.assimilator.balanced(self.method.analyse(given), given.valid_time)


def three_d_var(assimilator: Assimilator, options: Options) -> Method:
    """`3dvar:cycled_level=0.28,factor=1.0,exponent=0.85,innovations=false,hydrostatic=false`."""
    given = options.typed(**_DEFAULTS, innovations=False, hydrostatic=False)
    statistics, settings = _tuned(assimilator, given)
    method = ThreeDVar(assimilator, statistics, replace(settings, innovations=given["innovations"]))
    return Balanced(method, assimilator) if given["hydrostatic"] else method


def three_d_var_from_prior(assimilator: Assimilator, options: Options) -> Method:
    """`3dvar-from-prior`, options as `3dvar`: started from the mean of the bundle's prior."""
    statistics, settings = _tuned(assimilator, options.typed(**_DEFAULTS))
    return PriorMeanThreeDVar(assimilator, statistics, settings)


def latent_three_d_var(assimilator: Assimilator, options: Options) -> Method:
    """`latent-3dvar:cycled_level=0.28,factor=1.0`."""
    return LatentThreeDVar(assimilator, VarianceSettings(**options.typed(cycled_level=CYCLED_LEVEL, factor=1.0)))


def letkf(assimilator: Assimilator, options: Options) -> Method:
    """`letkf:members=40,horizontal_km=...,vertical_ln_p=...,relaxation=...,to_prior=...,additive=...,stride=...,
    hydrostatic=false` and the first three of `3dvar`."""
    own = vars(LetkfSettings())
    given = options.typed(**_DEFAULTS, **own, hydrostatic=False)
    statistics, settings = _tuned(assimilator, given)
    method = Letkf(assimilator, statistics, settings, LetkfSettings(**{name: given[name] for name in own}))
    return Balanced(method, assimilator) if given["hydrostatic"] else method


_DEFAULTS = {"cycled_level": CYCLED_LEVEL, "factor": 1.0, "exponent": EXPONENT}


def _tuned(assimilator: Assimilator, given: dict[str, float]) -> tuple[BalancedStatistics, VarianceSettings]:
    statistics = assimilator.bundle.covariance
    if statistics is None:
        raise ValueError(f"the bundle {assimilator.spec.name} has no covariance; train its stage `covariance`")
    settings = VarianceSettings(cycled_level=given["cycled_level"], factor=given["factor"])
    return statistics.steepened(given["exponent"]), settings
