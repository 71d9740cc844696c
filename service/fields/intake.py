"""The check of posted fields against a bundle: every channel present or derivable, the whole globe, one valid time.

Derived are only: levels between two given ones, z from gh, q from r and t. Surface variables are never made up.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from service.fields.contract import available_levels, describe_missing, slices, times, utc
from service.fields.conversion import to_contract
from service.fields.errors import FieldError, Missing
from service.fields.grid import BundleDescription, Channel
from service.fields.regrid import Regridder, hydrostatic_curvature, vertical_weights

WINDS = ("u", "v", "u10", "v10")
# values that no state of the earth's troposphere and lower stratosphere has; beyond them units or names are wrong
PLAUSIBLE = {
    "z": (-15000.0, 500000.0),
    "q": (-0.002, 0.06),
    "u": (-200.0, 200.0),
    "v": (-200.0, 200.0),
    "t": (130.0, 350.0),
    "u10": (-120.0, 120.0),
    "v10": (-120.0, 120.0),
    "t2m": (150.0, 350.0),
    "sp": (30000.0, 115000.0),
}
NOT_STATES = {
    "increment": "analysis increments",
    "spread": "the spread of an ensemble",
    "derived": "statistics of an ensemble",
}


@dataclass(frozen=True)
class _Source:
    """How one channel comes from the file's levels: (upper, lower, weight), None at the surface."""

    channel: Channel
    between: tuple[int, int, float] | None


def validate_and_regrid(
    dataset: xr.Dataset, description: BundleDescription, valid_time: datetime | None = None
) -> tuple[NDArray[np.float32], datetime, list[str]]:
    """Make a state of the bundle from what `read_fields` read, or say why it cannot be one.

    Horizontally bilinear, vertically linear in ln p (z with the hydrostatic correction where t is there too).
    Surface variables are interpolated as they are and thus belong to the sender's orography.

    Args:
        dataset: of the contract, on any global latitude-longitude grid, in any unit that is understood.
        description: the bundle's grid and channels.
        valid_time: picks one of several valid times; gives it to a file that has none.

    Returns:
        The state [number, channel, latitude, longitude] in float32 and SI units; its valid time, aware; notes on
        everything that was changed on the way.

    Raises:
        FieldError: with `missing` filled where channels are missing.
    """
    product = str(dataset.attrs.get("product", ""))
    if product in NOT_STATES:
        raise FieldError(f"the file holds {NOT_STATES[product]}, not a state of the atmosphere")
    dataset, notes = to_contract(dataset)
    sources = _sources(dataset, description)
    several = dataset.sizes.get("time", 1) > 1
    dataset, time = _one_time(dataset, valid_time)
    if several:
        # what is there at one time may be absent at another
        sources = _sources(dataset, description)
    latitudes, longitudes = dataset["latitude"].to_numpy(), dataset["longitude"].to_numpy()
    regridder = Regridder(latitudes, longitudes, description.grid)
    if not regridder.identity:
        notes.append(f"regridded bilinearly from {dataset.attrs.get('source_grid', '?')} to {description.grid.name}")
        if 2 * len(description.grid.latitudes) < len(latitudes):
            notes.append(
                "the file is more than twice as fine as the bundle's grid: small scales are sampled, not averaged"
            )
    notes += _vertical_notes(dataset, sources)
    notes += _forecast_note(dataset, time)

    out = np.empty((dataset.sizes.get("number", 1), *description.shape), dtype=np.float32)
    for index, source in enumerate(sources):
        values = _on_source_grid(dataset, source)
        if not np.isfinite(values).all():
            members = int((~np.isfinite(values).all(axis=(1, 2))).sum())
            raise FieldError(f"{source.channel.name} has missing values (in {members} of {len(values)} members)")
        out[:, index] = regridder(values, vector=source.channel.variable in WINDS)
        _check_plausible(out[:, index], source.channel)
    return out, time, notes


def _sources(dataset: xr.Dataset, description: BundleDescription) -> list[_Source]:
    """For every channel the levels it comes from.

    Raises:
        FieldError: naming all channels that cannot be had, and what the file has instead.
    """
    found = {variable: available_levels(dataset, variable) for variable in description.variables}
    positions = dataset["level"].to_numpy() if "level" in dataset.coords else np.empty(0)
    sources: list[_Source] = []
    missing: Missing = {}
    for channel in description.channels:
        levels = found[channel.variable]
        between = None
        if channel.level is not None:
            given = np.array([level for level in levels if level is not None], dtype=np.float64)
            among = vertical_weights(given, channel.level)
            between = among and (_position(positions, given[among[0]]), _position(positions, given[among[1]]), among[2])
        if between is None and (channel.level is not None or None not in levels):
            missing[channel.variable] = (*missing.get(channel.variable, ()), channel.level)
        sources.append(_Source(channel, between))
    if missing:
        raise FieldError(
            f"the file lacks {describe_missing(missing)}; of these variables it has {_inventory(dataset, missing)}. "
            f"Levels are interpolated only between given ones; surface variables are not derived",
            missing,
        )
    return sources


