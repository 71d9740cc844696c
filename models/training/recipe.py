"""A training recipe (YAML): data, architecture, and what each stage may spend."""

from pathlib import Path

import yaml
from pydantic import Field

from models.specification import Frozen, NetworksSpec


class DataRecipe(Frozen):
    """Nature runs by role. The held-out file's states are never read by training; `held_out_from` guards it."""

    train: tuple[str, ...]
    validation: str
    held_out_from: str = Field(description="first valid time (ISO) of the validation file that no stage may read")
    step_hours: int = 6


class StageRecipe(Frozen):
    """Optimiser settings of one stage: AdamW, cosine decay after a linear warm-up."""

    steps: int
    batch: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    average_decay: float = 0.995


class AutoencoderStage(StageRecipe):
    kl_weight: float = 1e-4


class ForecastStage(StageRecipe):
    """The last `rollout_share` of the steps is trained through `rollout` steps of the model's own output."""

    rollout: int = 2
    rollout_share: float = 0.35


class StabiliseStage(StageRecipe):
    """The forecast model goes on through `rollout` steps of its own output, so that long roll-outs keep their size."""

    rollout: int


class BackgroundsStage(Frozen):
    """Error statistics of forecasts from the truth: `starts` start times, at each lead time of the level table."""

    starts: int = 400
    lead_hours: tuple[int, ...] = (6, 12, 24, 48, 96)
    batch: int = 16


class CovarianceStage(Frozen):
    """The balanced covariance: `starts` forecasts of `lead_hours`, spherical harmonics up to `truncation`."""

    lead_hours: int = 48
    starts: int = 800
    truncation: int = 42


class PriorStage(StageRecipe):
    """`pool` trajectories of the forecast model supply backgrounds of every age; `cold_share` has none,
    and `cycled_share` comes from the system's own cycles."""

    pool: int = 192
    cold_share: float = 0.1
    cycled_share: float = 0.0


class CyclesStage(Frozen):
    """`runs` stretches of the training years, each cycled for `length` analyses of the simulated network from a 48 h
    forecast on; the first `spin_up` are not kept. `share` of the network's correction is used, in `steps` steps."""

    runs: int
    validation_runs: int = 2
    length: int = 24
    spin_up: int = 2
    share: float = 1.0
    steps: int = 6


class Round(Frozen):
    """Collect backgrounds by cycling with the bundle so far, and continue its prior on them."""

    cycles: CyclesStage
    prior: PriorStage


class HydrostaticStage(Frozen):
    """The balance of the finished bundle's analyses: every `every`-th state of the run `nature`, and the errors of the
    bundle's cycles of `days` days from `starts` times of it, without the first `spin_up_days`."""

    nature: str
    every: int = 2
    starts: int = 2
    days: float = 7
    spin_up_days: float = 4
    seed: int = 0


class Recipe(Frozen):
    """Everything that `alignda train --config FILE` needs, seed included."""

    name: str
    description: str
    seed: int
    data: DataRecipe
    networks: NetworksSpec
    autoencoder: AutoencoderStage
    forecast: ForecastStage
    stabilise: tuple[StabiliseStage, ...] = Field(min_length=1)
    backgrounds: BackgroundsStage
    covariance: CovarianceStage | None = None
    prior: PriorStage
    rounds: tuple[Round, ...] = ()
    hydrostatic: HydrostaticStage | None = None

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read and check a recipe; raises pydantic.ValidationError with the place of each mistake."""
        return cls.model_validate(yaml.safe_load(path.read_text()))
