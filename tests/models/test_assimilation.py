"""The analysis and the forecast on a tiny trained bundle: what any bundle must do, however good its weights are."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from models.assimilation import GUIDANCE, WIDEST, WIND, AnalysisSettings, Assimilator
from models.bundle import BundleError
from models.error_model import FEW_REPORTS, INFLATION_BOUNDS, States
from models.observation_operator import ObservationSet
from models.scores import rmse
from tests.models.conftest import Trained
from tests.models.synthetic import CHANNELS, Atmosphere

TIME = datetime(2001, 1, 20, tzinfo=UTC)
ATMOSPHERE = Atmosphere(2)
FEW = AnalysisSettings(members=4, steps=6, seed=1)
ERRORS = {"z": 50.0, "t": 0.5, "u": 1.0, "v": 1.0, "sp": 50.0}


@pytest.fixture(scope="module")
def truth(assimilator: Assimilator) -> States:
    """[1, channel, latitude, longitude], SI."""
    return ATMOSPHERE.state(TIME, assimilator.description.grid)[None]


@pytest.fixture(scope="module")
def background(assimilator: Assimilator) -> States:
    """A forecast of 24 h from the truth: [1, channel, latitude, longitude], SI."""
    start = TIME - timedelta(days=1)
    state = ATMOSPHERE.state(start, assimilator.description.grid)[None]
    return list(assimilator.forecast(state, start, 4))[-1]


def noise(assimilator: Assimilator, members: int, shape: tuple[int, ...]) -> States:
    """Perturbations of unit size that the truncation leaves as they are: [member, channel, latitude, longitude]."""
    white = np.random.default_rng(1).standard_normal((members, *shape)).astype(np.float32)
    cut = assimilator.bundle.forecast.cut(torch.from_numpy(white)).detach().numpy()
    return np.asarray(cut / cut.std(), np.float32)


def places(count: int, seed: int = 0, variables: str = "ztuv") -> ObservationSet:
    """`count` observations without values anywhere between 900 and 250 hPa."""
    generator = np.random.default_rng(seed)
    variable = np.array([variables[i % len(variables)] for i in range(count)])
    return ObservationSet(
        variable=variable,
        pressure=generator.uniform(25_000, 90_000, count),
        latitude=np.rad2deg(np.arcsin(generator.uniform(-1, 1, count))),
        longitude=generator.uniform(-180, 180, count),
        value=np.zeros(count),
        error=np.array([ERRORS[v] for v in variable]),
    )


def observe(assimilator: Assimilator, state: States, count: int, seed: int = 0) -> ObservationSet:
    given = places(count, seed)
    noise = np.random.default_rng(seed + 100).standard_normal(count)
    return replace(given, value=assimilator.equivalents(state, given)[0] + given.error * noise)


def misfit(assimilator: Assimilator, state: States, given: ObservationSet) -> float:
    """RMS departure of the members' mean in units of the observation error."""
    equivalent = assimilator.equivalents(state.mean(axis=0, keepdims=True), given)[0]
    return float(np.sqrt((((given.value - equivalent) / given.error) ** 2).mean()))


@pytest.mark.parametrize("guidance", ["dps", "repaint", "mmps"])
def test_observations_pull_the_analysis_towards_them(
    assimilator: Assimilator, truth: States, background: States, guidance: str
) -> None:
    given = observe(assimilator, truth, 24)
    settings = replace(FEW, guidance=guidance)
    analysis = assimilator.analyse(background, given, TIME, assimilator.error_level(24.0), settings).members
    before, after = misfit(assimilator, background, given), misfit(assimilator, analysis, given)
    assert after < 0.9 * before, (before, after)


def test_many_observations_bring_the_analysis_nearer_to_the_truth(
    assimilator: Assimilator, truth: States, background: States
) -> None:
    given = observe(assimilator, truth, 400)
    analysis = assimilator.analyse(background, given, TIME, assimilator.error_level(24.0), FEW).members
    std = assimilator.climatology(TIME)[1]
    latitudes = np.array(assimilator.description.grid.latitudes)
    errors = [rmse(x.mean(axis=0) / std, truth[0] / std, latitudes).mean() for x in (background, analysis)]
    assert errors[1] < 0.8 * errors[0], errors


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_the_same_seed_gives_the_same_bits_and_another_other_members(
    assimilator: Assimilator, truth: States, background: States, guidance: str
) -> None:
    given, level = observe(assimilator, truth, 12), assimilator.error_level(24.0)
    settings = AnalysisSettings(guidance=guidance, members=3, steps=3, seed=5)
    one, two = (assimilator.analyse(background, given, TIME, level, settings).members for _ in range(2))
    assert one.tobytes() == two.tobytes()
    other = assimilator.analyse(background, given, TIME, level, replace(settings, seed=6)).members
    assert not np.array_equal(one, other)
    # members are recentred on the zero-noise analysis, which no seed changes
    std = assimilator.climatology(TIME)[1]
    moved = np.abs((one - other).mean(axis=0) / std)[3:].max()
    assert moved < 0.2 * np.abs((one - other) / std)[:, 3:].max()


