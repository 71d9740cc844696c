"""An alignment recipe (YAML): backgrounds, rewards, method, and what each stage may spend."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from models.specification import Frozen
from models.training.recipe import StageRecipe

Reward = Literal["assimilation", "forecast", "geostrophic", "hydrostatic"]


def as_time(stamp: str) -> datetime:
    """An ISO time, UTC."""
    return datetime.fromisoformat(stamp).replace(tzinfo=UTC)


class Period(Frozen):
    """The states of a nature run from `since` up to, not including, `before` (ISO, UTC)."""

    file: str
    since: str = "0001-01-01"
    before: str = "9999-12-31"


class DataRecipe(Frozen):
    """`backgrounds`: states that the prior was not trained on. `held_out` is never read: no period may touch it."""

    backgrounds: tuple[Period, ...]
    validation: Period
    held_out: Period

    @model_validator(mode="after")
    def keeps_out(self) -> Self:
        """A period that overlaps the held-out one is a mistake."""
        for period in (*self.backgrounds, self.validation):
            if period.file == self.held_out.file and (
                as_time(period.before) > as_time(self.held_out.since)
                and as_time(period.since) < as_time(self.held_out.before)
            ):
                raise ValueError(f"{period.file} from {period.since} to {period.before} reaches into the held-out time")
        return self


class CyclesRecipe(Frozen):
    """Runs of the system's own cycles on the simulated network, whose backgrounds are cases (direct fine-tuning only).

    `runs` of `days` days from times drawn at random, each with a network of its own; the first `spin_up_days` are not
    kept. With 0 also the first background is, a single forecast with all of the network's correction. `alignment`: of the
    analyses that are cycled, for a further round. The card is made from `validation_runs`.
    """

    runs: int = Field(ge=1)
    days: float = Field(gt=0)
    spin_up_days: float = Field(default=3.0, ge=0)
    members: int = Field(default=16, ge=8)
    alignment: str | None = None
    validation_runs: int = Field(default=1, ge=0)


class CasesRecipe(Frozen):
    """How backgrounds are made: forecasts of these ages (drawn evenly; list one twice to have more of it).

    A share starts from the truth plus an analysis-like error. `forecast_hours`: lead of the forecast reward. With
    `cycles`, one entry for each round, they are those of the system's own cycles instead.
    """

    cycles: tuple[CyclesRecipe, ...] = ()
    lead_hours: tuple[int, ...] = (48, 48, 24, 72)
    perturbed_share: float = 0.25
    forecast_hours: int = 48


class CandidatesRecipe(Frozen):
    """`members` unguided samples (`steps` of the sampler) for each of `backgrounds` backgrounds."""

    backgrounds: int = 192
    members: int = 32
    steps: int = 16


class PreferencesRecipe(Frozen):
    """Winners are the top `share` of a background's candidates, losers the bottom `share`.

    `rule` for several rewards: `all`: in the top (bottom) share of every one. `worst_rank`: the top share by the
    worst of its ranks, if that is in the better half (the bottom by the best rank, in the worse half).
    """

    rewards: tuple[Reward, ...]
    share: float = Field(default=0.1, gt=0, le=0.5)
    rule: Literal["all", "worst_rank"] = "worst_rank"
    pairs_per_background: int = 8
    validation_share: float = Field(default=0.15, gt=0, lt=1)
    """Of the backgrounds: their pairs are not trained on; the pair accuracy is theirs."""


class PreferenceMethod(StageRecipe):
    """Diffusion-DPO, IPO or DSPO. `beta` is per SUMMED squared error of epsilon (models.alignment.losses)."""

    kind: Literal["dpo", "ipo", "dspo"]
    beta: float
    gamma: float = Field(default=0.5, ge=0, lt=1)
    """DSPO only: share of the reward's score in the target."""
    guard: bool = True
    """Scale the loser's gradient so that no step raises the winner's error to first order."""
    guard_margin: float = Field(default=0.0, ge=0, lt=1)
    supervised: float = Field(default=0.0, ge=0)
    """Weight of the winner's own summed error beside the loss (dpo, ipo): holds it where the margin alone would not."""
    rounds: int = Field(default=1, ge=1)
    """More than one: online. Each later round draws its candidates from the model that the last one left."""


