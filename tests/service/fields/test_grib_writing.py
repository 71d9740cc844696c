"""What is written as GRIB2 is read back identically by ecCodes and by cfgrib, headers and values."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cfgrib
import eccodes
import numpy as np
import pytest
from numpy.typing import NDArray

from service.fields.contract import to_array
from service.fields.errors import FieldError
from service.fields.grib import read_fields, validate_and_regrid, write_grib
from service.fields.grid import BundleDescription

Place = tuple[str, float | None, int | None]
SHORT_NAMES = {"10u": "u10", "10v": "v10", "2t": "t2m", "sp": "sp"}


def messages(path: Path, *keys: str) -> list[tuple[dict[str, Any], NDArray[np.float64]]]:
    """Every message by plain ecCodes: the keys asked for (None where absent) and the values."""
    found = []
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            header = {
                key: eccodes.codes_get(handle, key) if eccodes.codes_is_defined(handle, key) else None for key in keys
            }
            found.append((header, eccodes.codes_get_values(handle)))
            eccodes.codes_release(handle)
    return found


def by_cfgrib(path: Path) -> dict[Place, tuple[NDArray[np.float32], np.datetime64, np.timedelta64, np.datetime64]]:
    """Every field as cfgrib.open_datasets sees it: values, time, step, valid_time."""
    found = {}
    for dataset in cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": ""}):
        for name, field in dataset.data_vars.items():
            for dim in ("number", "isobaricInhPa"):
                if dim not in field.dims:
                    field = field.expand_dims(dim) if dim in field.coords else field
            axes = [dim for dim in ("number", "isobaricInhPa") if dim in field.dims]
            stacked = field.stack(place=axes) if axes else field.expand_dims("place")
            for index in range(stacked.sizes["place"]):
                one = stacked.isel(place=index)
                level = float(one["isobaricInhPa"]) if "isobaricInhPa" in one.coords else None
                number = int(one["number"]) if "number" in one.coords else None
                place = (str(name), level, number)
                assert place not in found, f"cfgrib has {place} twice"
                found[place] = (
                    one.transpose("latitude", "longitude").to_numpy(),
                    one["time"].to_numpy(),
                    one["step"].to_numpy(),
                    one["valid_time"].to_numpy(),
                )
    return found


def packing_error(values: NDArray[np.floating[Any]]) -> float:
    """The bound for 16 bits: half a step, a step being below two 65535ths of the range; and float32 rounding."""
    return float(values.max() - values.min()) / 65535 + float(np.abs(values).max()) * 2**-23


@pytest.mark.parametrize("packing", ["ccsds", "simple"])
def test_members_are_read_back_by_eccodes_with_every_header_right(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime, packing: Any
) -> None:
    path = tmp_path / "members.grib"
    write_grib(
        path,
        ensemble,
        description,
        base_time=base_time,
        step_hours=6,
        product="members",
        members_total=16,
        packing=packing,
    )
    keys = [
        "edition",
        "shortName",
        "typeOfLevel",
        "level",
        "units",
        "dataDate",
        "dataTime",
        "step",
        "validityDate",
        "validityTime",
        "productDefinitionTemplateNumber",
        "perturbationNumber",
        "numberOfForecastsInEnsemble",
        "dataType",
        "typeOfProcessedData",
        "typeOfGeneratingProcess",
        "packingType",
        "bitsPerValue",
        "bitmapPresent",
        "gridType",
        "N",
        "Ni",
        "Nj",
        "centre",
        "isMessageValid",
    ]
    found = messages(path, *keys)
    assert len(found) == ensemble.shape[0] * len(description.channels)
    expected = [(member, channel) for member in range(3) for channel in description.channels]
    for (header, values), (member, channel) in zip(found, expected, strict=True):
        short_name = {v: k for k, v in SHORT_NAMES.items()}.get(channel.variable, channel.variable)
        kind, level = {
            "u10": ("heightAboveGround", 10),
            "v10": ("heightAboveGround", 10),
            "t2m": ("heightAboveGround", 2),
            "sp": ("surface", 0),
        }.get(channel.variable, ("isobaricInhPa", channel.level))
        assert (header["shortName"], header["typeOfLevel"], header["level"]) == (short_name, kind, level)
        assert (header["dataDate"], header["dataTime"], header["step"]) == (20201231, 1800, 6)
        assert (header["validityDate"], header["validityTime"]) == (20210101, 0)
        assert (header["productDefinitionTemplateNumber"], header["dataType"]) == (1, "pf")
        assert (header["perturbationNumber"], header["numberOfForecastsInEnsemble"]) == (member + 1, 16)
        assert (header["gridType"], header["N"], header["Ni"], header["Nj"]) == ("regular_gg", 24, 96, 48)
        assert (header["edition"], header["bitsPerValue"], header["bitmapPresent"]) == (2, 16, 0)
        assert header["packingType"] == f"grid_{packing}"
        assert header["isMessageValid"] in (1, None)
        original = ensemble[member, description.index(channel.variable, channel.level)]
        assert np.abs(values.reshape(48, 96) - original).max() <= packing_error(original)
    units = {header["shortName"]: header["units"] for header, _ in found}
    assert units["z"] == "m**2 s**-2"
    assert (units["q"], units["sp"], units["2t"], units["10u"]) == ("kg kg**-1", "Pa", "K", "m s**-1")


@pytest.mark.parametrize(
    ("product", "step", "total"),
    [
        ("members", 6, 3),
        ("members", 0, 3),
        ("analysis", 0, None),
        ("forecast", 48, None),
        ("increment", 0, None),
        ("mean", 24, 16),
        ("spread", 24, 16),
        ("mean", 0, 16),
    ],
)
def test_cfgrib_sees_every_field_once_with_its_level_member_step_and_valid_time(
    tmp_path: Path,
    description: BundleDescription,
    ensemble: NDArray[np.float32],
    base_time: datetime,
    product: Any,
    step: int,
    total: int | None,
) -> None:
    states = ensemble if product == "members" else ensemble[:1]
    path = tmp_path / "product.grib"
    write_grib(path, states, description, base_time=base_time, step_hours=step, product=product, members_total=total)
    found = by_cfgrib(path)
    plain = iter(messages(path))
    start = np.datetime64(base_time.replace(tzinfo=None))
    for member, state in enumerate(states, start=1):
        for channel, original in zip(description.channels, state, strict=True):
            place = (channel.variable, channel.level, member if product == "members" else None)
            if place not in found:  # cfgrib gives a single member a scalar number 0
                place = (channel.variable, channel.level, 0)
            values, time, ahead, valid = found.pop(place)
            assert np.abs(values - original).max() <= packing_error(original)
            np.testing.assert_array_equal(values, next(plain)[1].reshape(48, 96).astype(np.float32))
            assert time == start
            assert ahead == np.timedelta64(step, "h")
            assert valid == start + np.timedelta64(step, "h")
    assert not found


def test_cfgrib_finds_the_gaussian_grid(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> None:
    path = tmp_path / "analysis.grib"
    write_grib(path, ensemble[:1], description, base_time=base_time, step_hours=0, product="analysis")
    for dataset in cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": ""}):
        np.testing.assert_allclose(dataset["latitude"], description.grid.latitudes, atol=1e-5)
        np.testing.assert_allclose(dataset["longitude"], description.grid.longitudes, atol=1e-6)


def test_the_precision_of_every_variable_is_far_below_the_error_of_any_observation(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> None:
    path = tmp_path / "members.grib"
    write_grib(path, ensemble, description, base_time=base_time, step_hours=0, product="members")
    restored = to_array(read_fields(path), description)
    allowed = {"z": 0.5, "q": 1e-6, "u": 0.01, "v": 0.01, "t": 0.005, "u10": 0.01, "v10": 0.01, "t2m": 0.005, "sp": 2.0}
    for channel, was, now in zip(description.channels, ensemble.swapaxes(0, 1), restored.swapaxes(0, 1), strict=True):
        assert np.abs(now - was).max() < allowed[channel.variable], channel.name


@pytest.mark.parametrize(
    ("product", "step", "expected"),
    [
        ("analysis", 0, {"productDefinitionTemplateNumber": 0, "typeOfGeneratingProcess": 0, "dataType": "an"}),
        ("forecast", 12, {"productDefinitionTemplateNumber": 0, "typeOfGeneratingProcess": 2, "dataType": "fc"}),
        ("increment", 0, {"productDefinitionTemplateNumber": 0, "typeOfGeneratingProcess": 20, "dataType": "missing"}),
        ("mean", 0, {"productDefinitionTemplateNumber": 2, "derivedForecast": 0, "numberOfForecastsInEnsemble": 16}),
        ("spread", 12, {"productDefinitionTemplateNumber": 2, "derivedForecast": 4, "numberOfForecastsInEnsemble": 16}),
    ],
)
def test_each_product_is_told_apart_by_its_headers_and_by_our_reader(
    tmp_path: Path,
    description: BundleDescription,
    ensemble: NDArray[np.float32],
    base_time: datetime,
    product: Any,
    step: int,
    expected: dict[str, Any],
) -> None:
    path = tmp_path / "product.grib"
    total = 16 if product in ("mean", "spread") else None
    write_grib(
        path, ensemble[:1], description, base_time=base_time, step_hours=step, product=product, members_total=total
    )
    assert all(header == expected for header, _ in messages(path, *expected))
    dataset = read_fields(path)
    assert dataset.attrs["product"] == product
    if product in ("increment", "spread"):
        with pytest.raises(FieldError, match="not a state"):
            validate_and_regrid(dataset, description)
    else:
        state, valid, _ = validate_and_regrid(dataset, description)
        assert valid == base_time + timedelta(hours=step)
        assert np.abs(state[0] - ensemble[0]).max() < 1.0


def test_a_constant_field_does_not_change_the_bits_of_its_successors(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> None:
    states = ensemble.copy()
    states[0] = 0.0
    states[1, 5] = 7.25
    write_grib(tmp_path / "m.grib", states, description, base_time=base_time, step_hours=0, product="members")
    restored = to_array(read_fields(tmp_path / "m.grib"), description)
    np.testing.assert_array_equal(restored[0], 0.0)
    np.testing.assert_array_equal(restored[1, 5], 7.25)
    for was, now in zip(states[2], restored[2], strict=True):
        assert np.abs(now - was).max() <= packing_error(was)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_name_and_the_old_file_stays(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime, value: float
) -> None:
    path = tmp_path / "members.grib"
    path.write_bytes(b"the old file")
    states = ensemble.copy()
    states[1, description.index("v", 300), 4, 7] = value
    with pytest.raises(FieldError, match="v300 of member 2"):
        write_grib(path, states, description, base_time=base_time, step_hours=0, product="members")
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_other(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> None:
    path = tmp_path / "members.grib"
    path.write_bytes(b"the old file")
    states = ensemble.astype(np.float64)
    states[2, 3] *= 1e302  # finite, but beyond what GRIB can pack; 81 messages are written by then
    with pytest.raises(FieldError, match="z from"):
        write_grib(path, states, description, base_time=base_time, step_hours=0, product="members")
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_contradictions_are_refused(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> None:
    def refused(match: str, states: NDArray[np.float32], **changes: Any) -> None:
        arguments: dict[str, Any] = {"base_time": base_time, "step_hours": 0, "product": "members"} | changes
        with pytest.raises(FieldError, match=match):
            write_grib(tmp_path / "x.grib", states, description, **arguments)

    refused("one state, not 3", ensemble, product="analysis")
    refused("expected", ensemble[:, :5])
    refused("step 0", ensemble[:1], product="analysis", step_hours=6)
    refused("whole hours", ensemble, step_hours=-6)
    refused("size of its ensemble", ensemble[:1], product="mean")
    refused("do not fit", ensemble, members_total=4, first_member=3)
    refused("whole minute", ensemble, base_time=datetime(2020, 1, 1, 0, 0, 5, tzinfo=UTC))
    assert not list(tmp_path.iterdir())


def test_members_written_in_parts_keep_their_numbers(
    tmp_path: Path, description: BundleDescription, ensemble: NDArray[np.float32], base_time: datetime
) -> None:
    path = tmp_path / "part.grib"
    write_grib(
        path,
        ensemble,
        description,
        base_time=base_time,
        step_hours=6,
        product="members",
        members_total=16,
        first_member=9,
    )
    assert read_fields(path)["number"].to_numpy().tolist() == [9, 10, 11]


def test_an_equidistant_grid_is_written_too(
    tmp_path: Path,
    make_description: Callable[..., BundleDescription],
    make_states: Callable[[BundleDescription, int], NDArray[np.float32]],
    base_time: datetime,
) -> None:
    description = make_description(rows=19, kind="regular_ll", levels=(500.0,))
    states = make_states(description, 1)
    path = tmp_path / "ll.grib"
    write_grib(path, states, description, base_time=base_time, step_hours=0, product="analysis")
    restored = to_array(read_fields(path), description)
    for was, now in zip(states[0], restored[0], strict=True):
        assert np.abs(now - was).max() <= packing_error(was)
    assert len(by_cfgrib(path)) == len(description.channels)
