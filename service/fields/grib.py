"""GRIB edition 2: states, increments, members, means and spreads, written field by field with ecCodes.

WMO Manual on Codes 306, volume I.2; code tables are named where they are used.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import eccodes
import numpy as np
from numpy.typing import NDArray

from service.fields.atomic import written_whole
from service.fields.contract import utc
from service.fields.errors import FieldError
from service.fields.grid import BundleDescription, Channel, Grid
from service.fields.intake import validate_and_regrid
from service.fields.reading import read_fields, summarise

__all__ = ["Packing", "Product", "read_fields", "summarise", "validate_and_regrid", "write_grib"]

Product = Literal["analysis", "forecast", "increment", "mean", "spread", "members"]
Packing = Literal["ccsds", "simple"]

CENTRE = 255  # common code table C-11, missing: no originating centre is claimed
TABLES_VERSION = 32  # master tables of 30 November 2023
BITS = 16
SURFACE_LEVELS = {  # ECMWF short name, type of level (4.5), its value
    "u10": ("10u", "heightAboveGround", 10),
    "v10": ("10v", "heightAboveGround", 10),
    "t2m": ("2t", "heightAboveGround", 2),
    "sp": ("sp", "surface", 0),
}


@dataclass(frozen=True)
class _Definition:
    """How a product is told apart: template (4.0), processed data (1.4), generating process (4.3), derived (4.7)."""

    template: int
    processed: int
    process: int
    derived: int | None = None


def _definition(product: Product, step_hours: int) -> _Definition:
    """Statistics and members of step 0 are of analyses.

    An increment carries the generating process 20, analysis increment, and a missing type of processed data, so
    that a reader who looks only at ecCodes' `dataType` does not find an analysis (`an`) either.
    """
    ahead = step_hours > 0
    definitions = {
        "analysis": _Definition(template=0, processed=0, process=0),
        "forecast": _Definition(template=0, processed=1, process=2),
        "increment": _Definition(template=0, processed=255, process=20),
        "members": _Definition(template=1, processed=4 if ahead else 0, process=4 if ahead else 0),
        "mean": _Definition(template=2, processed=1 if ahead else 0, process=4 if ahead else 0, derived=0),
        "spread": _Definition(template=2, processed=1 if ahead else 0, process=4 if ahead else 0, derived=4),
    }
    return definitions[product]


def write_grib(
    path: str | Path,
    array: NDArray[np.floating[Any]],
    description: BundleDescription,
    *,
    base_time: datetime,
    step_hours: int,
    product: Product,
    members_total: int | None = None,
    first_member: int = 1,
    packing: Packing = "ccsds",
) -> None:
    """Write one GRIB2 message per member and channel; the file appears whole or not at all.

    Values are packed with 16 bits: the largest error is half of a step, which is at most the range of the field
    divided by 32768.

    Args:
        array: [number, channel, latitude, longitude], SI units (z in m2 s-2), channels in the order of the bundle.
        base_time: of the analysis that the forecast starts from; whole minutes; naive means UTC.
        step_hours: whole hours from there to the valid time, 0 for an analysis or an increment.
        product: `members` numbers the first axis from `first_member`; all others have one entry there.
        members_total: size of the ensemble; needed for `mean` and `spread`, by default that of `members`.
        packing: `ccsds` (template 5.42, about a third smaller) or `simple` (5.0, which every reader knows).

    Raises:
        FieldError: a value is not finite (GRIB would pack it as a plausible number), or shape, times, product or
            member numbers contradict each other.
    """
    total = _checked(array, description, base_time, step_hours, product, members_total, first_member, packing)
    handles: list[int] = []
    template = _template(description.grid, utc(base_time), step_hours, _definition(product, step_hours), total)
    try:
        for channel in description.channels:
            handles.append(_for_channel(template, channel, packing))
        with written_whole(path) as partial, open(partial, "wb") as file:
            for member, state in enumerate(array, start=first_member):
                for handle, values in zip(handles, state, strict=True):
                    _write_field(file, handle, values, member if product == "members" else None)
            file.flush()
    finally:
        for handle in (template, *handles):
            eccodes.codes_release(handle)


def _checked(
    array: NDArray[np.floating[Any]],
    description: BundleDescription,
    base_time: datetime,
    step_hours: int,
    product: Product,
    members_total: int | None,
    first_member: int,
    packing: Packing,
) -> int | None:
    """The size of the ensemble (None for a single state), after all that can be refused was checked."""
    if product not in get_args(Product) or packing not in get_args(Packing):
        raise FieldError(f"unknown product {product!r} or packing {packing!r}")
    if array.ndim != 4 or array.shape[1:] != description.shape or not array.shape[0]:
        raise FieldError(f"expected [number, {', '.join(map(str, description.shape))}], got {list(array.shape)}")
    if product != "members" and array.shape[0] != 1:
        raise FieldError(f"the product {product} is one state, not {array.shape[0]}; write `members` or their mean")
    if step_hours < 0 or step_hours != int(step_hours):
        raise FieldError(f"the step must be whole hours from 0, not {step_hours}")
    if product in ("analysis", "increment") and step_hours:
        raise FieldError(f"the product {product} has step 0, not {step_hours} h")
    if base_time.second or base_time.microsecond:
        raise FieldError(f"the base time must be a whole minute, not {base_time.isoformat()}")
    total = members_total
    if product == "members":
        total = members_total or array.shape[0] + first_member - 1
        if first_member < 1 or first_member + array.shape[0] - 1 > total or total > 254:
            raise FieldError(
                f"members {first_member} to {first_member + array.shape[0] - 1} do not fit into an ensemble of {total}"
            )
    elif product in ("mean", "spread") and not 1 <= (members_total or 0) <= 254:
        raise FieldError(f"the product {product} needs the size of its ensemble, 1 to 254")
    finite = np.isfinite(array).all(axis=(2, 3))
    if not finite.all():
        member, index = np.argwhere(~finite)[0]
        raise FieldError(f"{description.channels[index].name} of member {member + 1} holds values that are not finite")
    return total


def _template(grid: Grid, base_time: datetime, step_hours: int, definition: _Definition, total: int | None) -> int:
    """A handle with all but channel, member and values. The order of the keys matters to ecCodes."""
    handle: int = eccodes.codes_grib_new_from_samples(f"{grid.kind}_pl_grib2")
    for key, value in (
        ("centre", CENTRE),
        ("tablesVersion", TABLES_VERSION),
        ("productDefinitionTemplateNumber", definition.template),
        ("dataDate", int(f"{base_time:%Y%m%d}")),
        ("dataTime", int(f"{base_time:%H%M}")),
        ("stepUnits", "h"),
        ("step", int(step_hours)),
        ("typeOfProcessedData", definition.processed),
        ("typeOfGeneratingProcess", definition.process),
        ("generatingProcessIdentifier", 255),
    ):
        eccodes.codes_set(handle, key, value)
    if definition.template == 1:
        # table 4.6, missing, as ECMWF has it: the members are alike, none is a control
        eccodes.codes_set(handle, "typeOfEnsembleForecast", 255)
        eccodes.codes_set(handle, "perturbationNumber", 1)
    if definition.derived is not None:
        eccodes.codes_set(handle, "derivedForecast", definition.derived)
    if definition.template in (1, 2):
        eccodes.codes_set(handle, "numberOfForecastsInEnsemble", total)
    rows, columns = grid.shape
    spacing = 360.0 / columns
    eccodes.codes_set(handle, "Ni", columns)
    eccodes.codes_set(handle, "Nj", rows)
    if grid.kind == "regular_gg":
        eccodes.codes_set(handle, "N", rows // 2)
    else:
        step = (grid.latitudes[0] - grid.latitudes[-1]) / (rows - 1)
        eccodes.codes_set(handle, "jDirectionIncrementInDegrees", step)
    eccodes.codes_set(handle, "latitudeOfFirstGridPointInDegrees", grid.latitudes[0])
    eccodes.codes_set(handle, "latitudeOfLastGridPointInDegrees", grid.latitudes[-1])
    eccodes.codes_set(handle, "longitudeOfFirstGridPointInDegrees", 0.0)
    eccodes.codes_set(handle, "longitudeOfLastGridPointInDegrees", 360.0 - spacing)
    eccodes.codes_set(handle, "iDirectionIncrementInDegrees", spacing)
    return handle


def _for_channel(template: int, channel: Channel, packing: Packing) -> int:
    """A clone for one channel, ready for values."""
    handle: int = eccodes.codes_clone(template)
    if channel.level is None:
        name, level_type, level = SURFACE_LEVELS[channel.variable]
    else:
        name, level_type, level = channel.variable, "isobaricInhPa", int(channel.level)
        if level != channel.level:
            raise FieldError(f"GRIB products need levels of whole hPa, not {channel.level}")
    eccodes.codes_set(handle, "shortName", name)
    eccodes.codes_set(handle, "typeOfLevel", level_type)
    if level_type != "surface":
        eccodes.codes_set(handle, "level", level)
    eccodes.codes_set(handle, "bitmapPresent", 0)
    eccodes.codes_set(handle, "packingType", f"grid_{packing}")
    return handle


def _write_field(file: Any, channel_handle: int, values: NDArray[np.floating[Any]], member: int | None) -> None:
    """Pack into a fresh clone: a handle that has held a constant field would keep its zero bits."""
    handle = eccodes.codes_clone(channel_handle)
    try:
        if member is not None:
            eccodes.codes_set(handle, "perturbationNumber", member)
        eccodes.codes_set(handle, "bitsPerValue", BITS)
        eccodes.codes_set_values(handle, np.ascontiguousarray(values, dtype=np.float64).ravel())
        eccodes.codes_write(handle, file)
    except eccodes.CodesInternalError as error:
        name = eccodes.codes_get(channel_handle, "shortName")
        raise FieldError(f"{name} from {values.min():g} to {values.max():g} cannot be packed: {error}") from error
    finally:
        eccodes.codes_release(handle)
