"""From reports to H(x): what the table holds of place, height and layer is what the operator uses."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.observation_operator import ObservationOperator, ObservationSet
from service.observations.configuration import resolve
from service.observations.decoders import decode
from service.observations.encode_bufr import write_soundings
from service.observations.table import columns_to_table
from tests.models.synthetic import CHANNELS, Atmosphere, gaussian_grid
from worker.stages.observed import Observed

GRID, NOON = gaussian_grid(), datetime(2001, 2, 20, 12, tzinfo=UTC)
STATE = torch.from_numpy(Atmosphere(2).state(NOON, GRID))[None]


def table(**columns: Any) -> Any:
    n = len(columns["value"])
    none = np.full(n, np.nan)
    base = {
        "time": np.full(n, np.datetime64("2001-02-20T12:00", "us")), "latitude": np.full(n, 40.0),
        "longitude": np.full(n, 10.0), "pressure": none, "height": none, "pressure_top": none, "error": np.ones(n),
        "type": np.full(n, "temp", object), "station": np.full(n, "10410", object), "source": np.full(n, "x", object),
        "preqc": np.full(n, -1),
    }  # fmt: skip
    base["receipt_time"] = base["time"]
    return columns_to_table({name: np.asarray(values) for name, values in (base | columns).items()})


def equivalents(observed: Observed) -> np.ndarray:
    given = ObservationSet(**vars(observed.observations(NOON)))
    return ObservationOperator(given, GRID, CHANNELS)(STATE)[0].numpy()


def test_the_levels_of_a_bufr_sounding_are_compared_where_its_balloon_had_drifted(tmp_path: Path) -> None:
    levels = np.arange(90_000.0, 25_000.0, -5000.0)
    n, rise = len(levels), np.arange(len(levels))
    ascent = table(
        value=280.0 - 3.0 * rise, variable=np.full(n, "t", object), pressure=levels,
        time=np.datetime64("2001-02-20T11:30", "us") + (rise * 300).astype("timedelta64[s]"),
        latitude=40.0 + 0.05 * rise, longitude=10.0 + 0.25 * rise,
    )  # fmt: skip
    file = tmp_path / "ascent.bufr"
    write_soundings(file, ascent)
    batch = decode(file, "application/bufr", "feed", NOON)
    observed = Observed(batch.table)
    temperature = observed.where(observed.has("variable", "t"))
    order = np.argsort(-temperature.number("pressure"))
    np.testing.assert_allclose(temperature.number("longitude")[order], 10.0 + 0.25 * rise, atol=1e-4)
    found = equivalents(temperature)[order]
    there = [equivalents(Observed(table(
        value=[0.0], variable=["t"], pressure=[p], latitude=[40.0 + 0.05 * k], longitude=[10.0 + 0.25 * k],
    )))[0] for k, p in enumerate(levels)]  # fmt: skip
    np.testing.assert_allclose(found, there, atol=1e-3)
    launch = [equivalents(Observed(table(value=[0.0], variable=["t"], pressure=[p])))[0] for p in levels]
    assert np.abs(found - launch)[-1] > 0.05
    assert temperature.hours_from(NOON).max() - temperature.hours_from(NOON).min() > 0.9


def test_heights_and_layers_of_the_table_reach_the_operator() -> None:
    rows = table(
        value=[0.0, 0.0, 0.0], variable=["t", "tlayer", "t"], pressure=[np.nan, 80_000.0, 50_000.0],
        height=[5000.0, np.nan, np.nan], pressure_top=[np.nan, 30_000.0, np.nan],
    )  # fmt: skip
    observed = Observed(rows)
    assert np.isnan(observed.given_pressure[0]) and 50_000 < observed.pressure[0] < 58_000
    at_height, layer, at_500 = equivalents(observed)
    assert 0.5 < at_height - at_500 < 8.0  # 5000 m lies 500 m beneath 500 hPa
    warm, cold = (equivalents(Observed(table(value=[0.0], variable=["t"], pressure=[p])))[0] for p in (8e4, 3e4))
    assert cold < layer < warm


def test_no_reduction_where_the_configuration_asks_for_the_field_itself() -> None:
    rows = table(value=[9e4], variable=["sp"], height=[1000.0], type=["synop"])
    assert Observed(rows).height.tolist() == [1000.0]
    plain = resolve({"types": {"synop": {"variables": {"sp": {"operator": "surface"}}}}})
    assert np.isnan(Observed(rows, plain).height).all()


def test_departures_of_wind_directions_are_small_across_north() -> None:
    wind = [equivalents(Observed(table(value=[0.0], variable=[name], pressure=[5e4])))[0] for name in "uv"]
    direction = float(np.rad2deg(np.arctan2(-wind[0], -wind[1])) % 360.0)
    for turned in (-20.0, 20.0):
        value = (direction + turned) % 360.0
        observed = Observed(table(value=[value], variable=["wdir"], pressure=[5e4]))
        np.testing.assert_allclose(observed.value - equivalents(observed), turned, atol=1e-2)
