"""Quality control at work on the shipped held-out sample: a network with gross errors, duplicates and biases.

The network knows which of its values are wrong (`observe_with_flags`); the background is a forecast of the bundle.
"""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignda.demo.scenario import Scenario
from models.assimilation import Assimilator
from models.bundle import SHIPPED
from models.nature import network
from service.experiments import ExperimentConfig
from service.observation_state import KIND, read_biases
from service.observations.configuration import digest, key
from service.observations.reasons import Reason
from service.observations.table import columns_to_table
from tests.worker.conftest import NOON, House, table
from worker.model import Observations, _observation_set
from worker.stages import bias, memory
from worker.stages.analyse import weighted
from worker.stages.control_quality import Reasons, judge, without_bias
from worker.stages.filters import Comparison, Setting
from worker.stages.memory import Memory
from worker.stages.observed import Doubles, Observed

AIRCRAFT, STATION = 1.5, 1000.0  # K, Pa: what is added to the network's values
CYCLES = 12
REDUNDANT = (Reason.DUPLICATE, Reason.THINNED, Reason.SUPEROBBED)


class Sample:
    """Cycles of quality control without analyses: every background is a 6 h forecast from the truth."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, share in (("GROSS_SHARE", 0.03), ("DUPLICATE_SHARE", 0.05), ("LATE_SHARE", 0.0)):
            monkeypatch.setattr(network, name, share)
        self.scenario, self.model = Scenario(SHIPPED), Assimilator(SHIPPED, "cpu")
        self.station = str(self.scenario.network.land_stations.id[0])
        self.config = ExperimentConfig()

    def cycles(self, count: int) -> Iterator[tuple[Observed, Comparison, Reasons, dict[str, Any], Memory]]:
        """What each cycle made of its values, what is true of them, and what is known afterwards."""
        known = Memory()
        for valid_time in self.scenario.cycle_times(count):
            columns, flags = self.scenario.network.observe_with_flags(self.scenario.truth, valid_time)
            flags["off"] = (columns["station"] == self.station) & (columns["variable"] == "sp")
            warm = (columns["type"] == "amdar") & (columns["variable"] == "t")
            columns["value"] = columns["value"] + np.where(warm, AIRCRAFT, 0.0) + np.where(flags["off"], STATION, 0.0)
            ratios = {group: ratio.value for group, ratio in known.ratios.items()}
            configuration = self.config.observation_configuration
            setting = Setting(self.config, configuration, valid_time, ratios, known.unchanged)
            observed = without_bias(columns_to_table(columns), known, setting)
            comparison = self.compare(observed, valid_time)
            reasons, *_ = judge(observed, comparison, setting)
            telling = memory.compared(reasons)
            some, beside = observed.where(telling), comparison.where(telling)
            known = Memory(
                memory.update_ratios(known.ratios, some, beside, setting),
                bias.update(known.biases, some, beside, setting),
                memory.update_unchanged(known.unchanged, some, setting),
            )
            yield observed, comparison, reasons, flags, known

    def compare(self, observed: Observed, valid_time: datetime) -> Comparison:
        given = observed.observations(valid_time)
        usable = self.model.supported(_observation_set(given))
        some = _observation_set(given.where(usable))
        base = valid_time - timedelta(hours=6)
        (background,) = self.model.forecast(self.scenario.state(base), base, 1)

        def spread_out(values: Doubles) -> Doubles:
            out = np.full(len(observed), np.nan)
            out[usable] = values
            return out

        return Comparison(
            spread_out(self.model.equivalents(background, some)[0]),
            np.full(len(observed), np.nan),
            spread_out(self.model.background_error(some, self.model.error_level(6))),
            spread_out(self.model.observation_error(some)),
        )


def test_gross_errors_are_rejected_good_values_kept_and_biases_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures that the project promises: 95 % of the gross errors, less than 1 % of the good values."""
    sample = Sample(monkeypatch)
    total = dict.fromkeys(("gross", "found", "good", "lost"), 0)
    for cycle in sample.cycles(CYCLES):
        _observed, comparison, reasons, flags, known = cycle
        judged = np.isfinite(comparison.background) & ~flags["duplicate"] & ~np.isin(reasons, REDUNDANT)
        rejected = reasons >= Reason.MISSING_VALUE
        gross, good = judged & flags["gross"], judged & ~flags["gross"] & ~flags["off"]
        for name, rows in (("gross", gross), ("found", gross & rejected), ("good", good), ("lost", good & rejected)):
            total[name] += int(rows.sum())
        # of the two equal ones of a duplicate exactly one is left, and nothing else is a duplicate
        repeated = (reasons == Reason.DUPLICATE).sum()
        assert repeated <= flags["duplicate"].sum() and repeated >= 0.9 * flags["duplicate"].sum()
        off = flags["off"] & ~flags["duplicate"] & ~flags["gross"]
    assert total["gross"] > 4000 and total["good"] > 150_000
    assert total["found"] >= 0.95 * total["gross"], total
    assert total["lost"] < 0.01 * total["good"], total
    aircraft = known.biases["amdar", "", "t"]
    assert aircraft.values[0] == pytest.approx(AIRCRAFT, abs=0.3)
    station = known.biases["synop", sample.station, "sp"]
    assert station.values[0] == pytest.approx(STATION, rel=0.25)
    assert (reasons[off] == Reason.ASSIMILATED).all()  # corrected, it is used again
    others = [b.values[0] for (kind, name, _), b in known.biases.items() if kind == "synop" and name != sample.station]
    assert np.percentile(np.abs(others), 95) < 200.0