@pytest.mark.parametrize("sampler", ["dpm", "heun", "ancestral"])
def test_every_sampler_gives_finite_members_that_fit_the_observations(
    assimilator: Assimilator, truth: States, background: States, sampler: str
) -> None:
    given = observe(assimilator, truth, 100)
    settings = AnalysisSettings(members=4, steps=8, sampler=sampler)  # type: ignore[arg-type]
    analysis = assimilator.analyse(background, given, TIME, assimilator.error_level(24.0), settings).members
    assert analysis.shape == (4, *background.shape[1:]) and analysis.dtype == np.float32
    assert misfit(assimilator, analysis, given) < 0.8 * misfit(assimilator, background, given)


@pytest.mark.parametrize("guidance", ["dps", "repaint", "mmps"])
def test_without_observations_any_guidance_gives_the_unguided_prior(
    assimilator: Assimilator, truth: States, background: States, guidance: str
) -> None:
    level = assimilator.error_level(24.0)
    none = observe(assimilator, truth, 10).select(np.zeros(10, dtype=bool))
    alone = assimilator.analyse(background, none, TIME, level, replace(FEW, guidance=guidance)).members
    ignored = observe(assimilator, truth, 10)
    free = assimilator.analyse(background, ignored, TIME, level, replace(FEW, guidance="obsfree")).members
    assert alone.tobytes() == free.tobytes()
    assert alone.std(axis=0).max() > 0


def test_one_member_is_the_centre_of_the_ensemble(assimilator: Assimilator, truth: States, background: States) -> None:
    given, level = observe(assimilator, truth, 30), assimilator.error_level(24.0)
    many = assimilator.analyse(background, given, TIME, level, FEW).members
    one = assimilator.analyse(background, given, TIME, level, replace(FEW, members=1)).members
    std = assimilator.climatology(TIME)[1]
    difference = np.abs((many.mean(axis=0) - one[0]) / std)
    humid = [i for i, channel in enumerate(CHANNELS) if channel.variable == "q"]  # cut off at 0
    assert np.delete(difference, humid, axis=0).max() < 0.2 * np.abs((many - one) / std).max()


def test_a_cold_start_begins_at_the_climatology_and_learns_from_observations(
    assimilator: Assimilator, truth: States
) -> None:
    level = assimilator.error_level(None)
    free = assimilator.analyse(None, places(0), TIME, level, replace(FEW, members=16)).members
    climate, std = assimilator.climatology(TIME)
    anomaly = (free - climate) / std
    assert np.abs(anomaly.mean(axis=0)).mean() < 0.5 * anomaly.std(axis=0).mean()
    assert 0.4 < np.sqrt(anomaly.var(axis=0).mean()) < 1.3  # as wide as the climatology, less a ridge
    given = observe(assimilator, truth, 400)
    analysis = assimilator.analyse(None, given, TIME, level, FEW).members
    assert misfit(assimilator, analysis, given) < 0.3 * misfit(assimilator, climate[None], given)


