"""Analyses of the shipped bundle with one kind of derived observation each: what is observed comes closer to the truth."""

from datetime import UTC, datetime
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

from models.assimilation import AnalysisSettings, Assimilator
from models.bundle import SHIPPED
from models.observation_operator import ObservationSet
from models.operators.surface import ground_of

COUNT = 600
VALID = datetime(2021, 1, 15, tzinfo=UTC)
# variable: where it is, error, what must get better beside it
KINDS = {
    "ws": ("pressure", 1.5), "wdir": ("pressure", 15.0), "rh": ("pressure", 0.05),
    "h": ("pressure", 8.0), "tlayer": ("layer", 0.5), "tb": ("pressure", 0.5), "refractivity": ("height", 0.5),
    "t": ("height", 0.8), "sp": ("surface", 80.0), "msl": ("surface", 100.0), "ws10": ("surface", 1.5),
}  # fmt: skip


@cache
def assimilator() -> Assimilator:
    return Assimilator(SHIPPED, device="cpu")


def state_at(valid_time: datetime) -> np.ndarray:
    """[1, channel, latitude, longitude] of the held-out sample."""
    with xr.open_dataset(SHIPPED / "sample.nc") as sample:
        one = sample.sel(time=valid_time.replace(tzinfo=None))
        fields = [
            one[c.variable].values if c.level is None else one[c.variable].sel(level=c.level).values
            for c in assimilator().spec.channels
        ]
    return np.stack(fields)[None].astype(np.float32)


def placed(variable: str, place: str, seed: int) -> ObservationSet:
    generator, none = np.random.default_rng(seed), np.full(COUNT, np.nan)
    pressure = {"pressure": generator.uniform(25_000, 88_000, COUNT), "layer": np.full(COUNT, 85_000.0)}.get(
        place, none
    )
    height = {"height": generator.uniform(2000, 10_000, COUNT), "surface": generator.uniform(0, 400, COUNT)}
    given = ObservationSet(
        np.full(COUNT, variable), pressure,
        np.rad2deg(np.arcsin(generator.uniform(-1, 1, COUNT))), generator.uniform(-180, 180, COUNT),
        np.full(COUNT, 180.0), np.full(COUNT, KINDS[variable][1]),
        height=height.get(place, none), pressure_top=np.full(COUNT, 30_000.0) if place == "layer" else none,
    )  # fmt: skip
    return given


def valued(given: ObservationSet, value: np.ndarray) -> ObservationSet:
    columns = {**vars(given), "value": value % 360.0 if given.variable[0].startswith("wdir") else value}
    return ObservationSet(**columns)


def rms_departure(state: np.ndarray, given: ObservationSet) -> float:
    return float(np.sqrt(np.mean((given.value - assimilator().equivalents(state, given).mean(axis=0)) ** 2)))


@pytest.mark.parametrize("variable", KINDS)
def test_an_analysis_of_such_observations_alone_comes_closer_to_the_truth(variable: str) -> None:
    place, error = KINDS[variable]
    background, truth = state_at(VALID.replace(day=14)), state_at(VALID)  # a day old: persistence
    observed, unseen = (placed(variable, place, seed) for seed in (1, 2))
    noise = error * np.random.default_rng(3).standard_normal(COUNT)
    observed = valued(observed, assimilator().equivalents(truth, observed)[0] + noise)
    unseen = valued(unseen, assimilator().equivalents(truth, unseen)[0])
    result = assimilator().analyse(background, observed, VALID, 0.4, AnalysisSettings(members=1, steps=4))
    before, after = rms_departure(background, observed), rms_departure(result.members, observed)
    assert after < 0.85 * before, (variable, before, after)
    assert rms_departure(result.members, unseen) < 0.97 * rms_departure(background, unseen), variable


@pytest.mark.parametrize("guidance", ["mmps", "dps", "repaint"])
def test_every_guidance_uses_what_is_not_linear_in_the_state(guidance: str) -> None:
    background, truth = state_at(VALID.replace(day=14)), state_at(VALID)
    observed = placed("ws", "pressure", 4)
    observed = valued(observed, assimilator().equivalents(truth, observed)[0])
    settings = AnalysisSettings(guidance=guidance, members=1, steps=8)
    result = assimilator().analyse(background, observed, VALID, 0.4, settings)
    assert rms_departure(result.members, observed) < 0.95 * rms_departure(background, observed)


def test_the_models_ground_stands_still_and_is_not_the_orography_of_the_file() -> None:
    channels, known = assimilator().spec.channels, assimilator().ground
    assert known is not None
    for day in (14, 16, 18):
        ground = ground_of(torch.from_numpy(state_at(VALID.replace(day=day))), channels)
        assert ground is not None
        assert np.abs(ground - known).max() < 20.0 and np.std(ground - known) < 3.0
    with xr.open_dataset(SHIPPED / "sample.nc") as sample:
        apart = known - sample["orography"].values
    assert 120.0 < np.sqrt((apart**2).mean()) < 200.0