class RewardWeights(Frozen):
    """Weights of the rewards of direct fine-tuning; the units are in models.alignment.draft.

    `by_variance`: share of the errors that is weighed by the channel's total variance, as the mean over channels of the
    evaluations is; the rest by the background's error, so that every channel counts alike.
    """

    accuracy: float = 0.0
    centre: float = 0.0
    forecast: float = 0.0
    geostrophic: float = 0.0
    hydrostatic: float = 0.0
    crps: float = 0.0
    energy: float = 0.0
    by_variance: float = Field(default=0.0, ge=0, le=1)


class ObservedRecipe(Frozen):
    """Random values of the truth's grid that guide a `share` of the backgrounds' samples: a share of all values and
    their 1-sigma error in units of the total standard deviation, each drawn evenly from the values given."""

    share: float = Field(default=0.0, ge=0, le=1)
    fractions: tuple[float, ...] = (0.01, 0.01, 0.03, 0.1)
    errors: tuple[float, ...] = (0.0, 0.02, 0.05)
    dps_share: float = Field(default=0.0, ge=0, le=1)
    """Of the observed ones: guided by DPS; the others by moment matching."""


class DraftMethod(StageRecipe):
    """Direct reward fine-tuning through the last `gradient_steps` evaluations of a sampler of `sampler_steps`.

    `batch` backgrounds a step, `members` samples of each. `anchor` weighs |F - F_base|^2 at those evaluations.
    """

    kind: Literal["draft"]
    members: int = Field(default=4, ge=2)
    sampler_steps: int = 6
    gradient_steps: int = Field(default=2, ge=1)
    rewards: RewardWeights
    observed: ObservedRecipe = ObservedRecipe()
    anchor: float = 0.0
    forecast_every: int = 1
    """The forecast reward is dear: count it in every n-th step only (with n times its weight)."""


class ValidationRecipe(Frozen):
    """`backgrounds` of the validation period with `members` samples each, for the scores of the card; `analysis_steps`
    of the sampler in the analysis of a cycled background, as the product has."""

    backgrounds: int = 48
    members: int = 16
    steps: int = 16
    analysis_steps: int = 8
    forecast_members: int = 4


class AlignmentRecipe(Frozen):
    """Everything that `alignda align --config FILE` needs, seed included."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    description: str
    seed: int
    rank: int = Field(default=8, ge=0)
    start: str | None = None
    """An alignment of the bundle, of the same rank, that training goes on from."""
    data: DataRecipe
    cases: CasesRecipe = CasesRecipe()
    candidates: CandidatesRecipe | None = None
    preferences: PreferencesRecipe | None = None
    method: Annotated[PreferenceMethod | DraftMethod, Field(discriminator="kind")]
    validation: ValidationRecipe = ValidationRecipe()

    @model_validator(mode="after")
    def complete(self) -> Self:
        """Preference losses need candidates and preferences; direct fine-tuning has none."""
        given = (self.candidates is not None, self.preferences is not None)
        wanted = self.method.kind != "draft"
        if given != (wanted, wanted):
            raise ValueError(
                f"method {self.method.kind} {'needs' if wanted else 'takes no'} candidates and preferences"
            )
        return self

    @model_validator(mode="after")
    def cycles_have_a_centre_only(self) -> Self:
        """In cycles the members live on by the Gaussian gain: the network makes the centre, and nothing else is aligned."""
        if not self.cases.cycles:
            return self
        if self.method.kind != "draft":
            raise ValueError(f"backgrounds of cycles are for direct fine-tuning, not for {self.method.kind}")
        if not any(each.validation_runs for each in self.cases.cycles):
            raise ValueError("the card needs a validation run: validation_runs of one round at least")
        rewards = self.method.rewards
        if rewards.crps or rewards.energy or rewards.accuracy:
            raise ValueError(
                "with backgrounds of cycles the analysis is one state: reward it by centre, forecast, geostrophic"
                " and hydrostatic, not by accuracy, crps or energy, which are of members"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> "AlignmentRecipe":
        """Read and check a recipe; raises pydantic.ValidationError with the place of each mistake."""
        return cls.model_validate(yaml.safe_load(path.read_text()))