def test_a_smaller_error_level_stays_nearer_to_the_background(
    assimilator: Assimilator, truth: States, background: States
) -> None:
    given, std = observe(assimilator, truth, 50), assimilator.climatology(TIME)[1]
    sizes = [
        np.abs((assimilator.analyse(background, given, TIME, s, FEW).members.mean(axis=0) - background[0]) / std).mean()
        for s in (assimilator.error_level(6.0), assimilator.error_level(24.0), assimilator.error_level(None))
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_the_analysis_is_wide_where_the_background_ensemble_was(assimilator: Assimilator, background: States) -> None:
    std = assimilator.climatology(TIME)[1]
    perturbations = np.random.default_rng(1).standard_normal((10, 1, 16, 1)).astype(np.float32).repeat(32, axis=-1)
    perturbations[..., 8:, :] = 0.0  # the south is certain
    ensemble = background + 0.5 * std * perturbations
    settings = AnalysisSettings(guidance="obsfree", members=16, steps=6)
    level = assimilator.error_level(24.0)

    def contrast(given: States) -> float:
        spread = (assimilator.analyse(given, places(0), TIME, level, settings).members / std).std(axis=0)
        return float(spread[:, :7].mean() / spread[:, 9:].mean())

    assert contrast(ensemble) > 1.8 * contrast(background)
    assert contrast(ensemble[:7]) == pytest.approx(contrast(ensemble[:7].mean(axis=0, keepdims=True)), rel=0.05)


def test_humidity_is_never_negative(assimilator: Assimilator, background: States) -> None:
    dry = background.copy()
    humid = [i for i, channel in enumerate(CHANNELS) if channel.variable == "q"]
    dry[:, humid] = 0.0
    analysis = assimilator.analyse(dry, places(0), TIME, assimilator.error_level(24.0), FEW).members[:, humid]
    assert analysis.min() == 0.0 and 0.2 < (analysis == 0.0).mean() < 0.95
    for state in assimilator.forecast(dry, TIME, 3):
        assert state[:, humid].min() >= 0.0


def test_increments_hold_nothing_beyond_the_truncation(
    assimilator: Assimilator, truth: States, background: States
) -> None:
    given, settings = observe(assimilator, truth, 200), AnalysisSettings(members=1, steps=4)
    analysed = assimilator.analyse(background, given, TIME, assimilator.error_level(48.0), settings).members
    increment = torch.from_numpy(analysed - background) / assimilator.bundle.climate.std[:, None, None]
    dry = np.delete(np.arange(increment.shape[1]), assimilator.moisture)  # which zero cuts off
    again = assimilator.bundle.forecast.cut(increment)
    torch.testing.assert_close(again[:, dry], increment[:, dry], atol=2e-3, rtol=0)
    assert float(increment[:, dry].abs().max()) > 0.1


@pytest.mark.parametrize("kept", [True, False])
def test_what_the_autoencoder_cannot_carry_of_the_wind_of_a_cycled_background_is_left_out(
    assimilator: Assimilator, background: States, kept: bool
) -> None:
    std, coder, climate = assimilator.climatology(TIME)[1], assimilator.bundle.autoencoder, assimilator.bundle.climate
    fine = climate.normalise(torch.from_numpy(std * noise(assimilator, 1, background.shape[1:]) + background), TIME)
    fine = fine - coder.decode(coder.encode(fine))  # what it cannot carry
    spread = 0.2 * std * noise(assimilator, 12, background.shape[1:])
    ensemble = np.asarray(background + spread - spread.mean(axis=0) + std * fine.detach().numpy(), np.float32)
    found = assimilator.analyse(ensemble, places(0), TIME, 0.2, replace(FEW, members=12, remainder=kept)).members
    x = climate.normalise(torch.from_numpy(found.mean(axis=0, keepdims=True)), TIME)
    left = (x - coder.decode(coder.encode(x))).square().mean(dim=(0, 2, 3)) / fine.square().mean(dim=(0, 2, 3))
    wind = torch.tensor([c.variable in WIND for c in assimilator.spec.channels])
    assert float(left[~wind].mean()) > 0.7
    assert float(left[wind].mean()) > 0.7 if kept else float(left[wind].mean()) < 0.3


def test_a_background_that_is_not_finite_is_refused(assimilator: Assimilator, background: States) -> None:
    broken = np.concatenate([background, background])
    broken[1, 4, 3, 2] = np.nan
    with pytest.raises(FloatingPointError, match="background"):
        assimilator.analyse(broken, places(0), TIME, 0.2, FEW)


def test_an_observation_that_cannot_be_computed_is_refused(
    assimilator: Assimilator, truth: States, background: States
) -> None:
    given = observe(assimilator, truth, 6)
    high = replace(given, pressure=np.where(np.arange(6) == 2, 5_000.0, given.pressure))
    assert assimilator.supported(high).tolist() == [True, True, False, True, True, True]
    with pytest.raises(ValueError, match="1 observations cannot be computed"):
        assimilator.analyse(background, high, TIME, 0.2, FEW)
    with pytest.raises(ValueError, match="cannot be computed"):
        assimilator.equivalents(background, replace(given, value=np.full(6, np.nan)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"guidance": "magic"}, "mmps"), ({"sampler": "euler"}, "heun"), ({"members": 0}, "one member")],
)  # fmt: skip
def test_impossible_settings_are_refused_with_what_is_possible(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnalysisSettings(**wrong)  # type: ignore[arg-type]


def test_progress_rises_to_one_and_evaluations_are_counted(
    assimilator: Assimilator, truth: States, background: States
) -> None:
    seen: list[float] = []
    result = assimilator.analyse(background, observe(assimilator, truth, 5), TIME, 0.2, FEW, seen.append)
    centre = [(i + 1) / FEW.steps / (FEW.members + 1) for i in range(FEW.steps)]
    members = [(1 + (i + 1) / FEW.steps * FEW.members) / (FEW.members + 1) for i in range(FEW.steps)]
    assert seen == pytest.approx([*centre, *members])
    assert result.evaluations == 2 * (FEW.steps + 1)  # centre and members, each with a last denoising


def test_progress_of_a_single_member_rises_to_one(assimilator: Assimilator, truth: States, background: States) -> None:
    seen: list[float] = []
    one = replace(FEW, members=1)
    assimilator.analyse(background, observe(assimilator, truth, 5), TIME, 0.2, one, seen.append)
    assert seen == pytest.approx([(i + 1) / one.steps for i in range(one.steps)])


def innovations(assimilator: Assimilator, given: ObservationSet, spread: np.ndarray, seed: int) -> np.ndarray:
    deviation = np.hypot(assimilator.observation_error(given), spread)
    return np.asarray(deviation * np.random.default_rng(seed).standard_normal(len(given)))


@pytest.mark.parametrize("true_lead", [8.0, 12.0, 18.0])
@pytest.mark.parametrize("guess", [0.75, 1.05])
def test_the_error_level_is_found_from_the_innovations(
    assimilator: Assimilator, true_lead: float, guess: float
) -> None:
    given, level = places(12_000, 3), assimilator.error_level(true_lead)
    departures = innovations(assimilator, given, assimilator.background_error(given, level), 4)
    found = assimilator.estimate_error_level(given, departures, first=guess * level)
    assert found == pytest.approx(level, rel=0.15)


@pytest.mark.parametrize(("guess", "factor"), [(0.3, INFLATION_BOUNDS[1]), (3.0, 1.0)])
def test_one_cycle_changes_the_error_level_only_so_far(assimilator: Assimilator, guess: float, factor: float) -> None:
    given, level = places(100_000, 3), assimilator.error_level(12.0)
    departures = innovations(assimilator, given, assimilator.background_error(given, level), 4)
    found = assimilator.estimate_error_level(given, departures, first=guess * level)
    assert found == pytest.approx(factor * guess * level, rel=0.01)


def test_a_few_reports_move_the_error_level_less_than_many(assimilator: Assimilator) -> None:
    given, level = places(int(FEW_REPORTS), 3), assimilator.error_level(12.0)
    departures = 10 * innovations(assimilator, given, assimilator.background_error(given, level), 4)
    found = assimilator.estimate_error_level(given, departures, first=level)
    assert found == pytest.approx(level * INFLATION_BOUNDS[1] ** 0.5)


def test_gross_errors_hardly_move_the_error_level(assimilator: Assimilator) -> None:
    given, level = places(12_000, 3), assimilator.error_level(12.0)
    departures = innovations(assimilator, given, assimilator.background_error(given, level), 4)
    clean = assimilator.estimate_error_level(given, departures, first=level)
    departures[::1000] *= 30  # by themselves almost as much variance as all the others
    assert assimilator.estimate_error_level(given, departures, first=level) == pytest.approx(clean, rel=0.15)


@pytest.mark.parametrize("inflation", [0.85, 1.0, 1.4])
def test_with_an_ensemble_the_error_level_is_a_multiple_of_its_spread(
    assimilator: Assimilator, background: States, inflation: float
) -> None:
    std, given = assimilator.climatology(TIME)[1], places(12_000, 3)
    where = np.where(np.arange(16) < 8, 0.4, 0.1).reshape(1, 1, 16, 1)
    noise = np.random.default_rng(1).standard_normal((40, *background.shape[1:]))
    ensemble = (background + std * where * noise).astype(np.float32)
    inherited = assimilator.error_level(6.0)
    first = np.hypot(assimilator.spread_level(ensemble), inherited)
    assert assimilator.spread_level(ensemble) == pytest.approx(np.sqrt((0.4**2 + 0.1**2) / 2), rel=0.02)
    at_reports = assimilator.equivalents(ensemble, given).std(axis=0, ddof=1)
    spread = np.hypot(at_reports, assimilator.background_error(given, inherited))
    departures = innovations(assimilator, given, inflation * spread, 5)
    found = assimilator.estimate_error_level(given, departures, 0.2, ensemble)
    assert found == pytest.approx(inflation * first, rel=0.1)


def test_members_are_spread_up_to_the_error_level_but_never_drawn_together(
    assimilator: Assimilator, background: States
) -> None:
    std, none = assimilator.climatology(TIME)[1], places(0)
    ensemble = background + 0.3 * std * noise(assimilator, 12, background.shape[1:])
    levels = [0.1, 0.2, 0.5, 0.7]
    spreads = [
        assimilator.spread_level(assimilator.analyse(ensemble, none, TIME, b, replace(FEW, members=12)).members)
        for b in levels
    ]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.02) and spreads[0] > levels[1]
    assert spreads[2:] == pytest.approx(levels[2:], rel=0.1)