def _inventory(dataset: xr.Dataset, missing: Missing) -> str:
    present: Missing = {variable: available_levels(dataset, variable) for variable in missing}
    return describe_missing({variable: levels for variable, levels in present.items() if levels}) or "nothing"


def _position(levels: NDArray[np.float64], level: float) -> int:
    return int(np.argmin(np.abs(levels - level)))


def _one_time(dataset: xr.Dataset, wanted: datetime | None) -> tuple[xr.Dataset, datetime]:
    if "time" not in dataset.coords:
        if wanted is None:
            raise FieldError("the file does not say its valid time; add the coordinate time")
        return dataset, utc(wanted)
    available = times(dataset)
    named = ", ".join(f"{time:%Y-%m-%dT%H:%MZ}" for time in available)
    if wanted is None:
        if len(available) != 1:
            raise FieldError(f"the file holds {len(available)} valid times ({named}); send one per file, or name one")
        return dataset, available[0]
    if utc(wanted) not in available:
        raise FieldError(f"the file holds no fields valid at {utc(wanted):%Y-%m-%dT%H:%MZ}, only at {named}")
    return dataset.isel(time=[available.index(utc(wanted))]), utc(wanted)


def _on_source_grid(dataset: xr.Dataset, source: _Source) -> NDArray[np.float64]:
    """[number, latitude, longitude] at the channel's level."""
    variable = source.channel.variable
    if source.between is None:
        return slices(dataset, variable, None).astype(np.float64)
    levels = dataset["level"].to_numpy()
    upper, lower, weight = source.between
    above = slices(dataset, variable, levels[upper]).astype(np.float64)
    if upper == lower:
        return above
    values = (1.0 - weight) * above + weight * slices(dataset, variable, levels[lower])
    if variable == "z" and _has_temperature(dataset, source):
        temperatures = (slices(dataset, "t", levels[level]).astype(np.float64) for level in (upper, lower))
        values = values + hydrostatic_curvature(levels, source.between, *temperatures)
    return values


def _has_temperature(dataset: xr.Dataset, source: _Source) -> bool:
    if source.between is None:
        return False
    levels = dataset["level"].to_numpy()
    return {levels[source.between[0]], levels[source.between[1]]} <= set(available_levels(dataset, "t"))


def _vertical_notes(dataset: xr.Dataset, sources: list[_Source]) -> list[str]:
    levels = dataset["level"].to_numpy() if "level" in dataset.coords else np.empty(0)
    notes = []
    for source in sources:
        if source.between is not None and source.between[0] != source.between[1]:
            upper, lower, _ = source.between
            how = "linearly in ln p"
            if source.channel.variable == "z":
                how += " with" if _has_temperature(dataset, source) else " without"
                how += " the hydrostatic correction"
            notes.append(
                f"{source.channel.name} interpolated {how} between {levels[upper]:g} and {levels[lower]:g} hPa"
            )
    return notes


def _forecast_note(dataset: xr.Dataset, valid: datetime) -> list[str]:
    if "forecast_reference_time" not in dataset.coords:
        return []
    (start,) = times(dataset, "forecast_reference_time")
    hours = (valid - start).total_seconds() / 3600.0
    return [f"a forecast of {hours:g} h from {start:%Y-%m-%dT%H:%MZ}"] if hours else []


def _check_plausible(values: NDArray[np.float32], channel: Channel) -> None:
    """Raise FieldError where units or names must be wrong.

    Geopotential is also held against the International Standard Atmosphere, which tells it from a height.
    """
    low, high = PLAUSIBLE[channel.variable]
    if values.min() < low or values.max() > high:
        raise FieldError(
            f"{channel.name} ranges from {values.min():g} to {values.max():g}, beyond {low:g} to {high:g}: check units"
        )
    if channel.variable == "z" and channel.level is not None:
        mean, standard = float(values.mean()), standard_geopotential(channel.level)
        if abs(mean - standard) > 0.15 * standard + 2500.0:
            raise FieldError(
                f"{channel.name} has the mean {mean:.0f} m2 s-2 where about {standard:.0f} is expected: check that it "
                f"is geopotential and not a height"
            )


def standard_geopotential(level: float) -> float:
    """Geopotential (m2 s-2) of a pressure (hPa) in the International Standard Atmosphere (ISO 2533), to 20 km."""
    gas_constant, gravity, lapse, ground = 287.05287, 9.80665, 0.0065, 288.15
    exponent = gas_constant * lapse / gravity
    tropopause_pressure = 226.32
    if level >= tropopause_pressure:
        return float(ground / lapse * (1.0 - (level / 1013.25) ** exponent) * gravity)
    return float(11000.0 * gravity + gas_constant * 216.65 * np.log(tropopause_pressure / level))