def test_three_hundred_thousand_values_take_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(monkeypatch)
    observed, comparison, _, _, _ = next(sample.cycles(1))
    times = -(-300_000 // len(observed))
    parts = []
    for copy in range(times):
        part = observed.table
        names = pa.array([f"{name}/{copy}" for name in part.column("station").cast(pa.string()).to_pylist()])
        shifted = pa.array(observed.number("latitude") * (1 - 0.001 * copy))
        part = part.set_column(part.column_names.index("station"), "station", names)
        parts.append(part.set_column(part.column_names.index("latitude"), "latitude", shifted))
    many = Observed(pa.concat_tables(parts).combine_chunks())
    beside = Comparison(**{name: np.tile(column, times) for name, column in vars(comparison).items()})
    valid_time = sample.scenario.cycle_times(1)[0]
    setting = Setting(sample.config, sample.config.observation_configuration, valid_time)
    began = time.process_time()
    judge(many, beside, setting)
    assert len(many) >= 300_000
    assert time.process_time() - began < 10.0  # 1 s on an idle core


def test_an_absent_sensor_keeps_its_bias_and_loses_certainty() -> None:
    place = ("synop", "10410", "sp")
    rows = [{"type": "synop", "variable": "sp", "value": 100500.0, "error": 100.0}]
    config = ExperimentConfig()

    def at(days: float, known: Any, present: bool = True) -> Any:
        valid_time = NOON + timedelta(days=days)
        setting = Setting(config, config.observation_configuration, valid_time)
        observed = Observed(table(rows if present else [{"station": "B"}]))
        n = len(observed)
        beside = Comparison(np.full(n, 100000.0), np.full(n, np.nan), np.full(n, 50.0), observed.error)
        return bias.update(known, observed, beside, setting)

    known: Any = {}
    for cycle in range(40):
        known = at(cycle / 4, known)
    before = known[place]
    assert before.values[0] == pytest.approx(500.0, rel=0.05)
    for cycle in range(40, 80):
        known = at(cycle / 4, known, present=False)
    assert known[place] == before
    restored = memory.from_table(memory.to_table(Memory(biases=known))).biases[place]
    assert restored.values == before.values and restored.cycles == before.cycles
    # after the gap one value tells more than it would have before
    rows[0]["value"] = 100000.0
    later, soon = at(20.0, known)[place], at(10.25, known)[place]
    assert later.values[0] < soon.values[0] < 500.0


def test_climbing_and_sinking_aircraft_have_biases_of_their_own() -> None:
    generator = np.random.default_rng(0)
    rows = []
    for flight in range(60):
        for step, pressure in enumerate((85000.0, 60000.0, 30000.0, 30000.0, 30000.0, 60000.0, 85000.0)):
            climb = -1 if step < 2 else (1 if step in (4, 5, 6) else 0)
            truth = 0.3 + (0.5 if climb > 0 else 0.0)
            rows.append(
                {"type": "amdar", "station": f"F{flight}", "pressure": pressure, "error": 1.0,
                 "time": NOON + timedelta(minutes=10 * step), "value": 255.0 + truth + 0.3 * generator.normal()}
            )  # fmt: skip
    observed = Observed(table(rows))
    n = len(observed)
    beside = Comparison(np.full(n, 255.0), np.full(n, np.nan), np.full(n, 0.1), observed.error)
    config, known = ExperimentConfig(), {}
    for cycle in range(30):
        setting = Setting(config, config.observation_configuration, NOON + timedelta(hours=6 * cycle))
        known = bias.update(known, observed, beside, setting)
    constant, _ascent, descent = known["amdar", "", "t"].values
    assert constant == pytest.approx(0.3, abs=0.12) and descent == pytest.approx(0.5, abs=0.15)


def test_weight_divides_the_whole_error_and_not_only_the_instruments() -> None:
    given = Observations(*(np.zeros(2) for _ in range(4)), np.zeros(2), np.array([1.0, 1.0]), np.zeros(2))  # type: ignore[arg-type]
    effective = np.array([2.0, 2.0])  # 3 of the variance 4 is not the instrument's
    inflated = weighted(given, np.array([0.5, np.nan]), effective).error
    np.testing.assert_allclose(inflated**2 + 3.0, [4.0 / 0.5, 4.0])


def test_a_cycle_records_its_configuration_and_the_next_one_knows_its_departures(house: House) -> None:
    experiment = house.experiment(observations={"types": {"temp": {"variables": {"u": {"usage": "monitor"}}}}})
    for hours in (0, 6):
        house.post(house.soundings(60, NOON + timedelta(hours=hours)))
        cycle = house.run(house.cycle(experiment, NOON + timedelta(hours=hours)))
    sha256 = cycle.counts["configuration"]
    assert sha256 == digest(ExperimentConfig.model_validate(experiment.config).observation_configuration)
    assert "usage: monitor" in house.archive.existing(key(sha256)).read_text()
    assert cycle.counts["reasons"]["PASSIVE"] == 120
    product = house.catalogue.products.find(cycle.id, KIND, "parquet")
    assert product is not None
    state = memory.from_table(pq.read_table(house.archive.existing(product.path)))
    assert state.ratios["temp", "z", -2].cycles == 2
    assert read_biases(house.archive.existing(product.path)) == []


def test_a_superob_stands_in_the_departures_for_what_it_averages(house: House) -> None:
    boxes = {"method": "superob", "distance_km": 3000.0, "fewest": 2}
    experiment = house.experiment(observations={"types": {"temp": {"thinning": boxes}}})
    house.post(house.soundings(80))
    cycle = house.run(house.cycle(experiment))
    product = house.catalogue.products.find(cycle.id, "departures", "parquet")
    assert product is not None
    rows = pq.read_table(house.archive.existing(product.path)).to_pylist()
    made = [row for row in rows if row["source"] == "superob"]
    assert len(made) == cycle.counts["superobs"] > 10
    assert all(row["qc"] == Reason.ASSIMILATED and row["analysis"] is not None for row in made)
    assert sum(row["qc"] == Reason.SUPEROBBED for row in rows) > len(made)
