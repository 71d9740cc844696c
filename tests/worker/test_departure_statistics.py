"""Statistics of departures against linear Gaussian systems whose errors and influence are known."""

from typing import Any

import numpy as np
import pytest

from service.observations.reasons import Reason
from tests.worker.conftest import House, table
from worker.stages.departure_statistics import statistics
from worker.stages.departures import Departures
from worker.stages.influence import normalised_perturbations
from worker.stages.observed import Observed, with_columns

SITES, CYCLES, MEMBERS = 50, 80, 16


def system(sigma_o: float = 1.0, given_o: float = 1.0, bias: float = 0.0) -> Departures:
    """80 cycles of 50 stations of a linear Gaussian system, analysed with the exact gain for `given_o` and sigma_b 2.

    True errors: sigma_o, and background errors of 2 with correlation over 4 stations.
    """
    generator = np.random.default_rng(11)
    place = np.arange(float(SITES))
    b = 4.0 * np.exp(-0.5 * ((place[:, None] - place) / 4.0) ** 2)
    gain = b @ np.linalg.inv(b + given_o**2 * np.eye(SITES))
    root_b, root_a = (
        np.linalg.cholesky(b + 1e-9 * np.eye(SITES)),
        np.linalg.cholesky(b - gain @ b + 1e-9 * np.eye(SITES)),
    )
    background = 250.0 + (root_b @ generator.normal(size=(SITES, CYCLES))).T
    value = 250.0 + bias + sigma_o * generator.normal(size=(CYCLES, SITES))
    analysis = background + (value - background) @ gain.T
    members = generator.normal(size=(MEMBERS, CYCLES, SITES)) @ root_a.T
    rows = [{"station": f"{i}", "value": float(value[c, i])} for c in range(CYCLES) for i in range(SITES)]
    spread = members.std(axis=0, ddof=1)
    n = len(rows)
    full = with_columns(
        table(rows),
        {
            "background": background.ravel(), "analysis": analysis.ravel(), "analysis_spread": spread.ravel(),
            "observation_error": np.full(n, given_o), "background_error": np.full(n, 2.0), "weight": np.ones(n),
            "qc": np.full(n, int(Reason.ASSIMILATED), np.int16),
        },
    )  # fmt: skip
    perturbations = normalised_perturbations(members.reshape(MEMBERS, -1), np.full(n, given_o))
    return Departures(full, np.ones(n, bool), perturbations)


def whole(departures: Departures, **keys: str) -> dict[str, Any]:
    wanted = {"use": "assimilated", "type": "temp", "variable": "t", "layer": "", "region": "", **keys}
    found = [
        row for row in statistics(departures).to_pylist() if all(row[name] == value for name, value in wanted.items())
    ]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def consistent() -> dict[str, Any]:
    return whole(system())


def test_diagnosed_errors_are_the_true_ones_where_the_analysis_is_optimal(consistent: dict[str, Any]) -> None:
    """Desroziers 2005: sampling error of sigma is about sigma / sqrt(2 n_eff); n_eff >= 80 x 5, so 5 of them: 18 %."""
    assert consistent["sigma_o"] == 1.0 and consistent["sigma_b"] == 2.0
    assert consistent["sigma_o_diagnosed"] == pytest.approx(1.0, rel=0.06)  # observation errors are independent
    assert consistent["sigma_b_diagnosed"] == pytest.approx(2.0, rel=0.18)
    assert consistent["chi_square"] == pytest.approx(1.0, rel=0.25)


def test_dfs_of_members_and_of_departures_are_the_trace_of_the_influence_matrix(consistent: dict[str, Any]) -> None:
    place = np.arange(float(SITES))
    b = 4.0 * np.exp(-0.5 * ((place[:, None] - place) / 4.0) ** 2)
    exact = CYCLES * float(np.trace(b @ np.linalg.inv(b + np.eye(SITES))))
    assert abs(consistent["dfs"] - exact) < 4 * consistent["dfs_error"]
    assert consistent["dfs_error"] < 0.05 * exact
    assert consistent["dfs_departures"] == pytest.approx(exact, rel=0.1)


