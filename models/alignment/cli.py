"""`alignda align --config RECIPE`: cycles, candidates, preferences, training and card of one alignment, each resumable."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from models.alignment.candidates import INDEX, make_candidates
from models.alignment.cases import Atmosphere, Cases, CaseSource, open_periods
from models.alignment.cycled import CycledCases, ObservedTruth
from models.alignment.draft import DraftLoss
from models.alignment.preference_training import (
    VALIDATION_PAIRS,
    VALIDATIONS_EVERY,
    PairStore,
    PreferenceLoss,
    pair_scores,
    sparse,
)
from models.alignment.preferences import PAIRS, make_pairs, write_pairs
from models.alignment.recipe import (
    AlignmentRecipe,
    CandidatesRecipe,
    CyclesRecipe,
    Period,
    PreferenceMethod,
    PreferencesRecipe,
)
from models.alignment.validation import compared, validation_scores
from models.alignment_card import AlignmentCard, read_card, weights_path, write_card
from models.assimilation import Assimilator
from models.bundle import Bundle, file_digest
from models.nature.network import ErrorTable
from models.networks.denoiser import DenoiserNetwork
from models.networks.low_rank import ChangedNetwork, LowRankChange
from models.training.loop import load_averaged, optimise

STAGES = ("cycles", "candidates", "preferences", "train", "card")
VALIDATION_SEED = 5_000_000  # apart from every recipe's


def align(
    config: Path,
    bundle_dir: Path,
    work: Path,
    stages: tuple[str, ...] = STAGES,
    device: str = "auto",
    nature: Path | None = None,
    errors: ErrorTable | None = None,
) -> None:
    """Run `stages` of the recipe at `config` on the bundle in `bundle_dir`; the alignment is written beside it.

    Nature runs are looked up in `nature` (by default `work/nature`). Everything else is kept in `work`; each stage
    continues where an interrupted run stopped and needs the stages before it. `errors`: of simulated observations, for
    recipes with backgrounds of cycles.

    Raises:
        FileNotFoundError: a nature run or an earlier stage is missing.
        models.bundle.BundleError: the bundle cannot be used.
        pydantic.ValidationError: the recipe is wrong.
        ValueError: no pair came out of the candidates, or a period is too short.
    """
    Alignment(AlignmentRecipe.load(config), bundle_dir, work, device, nature or work / "nature", errors).run(stages)


class Alignment:
    """One recipe on one bundle, with its work folder `work/<name>-<digest of recipe and denoiser>`."""

    def __init__(
        self,
        recipe: AlignmentRecipe,
        bundle_dir: Path,
        work: Path,
        device: str,
        nature: Path,
        errors: ErrorTable | None = None,
    ) -> None:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.recipe, self.bundle_dir, self.work, self.nature, self.device = recipe, bundle_dir, work, nature, chosen
        self.errors = errors
        self.bundle = Bundle.load(bundle_dir, chosen)
        self.base: DenoiserNetwork = self.bundle.denoiser
        self.atmosphere = Atmosphere(self.bundle, chosen)
        self.denoiser_digest = self.bundle.spec.files["denoiser.safetensors"]
        whole = recipe.model_dump(mode="json", exclude={"name", "description", "validation"})
        if recipe.start is not None:
            whole["start"] = read_card(bundle_dir, recipe.start).sha256  # the file may change under its name
        self.folder = work / f"{recipe.name}-{self._digest(whole)}"

    def _digest(self, content: object) -> str:
        text = json.dumps([content, self.denoiser_digest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def rounds(self) -> int:
        method = self.recipe.method
        return method.rounds if isinstance(method, PreferenceMethod) else 1

    @cached_property
    def cases(self) -> CaseSource:
        """What is trained on."""
        runs = [each.runs for each in self.recipe.cases.cycles]
        return self._cases(self.recipe.data.backgrounds, self.recipe.seed, runs)

    @property
    def validation_cases(self) -> CaseSource:
        """What the card is made from."""
        runs = [each.validation_runs for each in self.recipe.cases.cycles]
        return self._cases((self.recipe.data.validation,), VALIDATION_SEED, runs)

    def _cases(self, periods: Sequence[Period], seed: int, counts: Sequence[int]) -> CaseSource:
        """`counts`: of cycled runs, for each round."""
        recipe = self.recipe.cases
        runs = open_periods(periods, self.bundle, self.nature, self.work)
        if not recipe.cycles:
            return Cases(self.atmosphere, runs, recipe, seed)
        if self.errors is None:
            raise ValueError("backgrounds of cycles need the error table of simulated observations")
        system = Assimilator(self.bundle, self.device.type)
        observed = [ObservedTruth(system, *each, self.nature, self.errors) for each in zip(periods, runs, strict=True)]
        folders = [self._cycles_folder(each, periods, recipe.forecast_hours, seed) for each in recipe.cycles]
        return CycledCases(self.atmosphere, observed, folders, counts, recipe, seed)

    def _cycles_folder(self, recipe: CyclesRecipe, periods: Sequence[Period], forecast_hours: int, seed: int) -> Path:
        """Shared by recipes with the same runs."""
        cycled = recipe.model_dump(mode="json", exclude={"runs", "validation_runs"})
        if recipe.alignment is not None:
            cycled["alignment"] = read_card(self.bundle_dir, recipe.alignment).sha256
        parts = [cycled, [period.model_dump(mode="json") for period in periods], forecast_hours, seed]
        return self.work / f"cycled-{self._digest(parts)}"

    def run(self, stages: tuple[str, ...]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if "cycles" in stages:
            for cases in (self.cases, self.validation_cases):
                if isinstance(cases, CycledCases):
                    cases.collect()
        for number in range(self.rounds):
            if isinstance(self.recipe.method, PreferenceMethod):
                candidates, preferences = self.recipe.candidates, self.recipe.preferences
                assert candidates is not None and preferences is not None  # the recipe's own check
                if "candidates" in stages:
                    self._candidates(candidates, number)
                if "preferences" in stages:
                    self._preferences(preferences, number)
            if "train" in stages:
                self._train(number)
        if "card" in stages:
            self._card()

    def candidates_folder(self, number: int) -> Path:
        """Round 0 samples the base and is shared by recipes with the same backgrounds; later rounds are the recipe's."""
        recipe = self.recipe
        if number:
            return self.folder / f"candidates-{number}"
        assert recipe.candidates is not None
        parts = [part.model_dump(mode="json") for part in (recipe.data, recipe.cases, recipe.candidates)]
        return self.work / f"candidates-{self._digest([*parts, recipe.seed])}"

    def _candidates(self, recipe: CandidatesRecipe, number: int) -> None:
        cases = self.cases
        assert isinstance(cases, Cases)  # the recipe's own check
        if number:
            cases = Cases(self.atmosphere, cases.runs, self.recipe.cases, self.recipe.seed + number)
        make_candidates(self.atmosphere, cases, self._network(number), recipe, self.candidates_folder(number))

    def _preferences(self, recipe: PreferencesRecipe, number: int) -> None:
        path = self.candidates_folder(number) / INDEX
        if not path.exists():
            raise FileNotFoundError(f"{path}: run this stage first (`alignda align --stage candidates`)")
        index = pd.read_parquet(path)
        pairs = make_pairs(index, recipe, self.recipe.seed)
        print("preferences", json.dumps(write_pairs(self.folder / f"preferences-{number}", pairs, index)), flush=True)

    def _network(self, number: int) -> ChangedNetwork | DenoiserNetwork:
        """The model whose samples round `number` ranks: the base, then what the round before left."""
        return ChangedNetwork(self.base, self._trained(number - 1)) if number else self.base

    def _trained(self, number: int) -> LowRankChange:
        change = LowRankChange(self.base, self.recipe.rank, self.recipe.seed)
        checkpoint = self.folder / f"round-{number}.pt"
        if not checkpoint.exists():
            raise FileNotFoundError(f"{checkpoint}: run this stage first (`alignda align --stage train`)")
        load_averaged(change, checkpoint)
        return change.to(self.device)

    def _first(self) -> LowRankChange:
        """What training starts from: no change, or the alignment that the recipe names. ValueError: another rank."""
        recipe = self.recipe
        if recipe.start is None:
            return LowRankChange(self.base, recipe.rank, recipe.seed)
        self.bundle.aligned(recipe.start)  # checks the file against its card
        change = LowRankChange.load(weights_path(self.bundle_dir, recipe.start), self.base)
        if change.rank != recipe.rank:
            raise ValueError(f"{recipe.name} has rank {recipe.rank}, {recipe.start} that it starts from {change.rank}")
        return change

    def _train(self, number: int) -> None:
        method, seed = self.recipe.method, self.recipe.seed
        change = self._trained(number - 1) if number else self._first()
        change.to(self.device)
        name = f"round-{number}"
        if not isinstance(method, PreferenceMethod):
            loss = DraftLoss(self.atmosphere, self.base, change, self.cases, method)
            optimise(name, change, method, self.folder, loss, lambda module: {}, self.device)
            return
        path = self.folder / f"preferences-{number}" / PAIRS
        if not path.exists():
            raise FileNotFoundError(f"{path}: run this stage first (`alignda align --stage preferences`)")
        pairs = pd.read_parquet(path)
        kept_back = pairs[pairs["validation"]].head(VALIDATION_PAIRS)
        training, held = (
            PairStore(self.atmosphere, self.candidates_folder(number), part)
            for part in (pairs[~pairs["validation"]], kept_back)
        )

        def validate(module: torch.nn.Module) -> dict[str, float]:
            assert isinstance(module, LowRankChange)
            return pair_scores(self.base, ChangedNetwork(self.base, module), held) if len(held) else {}

        preference = PreferenceLoss(self.base, change, training, method, seed + number)
        optimise(name, change, method, self.folder, preference, sparse(validate, VALIDATIONS_EVERY), self.device)

    def _card(self) -> None:
        recipe, began = self.recipe, time.monotonic()
        trained = self._trained(self.rounds - 1)
        path = weights_path(self.bundle_dir, recipe.name)
        path.parent.mkdir(exist_ok=True)
        trained.save(path.with_suffix(".new"))
        change = LowRankChange.load(path.with_suffix(".new"), self.base)  # as it will be read, float16 and all
        cases = self.validation_cases
        before, after = (
            validation_scores(self.atmosphere, cases, network, recipe.validation)
            for network in (self.base, change.merged(self.base))
        )
        seconds = 0.0
        for number in range(self.rounds):
            checkpoint = self.folder / f"round-{number}.pt"
            seconds += torch.load(checkpoint, map_location="cpu", weights_only=True)["seconds"]
        os.replace(path.with_suffix(".new"), path)
        card = AlignmentCard(
            name=recipe.name,
            description=recipe.description,
            method=recipe.method.kind,
            seed=recipe.seed,
            rank=recipe.rank,
            base_denoiser=self.denoiser_digest,
            sha256=file_digest(path),
            recipe=recipe.model_dump(mode="json"),
            scores=compared(before, after, recipe.validation.members),
            cost={
                "training_seconds": round(seconds),
                "training_steps": recipe.method.steps * self.rounds,
                "validation_seconds": round(time.monotonic() - began),
                "bytes": path.stat().st_size,
            },
            environment={"torch": torch.__version__, "machine": platform.machine(), "device": self.device.type},
        )
        write_card(self.bundle_dir, card)
        for key, score in card.scores.items():
            print(
                f"{key:18s} {score.before:.5g} -> {score.after:.5g}  {score.change_percent:+.2f} %"
                f" [{score.low_percent:+.2f}, {score.high_percent:+.2f}]",
                flush=True,
            )
