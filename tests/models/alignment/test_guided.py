"""Direct fine-tuning of guided samples: observations of the truth, and gradients that take their correction as given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.alignment.cases import Conditioned
from models.alignment.cli import Alignment
from models.alignment.draft import DraftLoss
from models.alignment.guided import Observer
from models.alignment.recipe import AlignmentRecipe, DraftMethod, ObservedRecipe
from models.diffusion.guidance import Dps
from models.diffusion.schedule import Level
from models.networks.low_rank import ChangedNetwork, LowRankChange
from models.rewards import accuracy
from tests.models.alignment.conftest import DRAFT, changed

EXACT = ObservedRecipe(share=1.0, fractions=(0.1,), errors=(0.0,))


@pytest.fixture
def run(bundle: Path, tmp_path: Path, nature: Path) -> Alignment:
    return Alignment(AlignmentRecipe.model_validate(DRAFT), bundle, tmp_path, "cpu", nature)


def test_a_share_of_the_cases_is_observed_and_always_the_same_way(run: Alignment) -> None:
    observer = Observer(run.atmosphere, ObservedRecipe(share=0.5, fractions=(0.05, 0.1)), 3)
    drawn = [observer.observe(Conditioned(run.atmosphere, run.cases[i])) for i in range(20)]
    again = [observer.observe(Conditioned(run.atmosphere, run.cases[i])) for i in range(20)]
    sizes = [None if each is None else len(each.latent.value) for each in drawn]
    assert sizes == [None if each is None else len(each.latent.value) for each in again]
    assert 3 <= sum(size is None for size in sizes) <= 17
    states = np.prod(run.cases[0].truth.shape)
    assert {size for size in sizes if size is not None} == {round(0.05 * states), round(0.1 * states)}


@pytest.mark.parametrize("dps_share", [0.0, 1.0])
def test_exact_values_of_the_truth_bring_the_guided_centre_nearer_to_it(run: Alignment, dps_share: float) -> None:
    """DPS, which counts them as independent, makes too much of many: few values for it, more steps, and only their own misfit."""
    fractions, steps = ((0.002,), 16) if dps_share else ((0.1,), 4)
    given = EXACT.model_copy(update={"dps_share": dps_share, "fractions": fractions})
    observer = Observer(run.atmosphere, given, 3)
    for number in range(3):
        case = run.cases[number]
        conditioned = Conditioned(run.atmosphere, case)
        observed = observer.observe(conditioned)
        assert observed is not None
        # the innovations are those of the truth
        truth = run.bundle.climate.denormalise(case.truth, case.valid_time)
        torch.testing.assert_close(observed.latent.operator(truth)[0], observed.latent.value, rtol=1e-4, atol=1e-3)
        with torch.no_grad():
            free = conditioned.centre(conditioned.denoiser(run.base), steps)
            denoise, probe = conditioned.denoiser(run.base), conditioned.denoiser(run.base)
            guided = conditioned.centre(observed.centre(denoise, probe), steps)
            misfits = [float(observed.latent.residual(w).square().mean()) for w in (free, guided)]
            errors = [-float(accuracy(conditioned.state(w), case.truth, run.atmosphere.area,
                                      torch.ones(case.truth.shape[1])).mean()) for w in (free, guided)]  # fmt: skip
        assert misfits[1] < 0.9 * misfits[0], misfits
        assert dps_share or errors[1] < 0.9 * errors[0], errors


@pytest.mark.parametrize("dps_share", [0.0, 1.0])
def test_what_observations_add_carries_no_gradient(run: Alignment, dps_share: float) -> None:
    observer = Observer(run.atmosphere, EXACT.model_copy(update={"dps_share": dps_share}), 3)
    conditioned = Conditioned(run.atmosphere, run.cases[0])
    observed = observer.observe(conditioned)
    assert observed is not None
    change = LowRankChange(run.base, 2)
    x, level = torch.full_like(conditioned.z_b, 0.1), Level(0.6)

    def gradient(guided: bool) -> tuple[torch.Tensor, torch.Tensor]:
        own, probe = (conditioned.denoiser(ChangedNetwork(run.base, change)) for _ in range(2))
        denoise = observed.members(own, probe) if guided else own
        estimate = denoise(x, level)
        (found,) = torch.autograd.grad(estimate.sum(), change.up["network/leave/2/weight"])
        return estimate.detach(), found

    (free, of_free), (guided, of_guided) = gradient(False), gradient(True)
    torch.testing.assert_close(of_guided, of_free)
    assert not torch.allclose(guided, free, atol=1e-3)


def test_dps_guides_in_training_as_it_does_in_an_analysis(run: Alignment) -> None:
    observed = Observer(run.atmosphere, EXACT.model_copy(update={"dps_share": 1.0}), 3).observe(
        conditioned := Conditioned(run.atmosphere, run.cases[0])
    )
    assert observed is not None and observed.by_dps
    x, level = torch.full_like(conditioned.z_b, 0.1), Level(0.6)
    trained = observed.members(conditioned.denoiser(run.base), conditioned.denoiser(run.base))(x, level)
    analysed = Dps(conditioned.denoiser(run.base), observed.latent, observed.latent.spread())(x, level)
    torch.testing.assert_close(trained.detach(), analysed)


def test_guided_cases_are_drawn_as_an_analysis_draws_them_and_train_the_change(run: Alignment) -> None:
    """With a spread of weights on all rewards; members are recentred, so the loss of `accuracy` sees the centre."""
    whole = changed(DRAFT, rewards={"accuracy": 1.0, "centre": 1.0}, observed=EXACT.model_dump(), steps=1, batch=1)
    method = AlignmentRecipe.model_validate(whole).method
    assert isinstance(method, DraftMethod)
    change = LowRankChange(run.base, 2)
    loss = DraftLoss(run.atmosphere, run.base, change, run.cases, method)(0)
    loss.backward()
    assert change.up["network/leave/2/weight"].grad is not None
    assert float(change.up["network/leave/2/weight"].grad.abs().sum()) > 0
    free = AlignmentRecipe.model_validate(changed(whole, observed={"share": 0.0})).method
    assert isinstance(free, DraftMethod)
    assert loss < DraftLoss(run.atmosphere, run.base, change, run.cases, free)(0)  # observations help


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_unit_makes_the_error_of_a_background_one(run: Alignment, share: float) -> None:
    method = AlignmentRecipe.model_validate(changed(DRAFT, rewards={"accuracy": 1.0, "by_variance": share})).method
    assert isinstance(method, DraftMethod)
    unit = DraftLoss(run.atmosphere, run.base, LowRankChange(run.base, 2), run.cases, method)._unit(0.3)
    error = run.bundle.statistics.channel_errors(0.3)
    assert float((error / unit).square().mean()) == pytest.approx(1.0, rel=1e-5)
    if share == 1.0:
        total = run.bundle.climate.total_std / run.bundle.climate.std
        torch.testing.assert_close(unit / total, (unit / total)[:1].expand_as(unit))
    with pytest.raises(ValidationError):
        ObservedRecipe(share=1.5)