def test_members_that_grew_without_end_somewhere_are_drawn_in_there_and_nowhere_else(
    assimilator: Assimilator, background: States
) -> None:
    std, size = assimilator.climatology(TIME)[1], np.full((16, 1), 0.2)
    size[:4] = 40.0  # the north
    ensemble = background + std * size * noise(assimilator, 12, background.shape[1:])
    settings = replace(FEW, members=12, hydrostatic=False)
    members = assimilator.analyse(ensemble.astype(np.float32), places(0), TIME, 0.2, settings).members
    spread = np.sqrt((members / std).var(axis=0, ddof=1).mean(axis=(0, 2)))
    own = np.sqrt((ensemble / std).var(axis=0, ddof=1).mean(axis=(0, 2)))
    assert own[:3].min() > 20 and spread[:3].max() < 1.1 * WIDEST
    assert spread[8:] == pytest.approx(np.hypot(own[8:], assimilator.error_level(6.0)), rel=0.5)


def test_without_observations_the_error_level_is_the_first_guess(assimilator: Assimilator, background: States) -> None:
    assert assimilator.estimate_error_level(places(0), np.empty(0), 0.123) == 0.123
    ensemble = np.repeat(background, 4, axis=0)  # no spread at all: the model's own error is left
    found = assimilator.estimate_error_level(places(0), np.empty(0), 0.123, ensemble)
    assert found == pytest.approx(assimilator.error_level(6.0))


