"""Between the plain array of the models and the Dataset of the contract."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from numpy.typing import NDArray

from service.fields.contract import from_array, missing_channels, times, to_array
from service.fields.errors import FieldError
from service.fields.grid import BundleDescription, Channel

VALID = datetime(2021, 1, 1, tzinfo=UTC)


def test_an_array_comes_back_from_its_dataset_bit_for_bit(
    description: BundleDescription, ensemble: NDArray[np.float32]
) -> None:
    dataset = from_array(ensemble, description, VALID, step_hours=6)
    np.testing.assert_array_equal(to_array(dataset, description), ensemble)
    assert dataset["z"].dims == ("time", "number", "level", "latitude", "longitude")
    assert dataset["t2m"].dims == ("time", "number", "latitude", "longitude")
    np.testing.assert_array_equal(
        dataset["v"].sel(level=300, number=2).squeeze(), ensemble[1, description.index("v", 300)]
    )
    assert times(dataset) == (VALID,)
    assert times(dataset, "forecast_reference_time") == (VALID - timedelta(hours=6),)
    assert dataset["z"].attrs["units"] == "m2 s-2"
    assert dataset["level"].attrs["positive"] == "down"


def test_a_time_in_another_zone_is_kept_as_the_same_instant_in_utc(
    description: BundleDescription, ensemble: NDArray[np.float32]
) -> None:
    local = VALID.astimezone(timezone(timedelta(hours=9)))
    assert times(from_array(ensemble, description, local)) == (VALID,)


def test_variables_on_different_levels_keep_their_own(description: BundleDescription) -> None:
    uneven = description.model_copy(
        update={"channels": (Channel("z", 500), Channel("q", 925), Channel("q", 850), Channel("sp"))}
    )
    array = np.arange(4 * 48 * 96, dtype=np.float32).reshape(1, 4, 48, 96)
    dataset = from_array(array, uneven, VALID)
    np.testing.assert_array_equal(to_array(dataset, uneven), array)
    wants_more = uneven.model_copy(update={"channels": (Channel("z", 500), Channel("q", 500), Channel("t2m"))})
    assert missing_channels(dataset, wants_more) == {"q": (500.0,), "t2m": (None,)}
    with pytest.raises(FieldError, match="q at 500 hPa; t2m"):
        to_array(dataset, wants_more)


def test_what_does_not_fit_together_is_refused(description: BundleDescription, ensemble: NDArray[np.float32]) -> None:
    with pytest.raises(FieldError, match="shape"):
        from_array(ensemble[:, 1:], description, VALID)
    with pytest.raises(FieldError, match="base time"):
        from_array(ensemble, description, VALID, base_time=VALID, step_hours=6)
    with pytest.raises(FieldError, match="numbers"):
        from_array(ensemble, description, VALID, numbers=[1, 1, 2])
    dataset = from_array(ensemble, description, VALID)
    with pytest.raises(FieldError, match="grid"):
        to_array(dataset.assign_coords(latitude=dataset["latitude"] + 0.5), description)
    dataset["t"][0, 1, 2, 3, 4] = np.nan
    with pytest.raises(FieldError, match="t700"):
        to_array(dataset, description)
