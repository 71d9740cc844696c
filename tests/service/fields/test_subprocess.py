"""Untrusted files are opened in a subprocess: results and refusals must come back from it."""

import multiprocessing
import pickle
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from service.fields.errors import FieldError
from service.fields.grib import read_fields, summarise, validate_and_regrid, write_grib
from service.fields.grid import BundleDescription
from service.isolation import IsolationError, run_isolated


@pytest.fixture
def analysis(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> Path:
    path = tmp_path / "analysis.grib"
    write_grib(path, ensemble[:1], description, base_time=base_time, step_hours=0, product="analysis")
    return path


def test_fields_summaries_and_refusals_survive_the_way_from_a_subprocess(tmp_path: Path, analysis: Path) -> None:
    (tmp_path / "broken.grib").write_bytes(analysis.read_bytes()[:-9])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        xr.testing.assert_identical(pool.apply(read_fields, (str(analysis),)), read_fields(analysis))
        assert pool.apply(summarise, (str(analysis),)) == summarise(analysis)
        with pytest.raises(FieldError, match="cut off"):
            pool.apply(read_fields, (str(tmp_path / "broken.grib"),))


def test_the_bounded_process_returns_the_same_fields_and_the_same_refusal(
    analysis: Path, real_file: Callable[[str], Path], description: BundleDescription
) -> None:
    limits = {"seconds": 60, "megabytes": 2000}
    fields = run_isolated("service.fields.grib:read_fields", str(analysis), **limits)
    xr.testing.assert_identical(fields, read_fields(analysis))
    assert run_isolated("service.fields.grib:summarise", str(analysis), **limits) == summarise(analysis)
    state, valid, notes = run_isolated("service.fields.grib:validate_and_regrid", fields, description, **limits)
    expected = validate_and_regrid(read_fields(analysis), description)
    np.testing.assert_array_equal(state, expected[0])
    assert (valid, notes) == expected[1:]
    posted = run_isolated("service.fields.grib:read_fields", str(real_file("ecmwf_pl_regular_ll.grib")), **limits)
    with pytest.raises(FieldError) as refusal:
        run_isolated("service.fields.grib:validate_and_regrid", posted, description, **limits)
    assert refusal.value.missing["u"] == (200.0, 100.0)


def test_damaged_files_never_harm_the_caller(tmp_path: Path, analysis: Path) -> None:
    generator = np.random.default_rng(11)
    content = np.frombuffer(analysis.read_bytes(), dtype=np.uint8)
    outcomes = []
    for trial in range(4):
        damaged = content.copy()
        damaged[generator.integers(0, len(damaged), 200)] = generator.integers(0, 256, 200)
        path = tmp_path / f"{trial}.grib"
        path.write_bytes(damaged.tobytes())
        try:
            run_isolated("service.fields.grib:read_fields", str(path), seconds=30, megabytes=1000)
        except (FieldError, IsolationError) as error:
            outcomes.append(error)
    assert outcomes


def test_a_refusal_keeps_what_is_missing() -> None:
    refusal = pickle.loads(pickle.dumps(FieldError("the file lacks sp", {"sp": (None,)})))
    assert (str(refusal), refusal.missing) == ("the file lacks sp", {"sp": (None,)})
