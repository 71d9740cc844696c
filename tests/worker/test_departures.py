"""The departures file tells the whole story of each value, in Parquet and in ODB-2 alike."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.observations.reasons import Reason
from service.observations.table import SCHEMA
from tests.worker.conftest import NOON, House, table
from worker.stages.departures import odb_frame, write_odb2, write_parquet
from worker.stages.observed import with_columns


def departures(house: House) -> Path:
    house.post(house.soundings(20))
    house.post(table([{"value": 999.0, "station": "gross"}, {"pressure": 1000.0, "station": "high"}]))
    cycle = house.run(house.cycle(house.experiment()))
    product = house.catalogue.products.find(cycle.id, "departures", "parquet")
    assert product is not None
    return house.archive.existing(product.path)


def test_every_value_of_the_window_is_there_with_its_reason(house: House) -> None:
    rows = pq.read_table(departures(house)).to_pylist()
    assert len(rows) == 122
    assert {row["station"]: row["qc"] for row in rows if row["station"] in ("gross", "high")} == {
        "gross": Reason.RANGE,
        "high": Reason.OUTSIDE_DOMAIN,
    }
    assert all(row["qc"] is not None and row["id"] for row in rows)


def test_the_columns_are_the_observation_table_and_the_comparison(house: House) -> None:
    names = pq.read_schema(departures(house)).names
    controlled = ["bias", "background", "background_spread", "weight", "qc", "check_value", "check_limit"]
    added = ["analysis", "analysis_spread", "observation_error", "background_error", "influence"]
    assert names == [*SCHEMA.names, *controlled, *added]


def test_used_observations_are_nearer_to_the_analysis_than_to_the_background(house: House) -> None:
    rows = [row for row in pq.read_table(departures(house)).to_pylist() if row["qc"] == Reason.ASSIMILATED]
    before = np.mean([abs(row["value"] - row["background"]) / row["error"] for row in rows])
    after = np.mean([abs(row["value"] - row["analysis"]) / row["error"] for row in rows])
    assert after < 0.8 * before


def test_what_cannot_be_compared_is_null_and_not_a_number(house: House) -> None:
    high = next(row for row in pq.read_table(departures(house)).to_pylist() if row["station"] == "high")
    assert high["background"] is None and high["analysis"] is None


def test_odb2_is_read_back_with_ecmwf_names_and_codes(tmp_path: Path) -> None:
    import pyodc

    values = table(
        [
            {"station": "ABCDEFGHIJ", "value": 250.5},
            {"station": "10410", "variable": "sp", "type": "synop", "pressure": np.nan, "value": 101325.0},
            {"station": "KL0042", "variable": "u", "type": "amdar", "value": 12.0},
        ]
    )
    full = with_columns(
        values,
        {
            "background": np.array([250.0, 101300.0, np.nan]),
            "background_spread": np.array([0.5, 50.0, np.nan]),
            "qc": np.array([Reason.ASSIMILATED, Reason.WITHHELD, Reason.OUTSIDE_DOMAIN], np.int16),
            "analysis": np.array([250.25, 101320.0, np.nan]),
            "analysis_spread": np.array([0.25, 20.0, np.nan]),
        },
    )
    path = tmp_path / "departures.odb"
    write_odb2(full, path, NOON)
    read = pyodc.read_odb(str(path), single=True).sort_values("varno@body")
    assert read["varno@body"].tolist() == [2, 3, 110]
    assert read["obstype@hdr"].tolist() == [5, 2, 1]
    assert read["statid@hdr"].str.strip().tolist() == ["ABCDEFGHIJ", "KL0042", "10410"]
    assert read["datum_status@body"].tolist() == [1, 4, 2]
    assert read["date@hdr"].tolist() == [20010101] * 3 and read["time@hdr"].tolist() == [120000] * 3
    np.testing.assert_allclose(read["fg_depar@body"], [0.5, np.nan, 25.0])
    np.testing.assert_allclose(read["an_depar@body"], [0.25, np.nan, 5.0])
    np.testing.assert_allclose(read["vertco_reference_1@body"], [50000.0, 50000.0, np.nan])


def test_parquet_and_odb2_hold_the_same_departures(house: House, tmp_path: Path) -> None:
    import pyodc

    full = pq.read_table(departures(house))
    write_parquet(full, tmp_path / "copy.parquet")
    write_odb2(full, tmp_path / "copy.odb", NOON)
    frame = odb_frame(pq.read_table(tmp_path / "copy.parquet"), NOON).set_index("id@alignda").sort_index()
    read = pyodc.read_odb(str(tmp_path / "copy.odb"), single=True).set_index("id@alignda").sort_index()
    for name in ("obsvalue@body", "fg_depar@body", "an_depar@body", "lat@hdr", "obs_error@errstat"):
        np.testing.assert_allclose(read[name], frame[name], rtol=1e-6)


def test_an_empty_odb2_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without rows"):
        write_odb2(table([{}])[:0], tmp_path / "empty.odb", NOON)