def test_an_error_assumed_too_small_is_found_too_small() -> None:
    """Observations twice as wrong as the analysis was told: the first iterate goes most of the way, chi-square is up."""
    found = whole(system(sigma_o=2.0, given_o=1.0))
    assert 1.5 < found["sigma_o_diagnosed"] < 2.2
    assert found["chi_square"] > 1.4


def test_a_bias_is_the_mean_departure(consistent: dict[str, Any]) -> None:
    found = whole(system(bias=3.0))
    assert found["bias_background"] - consistent["bias_background"] == pytest.approx(3.0, abs=0.01)
    assert found["rms_analysis"] < found["rms_background"]


def test_values_are_grouped_by_use_type_variable_layer_and_region() -> None:
    rows: list[dict[str, Any]] = [
        {"latitude": 60.0, "pressure": 50000.0}, {"latitude": -60.0, "pressure": 85000.0},
        {"latitude": 0.0, "pressure": np.nan, "variable": "sp", "type": "synop", "value": 1e5},
        {"latitude": 20.0, "pressure": 20000.0}, {"latitude": 19.9, "pressure": 9000.0},
    ]  # fmt: skip
    reasons = np.array([Reason.ASSIMILATED, Reason.WITHHELD, Reason.FIRST_GUESS, Reason.DENIED, Reason.RANGE], np.int16)
    nothing = np.full(5, np.nan)
    columns = {name: nothing for name in ("background", "analysis", "observation_error", "background_error", "weight")}
    made = statistics(Departures(with_columns(table(rows), {**columns, "qc": reasons}), np.zeros(5, bool), None))
    found = {
        tuple(row[name] for name in ("use", "type", "variable", "layer", "region")): row for row in made.to_pylist()
    }
    assert found["assimilated", "temp", "t", "700-400", "nh"]["count"] == 1
    assert found["withheld", "temp", "t", "1100-700", "sh"]["count"] == 1
    assert found["denied", "temp", "t", "400-200", "nh"]["count"] == 1  # 200 hPa belongs to the layer below it
    rejected = found["rejected", "", "", "", ""]
    assert (rejected["count"], rejected["compared"], dict(rejected["reasons"])) == (
        2,
        0,
        {"FIRST_GUESS": 1, "RANGE": 1},
    )
    assert found["rejected", "synop", "sp", "surface", "tropics"]["count"] == 1
    assert rejected["chi_square"] is None and found["assimilated", "", "", "", ""]["dfs"] is None


def test_a_table_without_rows_has_no_groups() -> None:
    empty = with_columns(table([{}])[:0], {"qc": np.zeros(0, np.int16)})
    assert statistics(Departures(empty, np.zeros(0, bool), None)).num_rows == 0


def test_a_cycle_publishes_influence_statistics_and_scores(house: House) -> None:
    experiment = house.experiment(withheld_fraction=0.2, forecast_hours=6)
    house.post(house.soundings(60))
    cycle = house.run(house.cycle(experiment))
    import pyarrow.parquet as pq

    def product(kind: str) -> Any:
        found = house.catalogue.products.find(cycle.id, kind, "parquet")
        assert found is not None
        return pq.read_table(house.archive.existing(found.path))

    departures = Observed(product("departures"))
    influence, used = departures.number("influence"), departures.number("qc") == Reason.ASSIMILATED
    assert np.isfinite(influence[used]).all() and np.isnan(influence[~used]).all() and (influence[used] > 0).all()
    rows = product("departure_statistics").to_pylist()
    everything = [row for row in rows if not any(row[name] for name in ("type", "variable", "layer", "region"))]
    by_use = {row["use"]: row for row in everything}
    assert by_use["assimilated"]["dfs"] == pytest.approx(influence[used].sum(), rel=1e-5)
    assert sum(row["count"] for row in everything) == len(departures)
    assert by_use["withheld"]["chi_square_analysis"] > 0 and by_use["withheld"]["dfs"] is None
    scores = {(row.name, row.variable, row.type): row.value for row in house.catalogue.scores.of_cycle(cycle.id)}
    assert scores["dfs", "", ""] == pytest.approx(by_use["assimilated"]["dfs"])
    assert scores["departure_count", "t", "temp"] == by_use["assimilated"]["count"] / 3
    assert {"chi_square", "sigma_o_ratio", "dfs_error"} <= {name for name, _, _ in scores}
    assert ("withheld_rmse", "z", "") in scores