def test_the_error_level_grows_with_the_lead_time_up_to_the_climatology(assimilator: Assimilator) -> None:
    table = assimilator.description.error_levels
    assert [assimilator.error_level(h) for h in (6.0, 12.0, 24.0)] == pytest.approx(list(table.level[:3]))
    levels = [assimilator.error_level(h) for h in (1.0, 6.0, 9.0, 12.0, 18.0, 24.0, None)]
    assert levels == sorted(levels) and levels[0] == levels[1] and levels[-1] == table.level[-1]


def test_the_observation_error_counts_instrument_autoencoder_and_time(assimilator: Assimilator) -> None:
    given = replace(places(8, variables="t"), pressure=np.full(8, 50_000.0))
    channel = CHANNELS.index(next(c for c in CHANNELS if (c.variable, c.level) == ("t", 500.0)))
    bundle = assimilator.bundle
    floor = (bundle.statistics.floor * bundle.climate.std)[channel].item()
    assert floor > 0
    np.testing.assert_allclose(assimilator.observation_error(given), np.hypot(0.5, floor), rtol=1e-5)
    late = replace(given, time_offset=np.full(8, -3.0))
    drift = bundle.climate.tendency_std[channel].item() / 2  # 3 of 6 hours
    np.testing.assert_allclose(assimilator.observation_error(late), np.sqrt(0.25 + floor**2 + drift**2), rtol=1e-5)


def test_a_forecast_yields_each_step_and_beats_persistence(assimilator: Assimilator, truth: States) -> None:
    grid, std = assimilator.description.grid, assimilator.climatology(TIME)[1]
    states = list(assimilator.forecast(np.repeat(truth, 3, axis=0), TIME, 4))
    assert len(states) == 4 and all(state.shape == (3, *truth.shape[1:]) for state in states)
    assert list(assimilator.forecast(truth, TIME, 0)) == []
    later = ATMOSPHERE.state(TIME + timedelta(days=1), grid)
    skill, persistence = (np.sqrt((((x[0] - later) / std) ** 2).mean()) for x in (states[-1], truth))
    assert skill < 0.9 * persistence
    np.testing.assert_array_equal(states[-1][0], states[-1][2])


def test_a_forecast_can_be_continued_from_where_it_was(assimilator: Assimilator, truth: States) -> None:
    whole = list(assimilator.forecast(truth, TIME, 4))
    half = list(assimilator.forecast(truth, TIME, 2))
    rest = list(assimilator.forecast(half[-1], TIME + timedelta(hours=12), 2))
    std = assimilator.climatology(TIME)[1]
    assert np.abs((rest[-1] - whole[-1]) / std).max() < 0.02


def test_an_assimilator_without_a_bundle_says_so(trained: Trained) -> None:
    with pytest.raises(BundleError):
        Assimilator(trained.work)
    assert Assimilator(trained.bundle, "cpu").device == torch.device("cpu")
