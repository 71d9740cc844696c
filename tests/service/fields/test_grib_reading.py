"""GRIB of others: scanning orders, reduced grids, shared messages, bitmaps, and what must be refused."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import pytest
from numpy.typing import NDArray

from service.fields.contract import to_array
from service.fields.errors import FieldError
from service.fields.framing import check_framing
from service.fields.grib import read_fields, summarise, validate_and_regrid, write_grib
from service.fields.grid import BundleDescription


def changed(source: Path, target: Path, change: Callable[[int, int], None]) -> Path:
    """Copy a GRIB file, calling change(handle, index) on every message."""
    with source.open("rb") as old, target.open("wb") as new:
        index = 0
        while (handle := eccodes.codes_grib_new_from_file(old)) is not None:
            change(handle, index)
            eccodes.codes_write(handle, new)
            eccodes.codes_release(handle)
            index += 1
    return target


@pytest.fixture
def analysis(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> Path:
    path = tmp_path / "analysis.grib"
    write_grib(path, ensemble[:1], description, base_time=base_time, step_hours=0, product="analysis")
    return path


@pytest.mark.parametrize(
    ("keys", "arrange"),
    [
        ({"jScansPositively": 1}, lambda field: field[::-1]),
        ({"iScansNegatively": 1}, lambda field: field[:, ::-1]),
        ({"jPointsAreConsecutive": 1}, lambda field: field.T),
        (
            {"alternativeRowScanning": 1},
            lambda field: np.where(np.arange(len(field))[:, None] % 2 == 0, field, field[:, ::-1]),
        ),
    ],
)
def test_every_scanning_order_gives_the_same_state(
    tmp_path: Path,
    analysis: Path,
    description: BundleDescription,
    keys: dict[str, int],
    arrange: Callable[[NDArray[Any]], NDArray[Any]],
) -> None:
    def rescan(handle: int, _: int) -> None:
        values = eccodes.codes_get_values(handle).reshape(48, 96)
        ends = {
            name: eccodes.codes_get(handle, f"{name}GridPointInDegrees", float)
            for name in ("latitudeOfFirst", "latitudeOfLast", "longitudeOfFirst", "longitudeOfLast")
        }
        for key, value in keys.items():
            eccodes.codes_set(handle, key, value)
            axis = {"jScansPositively": "latitude", "iScansNegatively": "longitude"}.get(key)
            if axis:
                eccodes.codes_set(handle, f"{axis}OfFirstGridPointInDegrees", ends[f"{axis}OfLast"])
                eccodes.codes_set(handle, f"{axis}OfLastGridPointInDegrees", ends[f"{axis}OfFirst"])
        eccodes.codes_set_values(handle, np.ascontiguousarray(arrange(values)).ravel())

    other = changed(analysis, tmp_path / "other.grib", rescan)
    np.testing.assert_array_equal(
        to_array(read_fields(other), description), to_array(read_fields(analysis), description)
    )


def test_fields_that_share_a_message_are_all_found(tmp_path: Path, base_time: datetime) -> None:
    # as NCEP packs u and v: one message with sections 4 to 7 repeated
    multi = eccodes.codes_grib_multi_new()
    for name in ("u", "v"):
        handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
        eccodes.codes_set(handle, "shortName", name)
        eccodes.codes_set(handle, "level", 500)
        points = eccodes.codes_get(handle, "numberOfDataPoints")
        eccodes.codes_set_values(handle, np.linspace(0, 10 if name == "u" else -10, points))
        eccodes.codes_grib_multi_append(handle, 4, multi)
        eccodes.codes_release(handle)
    with (tmp_path / "multi.grib").open("wb") as file:
        eccodes.codes_grib_multi_write(multi, file)
    eccodes.codes_grib_multi_release(multi)
    dataset = read_fields(tmp_path / "multi.grib")
    assert float(dataset["u"].max()) == pytest.approx(10, abs=0.01)
    assert float(dataset["v"].min()) == pytest.approx(-10, abs=0.01)


def test_a_reduced_gaussian_grid_is_brought_to_the_bundles_grid(
    tmp_path: Path, make_description: Callable[..., BundleDescription]
) -> None:
    description = make_description(levels=(500.0,), surface=())
    amplitude = {"z": 3000.0, "q": 0.001, "u": 20.0, "v": 20.0, "t": 15.0}
    mean = {"z": 54000.0, "q": 0.002, "u": 0.0, "v": 0.0, "t": 255.0}
    with (tmp_path / "reduced.grib").open("wb") as file:
        for name in "zquvt":
            handle = eccodes.codes_grib_new_from_samples("reduced_gg_pl_80_grib2")
            phi = np.radians(eccodes.codes_get_array(handle, "latitudes"))
            lam = np.radians(eccodes.codes_get_array(handle, "longitudes"))
            eccodes.codes_set(handle, "shortName", name)
            eccodes.codes_set(handle, "level", 500)
            eccodes.codes_set(handle, "bitsPerValue", 24)
            values = mean[name] + amplitude[name] * np.cos(phi) ** 3 * np.sin(3 * lam)
            eccodes.codes_set_values(handle, values)
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    state, _, notes = validate_and_regrid(read_fields(tmp_path / "reduced.grib"), description)
    phi = np.radians(np.array(description.grid.latitudes))[:, None]
    lam = np.radians(np.array(description.grid.longitudes))[None, :]
    for index, channel in enumerate(description.channels):
        truth = mean[channel.variable] + amplitude[channel.variable] * np.cos(phi) ** 3 * np.sin(3 * lam)
        assert np.abs(state[0, index] - truth).max() < 3e-3 * amplitude[channel.variable]
    assert any("reduced_gg 160 rows" in note for note in notes)


def test_points_masked_by_a_bitmap_are_missing_and_never_numbers(
    tmp_path: Path, analysis: Path, description: BundleDescription
) -> None:
    def mask(handle: int, index: int) -> None:
        if index == 3:
            values = eccodes.codes_get_values(handle)
            eccodes.codes_set(handle, "bitmapPresent", 1)
            eccodes.codes_set(handle, "missingValue", 1e30)
            values[100:110] = 1e30
            eccodes.codes_set_values(handle, values)

    dataset = read_fields(changed(analysis, tmp_path / "masked.grib", mask))
    assert int(dataset["z"].isnull().sum()) == 10
    with pytest.raises(FieldError, match="z500 has missing values"):
        validate_and_regrid(dataset, description)


def test_geopotential_height_is_not_taken_for_geopotential(
    tmp_path: Path, analysis: Path, description: BundleDescription
) -> None:
    def to_height(handle: int, _: int) -> None:
        if eccodes.codes_get(handle, "shortName") == "z":
            values = eccodes.codes_get_values(handle)
            eccodes.codes_set(handle, "shortName", "gh")
            eccodes.codes_set_values(handle, values / 9.80665)

    expected = to_array(read_fields(analysis), description)
    height = read_fields(changed(analysis, tmp_path / "height.grib", to_height))
    assert "z" not in height
    state, _, notes = validate_and_regrid(height, description)
    np.testing.assert_allclose(state, expected, atol=1.5, rtol=1e-6)
    assert any("geopotential height" in note for note in notes)


def test_height_that_calls_itself_geopotential_is_refused(
    tmp_path: Path, analysis: Path, description: BundleDescription
) -> None:
    def mislabel(handle: int, _: int) -> None:
        if eccodes.codes_get(handle, "shortName") == "z":
            eccodes.codes_set_values(handle, eccodes.codes_get_values(handle) / 9.80665)

    wrong = changed(analysis, tmp_path / "wrong.grib", mislabel)
    with pytest.raises(FieldError, match=r"z925 has the mean .* not a height"):
        validate_and_regrid(read_fields(wrong), description)


def test_doubtful_files_are_refused_with_their_reason(
    tmp_path: Path, analysis: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> None:
    increment = tmp_path / "increment.grib"
    write_grib(increment, ensemble[:1], description, base_time=base_time, step_hours=0, product="increment")
    sample = eccodes.codes_grib_new_from_samples("sh_pl_grib2")
    eccodes.codes_set(sample, "shortName", "t")
    content = analysis.read_bytes()
    cases = {
        "twice.grib": (content + content, "second field of z925"),
        "mixed.grib": (content + increment.read_bytes(), "mixes|second field"),
        "cut.grib": (content[:-500], "message 39 is cut off"),
        "spectral.grib": (eccodes.codes_get_message(sample), "sh grid"),
        "noise.grib": (b"GRIB" + bytes(range(200)), "cut off|unknown edition|claims"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FieldError, match=reason):
            read_fields(tmp_path / name)
    with pytest.raises(FieldError, match="more than 10000 values"):
        read_fields(analysis, maximum_values=10_000)


def test_damaged_lengths_and_section_numbers_are_refused_before_ecCodes_sees_them(
    tmp_path: Path, analysis: Path
) -> None:
    content = analysis.read_bytes()
    assert check_framing(analysis) == 39
    position, frame = 16, [*range(8, 16)]
    while content[position : position + 4] != b"7777":
        frame += range(position, position + 5)
        position += int.from_bytes(content[position : position + 4], "big")
    for place in (*frame, position):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path = tmp_path / "damaged.grib"
        path.write_bytes(bytes(damaged))
        with pytest.raises(FieldError, match=r"message 1 (is|does|claims)"):
            check_framing(path)


def test_a_heading_before_the_messages_and_padding_after_them_do_no_harm(
    tmp_path: Path, analysis: Path, description: BundleDescription
) -> None:
    path = tmp_path / "bulletin.grib"
    path.write_bytes(b"\x01\r\r\n123\r\r\nHTXC50 KWBC 311800\r\r\n" + analysis.read_bytes() + b"\0" * 100)
    np.testing.assert_array_equal(
        to_array(read_fields(path), description), to_array(read_fields(analysis), description)
    )


def test_a_summary_of_members_tells_what_is_in_the_file(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> None:
    path = tmp_path / "members.grib"
    write_grib(path, ensemble, description, base_time=base_time, step_hours=6, product="members")
    summary = summarise(path)
    assert summary.format == "GRIB2"
    assert summary.members == (1, 2, 3)
    assert summary.base_times == (base_time,)
    assert [time.isoformat() for time in summary.valid_times] == ["2021-01-01T00:00:00+00:00"]
    assert summary.steps_hours == (6.0,)
    assert summary.levels["t"] == (925, 850, 700, 500, 300, 200, 100)
    assert summary.levels["t2m"] == (None,)
    assert summary.fields == 3 * 39
    assert summary.grids == ("regular_gg 48 rows, 4608 points",)
