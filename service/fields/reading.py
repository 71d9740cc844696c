"""Opening of field files, GRIB editions 1 and 2 or netCDF, told apart by their first bytes, not by their names.

These functions read untrusted bytes: the gateway calls them by name through `service.isolation.run_isolated`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import xarray as xr

from service.fields.contract import available_levels, times, utc
from service.fields.errors import FieldError

MAXIMUM_VALUES = 2**27  # 512 MiB of float32: 39 channels of 50 members at one degree
HEADER_BYTES = 1024  # telecommunication headings may precede the first GRIB message
NETCDF_STARTS = (b"CDF\x01", b"CDF\x02", b"CDF\x05", b"\x89HDF\r\n\x1a\n")


@dataclass(frozen=True)
class FieldSummary:
    """What a file of fields holds.

    Attributes:
        format: such as `GRIB2` or `netCDF`.
        products: kinds among analysis, forecast, increment, mean, spread, derived; empty if the file does not say.
        levels: for each variable its levels, hPa from the ground up; (None,) at the surface.
        members: numbers of the members, empty where the file has no ensemble.
        valid_times, base_times: aware; `base_times` empty if the file does not say.
        steps_hours: from base to valid time.
        grids: in words.
        skipped: what else is in the file and is not read.
        fields: number of horizontal fields.
    """

    format: str
    products: tuple[str, ...]
    levels: dict[str, tuple[float | None, ...]]
    members: tuple[int, ...]
    valid_times: tuple[datetime, ...]
    base_times: tuple[datetime, ...]
    steps_hours: tuple[float, ...]
    grids: tuple[str, ...]
    skipped: tuple[str, ...] = field(default=())
    fields: int = 0


def read_fields(path: str | Path, maximum_values: int = MAXIMUM_VALUES) -> xr.Dataset:
    """Read a file of fields into memory: the contract's names, dims and order, in the sender's units and grid.

    Besides the contract's variables it may have `gh` (geopotential height) and `r` (relative humidity). Global
    attributes: product, source_grid, skipped.

    Raises:
        FieldError: not such a file, broken, ambiguous or too large.
    """
    if sniff(path) == "GRIB":
        from service.fields.grib_decoding import read_grib

        return read_grib(path, maximum_values=maximum_values)
    from service.fields.netcdf import read_netcdf

    return read_netcdf(path, maximum_values=maximum_values)


def sniff(path: str | Path) -> Literal["GRIB", "netCDF"]:
    """The format of a file by its first bytes.

    Raises:
        FieldError: neither, or the file cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(HEADER_BYTES)
    except OSError as error:
        raise FieldError(f"{path} cannot be opened: {error}") from error
    if start.startswith(NETCDF_STARTS):
        return "netCDF"
    if b"GRIB" in start:
        return "GRIB"
    raise FieldError(f"this is neither GRIB nor netCDF: it starts with {start[:8]!r}")


def summarise(path: str | Path) -> FieldSummary:
    """Tell variables, levels, members and times of a file; of GRIB without decoding a value.

    Raises:
        FieldError: not a file of fields, or broken.
    """
    return _summary_of_grib(path) if sniff(path) == "GRIB" else _summary_of_netcdf(path)


def _summary_of_grib(path: str | Path) -> FieldSummary:
    from service.fields.grib_decoding import headers

    every = list(headers(path))
    known = [header for header in every if header.variable is not None]
    levels: dict[str, set[float | None]] = {}
    for header in known:
        levels.setdefault(str(header.variable), set()).add(header.level)
    members = {header.number for header in known if header.number is not None}
    steps = {(header.valid_time - header.base_time).total_seconds() / 3600.0 for header in known}
    return FieldSummary(
        format="+".join(sorted({f"GRIB{header.edition}" for header in every})) or "GRIB",
        products=tuple(sorted({header.product for header in known})),
        levels={variable: _from_the_ground(found) for variable, found in levels.items()},
        # edition 1 of ECMWF numbers a single forecast 0
        members=tuple(sorted(members)) if members != {0} else (),
        valid_times=tuple(sorted({utc(header.valid_time) for header in known})),
        base_times=tuple(sorted({utc(header.base_time) for header in known})),
        steps_hours=tuple(sorted(steps)),
        grids=tuple(sorted({header.grid for header in known})),
        skipped=tuple(sorted({header.skipped for header in every if header.variable is None})),
        fields=len(known),
    )


def _summary_of_netcdf(path: str | Path) -> FieldSummary:
    dataset = read_fields(path)
    levels = {str(name): available_levels(dataset, str(name)) for name in dataset.data_vars}
    valid = times(dataset) if "time" in dataset.coords else ()
    base = times(dataset, "forecast_reference_time") if "forecast_reference_time" in dataset.coords else ()
    repeats = dataset.sizes["number"] * max(1, len(valid))
    return FieldSummary(
        format="netCDF",
        products=tuple(filter(None, dataset.attrs["product"].split("+"))),
        levels={name: _from_the_ground(set(found)) for name, found in levels.items()},
        members=tuple(int(number) for number in dataset["number"].to_numpy() if dataset.sizes["number"] > 1),
        valid_times=valid,
        base_times=tuple(sorted(set(base))),
        steps_hours=tuple(sorted({(v - b).total_seconds() / 3600.0 for v, b in zip(valid, base, strict=False)})),
        grids=(dataset.attrs["source_grid"],),
        skipped=tuple(filter(None, dataset.attrs["skipped"].split(", "))),
        fields=sum(len(found) for found in levels.values()) * repeats,
    )


def _from_the_ground(levels: set[float | None]) -> tuple[float | None, ...]:
    return tuple(sorted(levels, key=lambda level: -(level or 0.0)))
