"""The part of a bundle that the service reads."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from service.fields.errors import FieldError
from service.fields.grid import BundleDescription, Channel, Grid, gaussian_latitudes


def bundle_json() -> dict[str, object]:
    return {
        "format_version": 1,
        "name": "speedy-t31",
        "description": "ignored",
        "step_hours": 6,
        "grid": {
            "kind": "regular_gg",
            "N": 24,
            "latitudes": gaussian_latitudes(48).tolist(),
            "longitudes": (np.arange(96) * 3.75).tolist(),
        },
        "channels": [{"variable": "z", "level": 925}, {"variable": "t2m", "level": None}],
        "climate": {"file": "climate.safetensors"},
        "networks": {"anything": 1},
    }


def test_a_bundle_is_read_from_its_folder_and_its_digest_is_that_of_the_file(tmp_path: Path) -> None:
    content = json.dumps(bundle_json()).encode()
    (tmp_path / "bundle.json").write_bytes(content)
    for path in (tmp_path, tmp_path / "bundle.json"):
        description = BundleDescription.load(path)
        assert description.shape == (2, 48, 96)
        assert description.channels == (Channel("z", 925), Channel("t2m", None))
        assert description.digest == hashlib.sha256(content).hexdigest()
        assert (description.index("t2m"), description.grid.name) == (1, "N24 regular_gg 48 x 96")


def test_gaussian_latitudes_are_those_that_ecmwf_publishes_for_n24_and_n32() -> None:
    # ECMWF, "N32 Gaussian grid": 87.8638, 85.0965, 82.3129, ...; N24 begins at 87.1591
    np.testing.assert_allclose(gaussian_latitudes(64)[:3], [87.8638, 85.0965, 82.3129], atol=5e-5)
    assert gaussian_latitudes(48)[0] == pytest.approx(87.1591, abs=5e-5)
    np.testing.assert_allclose(gaussian_latitudes(48), -gaussian_latitudes(48)[::-1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"latitudes": (-gaussian_latitudes(48)).tolist()}, "north to south"),
        ({"latitudes": np.linspace(89, -89, 48).tolist()}, "not the 48 Gaussian latitudes"),
        ({"longitudes": (np.arange(96) * 3.75 - 180).tolist()}, "equidistant from 0"),
    ],
)
def test_a_grid_that_is_not_what_it_claims_is_refused(
    tmp_path: Path, change: dict[str, list[float]], reason: str
) -> None:
    bundle = bundle_json()
    bundle["grid"] = {**bundle["grid"], **change}  # type: ignore[dict-item]
    (tmp_path / "bundle.json").write_text(json.dumps(bundle))
    with pytest.raises(FieldError, match=reason):
        BundleDescription.load(tmp_path)


def test_unknown_and_repeated_channels_are_refused(tmp_path: Path) -> None:
    for channels in ([{"variable": "ozone", "level": 500}], [{"variable": "z", "level": 500}] * 2):
        (tmp_path / "bundle.json").write_text(json.dumps(bundle_json() | {"channels": channels}))
        with pytest.raises(FieldError, match="channel"):
            BundleDescription.load(tmp_path)


def test_a_grid_matches_to_a_millidegree_and_no_further() -> None:
    grid = Grid("regular_gg", tuple(gaussian_latitudes(48)), tuple(np.arange(96) * 3.75))
    latitudes, longitudes = np.array(grid.latitudes), np.array(grid.longitudes)
    assert grid.matches(np.round(latitudes, 3), longitudes)
    assert not grid.matches(latitudes + 0.01, longitudes)
    assert not grid.matches(latitudes[1:], longitudes)
