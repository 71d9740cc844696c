"""The spread-skill ratio of an evaluation, on Gaussian ensembles whose reliability is known."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from models.evaluation.intervals import Resampling
from models.evaluation.scoring import CaseScores, Errors
from models.evaluation.summary import spread_skill

MEMBERS, POINTS = 6, 4000


def cases(spread: float, count: int = 12) -> list[CaseScores]:
    """Members and truth drawn alike, but for members `spread` times as wide; two channels, errors three times larger in
    the second."""
    generator = np.random.default_rng(3)
    scale = np.array([1.0, 3.0])[:, None]
    found = []
    for number in range(count):
        truth = scale * generator.normal(size=(2, POINTS))
        members = spread * scale * generator.normal(size=(MEMBERS, 2, POINTS))
        mse = ((members.mean(axis=0) - truth) ** 2).mean(axis=1)
        found.append(
            CaseScores.model_construct(
                valid_time=datetime(2021, 1, 1) + timedelta(days=number),
                members=MEMBERS,
                analysis_mean=Errors(mse=mse.tolist(), mae=[0.0, 0.0]),
                variance=members.var(axis=0, ddof=1).mean(axis=1).tolist(),
            )
        )
    return found


@pytest.mark.parametrize("channels", [[0], [1], [0, 1]])
def test_of_members_drawn_like_the_truth_it_is_one_and_its_interval_holds_it(channels: list[int]) -> None:
    ratio = spread_skill(cases(1.0), channels, Resampling(12, 1))
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    assert ratio.estimate == pytest.approx(1.0, abs=0.01)
    assert ratio.low < ratio.estimate < ratio.high < ratio.low + 0.05


def test_of_members_half_as_wide_it_is_what_the_variances_say() -> None:
    ratio = spread_skill(cases(0.5), [0, 1], Resampling(12, 1))
    assert ratio is not None
    expected = np.sqrt((MEMBERS + 1) / MEMBERS * 0.25 / (1 + 0.25 / MEMBERS))
    assert ratio.estimate == pytest.approx(expected, abs=0.01)


def test_it_is_not_given_without_an_ensemble_or_of_mixed_sizes() -> None:
    series = cases(1.0, 3)
    single = [case.model_copy(update={"members": 1}) for case in series]
    assert spread_skill(single, [0], Resampling(3, 1)) is None
    assert spread_skill([*series[:2], single[2]], [0], Resampling(3, 1)) is None
