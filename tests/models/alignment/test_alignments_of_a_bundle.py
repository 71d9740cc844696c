"""A low-rank change is what its factors say, and a bundle takes only alignments made for it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from torch import nn

from models.alignment_card import AlignmentCard, ScoreChange, alignment_names, weights_path, write_card
from models.assimilation import AnalysisSettings, Assimilator
from models.bundle import Bundle, BundleError, file_digest
from models.error_model import States
from models.networks.low_rank import ChangedNetwork, LowRankChange, convolutions
from tests.models.synthetic import Atmosphere
from tests.models.test_assimilation import observe

TIME = datetime(2001, 1, 20, tzinfo=UTC)
SETTINGS = AnalysisSettings(members=3, steps=4, seed=2)


def add(bundle: Path, name: str, change: LowRankChange, base: str | None = None) -> None:
    """Put an alignment beside the bundle as `alignda align` does."""
    path = weights_path(bundle, name)
    path.parent.mkdir(exist_ok=True)
    change.save(path)
    digest = base or Bundle.load(bundle).spec.files["denoiser.safetensors"]
    same = ScoreChange(before=1, after=1, change_percent=0, low_percent=0, high_percent=0)
    card = AlignmentCard(
        name=name, description="by hand", method="draft", seed=0, rank=change.rank, base_denoiser=digest,
        sha256=file_digest(path), recipe={}, scores=dict.fromkeys(("sample_mse", "mean_mse", "crps"), same),
        cost={}, environment={},
    )  # fmt: skip
    write_card(bundle, card)


def random_change(network: nn.Module, rank: int = 4, size: float = 0.1) -> LowRankChange:
    change = LowRankChange(network, rank, seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for up in change.up.values():
            up.copy_((size * torch.randn(up.shape, generator=generator)).half())
        for down in change.down.values():
            down.copy_(down.half())
    return change


def analysed(folder: Path, background: States, alignment: str | None) -> States:
    assimilator = Assimilator(folder, "cpu")
    given = observe(assimilator, Atmosphere(2).state(TIME, assimilator.description.grid)[None], 10)
    settings = replace(SETTINGS, alignment=alignment)
    return assimilator.analyse(background, given, TIME, 0.3, settings).members


@pytest.fixture
def background(assimilator: Assimilator) -> States:
    state = Atmosphere(2).state(datetime(2001, 1, 19, tzinfo=UTC), assimilator.description.grid)[None]
    return list(assimilator.forecast(state, datetime(2001, 1, 19, tzinfo=UTC), 4))[-1]


def test_merging_adds_the_product_of_the_factors_to_every_convolution_and_to_nothing_else(bundle: Path) -> None:
    base = Bundle.load(bundle).denoiser
    change = random_change(base)
    merged = change.merged(base)
    names = dict(convolutions(base))
    assert len(names) > 8
    for name, value in merged.state_dict().items():
        before = base.state_dict()[name]
        if name in names:
            key = name.replace(".", "/")
            product = torch.einsum("or,rf->of", change.up[key], change.down[key]).view_as(before)
            torch.testing.assert_close(value, before + product)
            assert not value.equal(before)
            assert torch.linalg.matrix_rank(product.flatten(1)) <= 4
        else:
            assert value.equal(before)


def test_the_network_in_training_is_the_merged_one_and_its_factors_have_gradients(bundle: Path) -> None:
    base = Bundle.load(bundle).denoiser
    change = random_change(base)
    x = torch.randn(2, 40, 4, 8)
    inputs = (x, x, x, torch.ones(2, 1, 4, 8), *(torch.full((2,), v) for v in (0.5, 0.3, 0.1)))
    out = ChangedNetwork(base, change)(*inputs)
    torch.testing.assert_close(out, change.merged(base)(*inputs))
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in change.parameters())
    assert all(p.grad is None for p in base.parameters())


@pytest.mark.parametrize("rank", [0, 4])
def test_a_change_of_nothing_leaves_the_analysis_bit_for_bit(bundle: Path, background: States, rank: int) -> None:
    add(bundle, "nothing", LowRankChange(Bundle.load(bundle).denoiser, rank))
    assert analysed(bundle, background, "nothing").tobytes() == analysed(bundle, background, None).tobytes()


def test_an_alignment_changes_the_analysis_only_of_those_who_ask_for_it(bundle: Path, background: States) -> None:
    before = analysed(bundle, background, None)
    add(bundle, "some", random_change(Bundle.load(bundle).denoiser))
    assert analysed(bundle, background, "some").tobytes() != before.tobytes()
    assert analysed(bundle, background, None).tobytes() == before.tobytes()


def test_what_was_saved_is_what_is_read(bundle: Path, tmp_path: Path) -> None:
    base = Bundle.load(bundle).denoiser
    change = random_change(base)
    change.save(tmp_path / "change.safetensors")
    read = LowRankChange.load(tmp_path / "change.safetensors", base)
    assert read.rank == 4
    for name, value in change.state_dict().items():
        assert read.state_dict()[name].equal(value)


def test_an_unknown_alignment_is_refused_with_those_that_exist(bundle: Path, background: States) -> None:
    with pytest.raises(BundleError, match="no alignment 'dpo-m': it has none"):
        analysed(bundle, background, "dpo-m")
    for name in ("draft-m", "ipo-m"):
        add(bundle, name, LowRankChange(Bundle.load(bundle).denoiser, 1))
    with pytest.raises(BundleError, match="no alignment 'dpo-m': it has draft-m, ipo-m"):
        analysed(bundle, background, "dpo-m")
    assert alignment_names(bundle) == ["draft-m", "ipo-m"]
    assert "| ipo-m | draft |" in (bundle / "alignments" / "README.md").read_text()


def alter(bundle: Path) -> None:
    path = weights_path(bundle, "some")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def break_card(bundle: Path) -> None:
    (bundle / "alignments" / "some.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (alter, "sha256 differs"),
        (break_card, "card of alignment 'some' cannot be read"),
        (lambda bundle: weights_path(bundle, "some").unlink(), "is missing from the bundle"),
    ],
    ids=["altered", "card", "missing"],
)
def test_a_damaged_alignment_is_refused(bundle: Path, spoil: Callable[[Path], None], words: str) -> None:
    add(bundle, "some", random_change(Bundle.load(bundle).denoiser))
    spoil(bundle)
    with pytest.raises(BundleError, match=words):
        Bundle.load(bundle).aligned("some")


def test_an_alignment_of_another_denoiser_is_refused(bundle: Path, tmp_path: Path) -> None:
    base = Bundle.load(bundle).denoiser
    add(bundle, "older", random_change(base), base="0" * 64)
    with pytest.raises(BundleError, match="made for another denoiser"):
        Bundle.load(bundle).aligned("older")
    LowRankChange(nn.Sequential(nn.Conv2d(2, 2, 1)), 2).save(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not change this network"):
        LowRankChange.load(tmp_path / "other.safetensors", base)
