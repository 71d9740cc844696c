"""Sender's units and sender's choice of variables, brought to the contract: SI, geopotential, specific humidity."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from service.fields.contract import VARIABLES
from service.fields.errors import FieldError
from service.fields.humidity import specific_humidity

STANDARD_GRAVITY = 9.80665  # m s-2, WMO: geopotential height to geopotential

# by the SI unit of the contract: other spellings and units, with factor and offset to it
UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "m2 s-2": {"m2 s-2": (1.0, 0.0), "m2/s2": (1.0, 0.0), "J kg-1": (1.0, 0.0)},
    "kg kg-1": {"kg kg-1": (1.0, 0.0), "kg/kg": (1.0, 0.0), "1": (1.0, 0.0), "g kg-1": (1e-3, 0.0)},
    "m s-1": {"m s-1": (1.0, 0.0), "m/s": (1.0, 0.0)},
    "K": {"K": (1.0, 0.0), "kelvin": (1.0, 0.0), "degC": (1.0, 273.15), "C": (1.0, 273.15)},
    "Pa": {"Pa": (1.0, 0.0), "hPa": (100.0, 0.0), "mbar": (100.0, 0.0)},
    "m": {"m": (1.0, 0.0), "gpm": (1.0, 0.0)},
    "%": {"%": (1.0, 0.0), "percent": (1.0, 0.0), "1": (100.0, 0.0)},
}
HELPERS = {"gh": "m", "r": "%"}


def to_contract(dataset: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """SI units; z from gh and q from r where z or q are absent. Returns the Dataset and what was done, in words.

    Raises:
        FieldError: a unit that is not understood.
    """
    notes: list[str] = []
    out = dataset.copy()
    for name in map(str, dataset.data_vars):
        out[name], note = _in_si(dataset[name], name)
        notes += note
    if "z" not in out and "gh" in out:
        out["z"] = (out["gh"] * np.float32(STANDARD_GRAVITY)).assign_attrs(VARIABLES["z"])
        notes.append(f"z computed from geopotential height with g = {STANDARD_GRAVITY} m s-2")
    if "q" not in out and "r" in out:
        if "t" not in out:
            raise FieldError(
                "the file has relative humidity r but no temperature t to compute q from; send q, or r and t"
            )
        out["q"] = _humidity(out)
        notes.append("q computed from relative humidity r, taken as the IFS defines it (mixed phase below 0 C)")
    return out.drop_vars([name for name in HELPERS if name in out]), notes


def _in_si(field: xr.DataArray, name: str) -> tuple[xr.DataArray, list[str]]:
    wanted = HELPERS.get(name) or VARIABLES[name]["units"]
    unit = str(field.attrs.get("units", "")).replace("**", "").replace("^", "").strip()
    if not unit:
        return field.assign_attrs(units=wanted), [f"{name} has no unit, taken as {wanted}"]
    known = UNITS[wanted]
    if unit not in known:
        raise FieldError(f"{name} is in {unit!r}; this service understands {', '.join(known)}")
    factor, offset = known[unit]
    if (factor, offset) == (1.0, 0.0):
        return field.assign_attrs(units=wanted), []
    converted = (field * np.float32(factor) + np.float32(offset)).assign_attrs(field.attrs | {"units": wanted})
    return converted, [f"{name} converted from {unit} to {wanted}"]


def _humidity(dataset: xr.Dataset) -> xr.DataArray:
    r, t = dataset["r"], dataset["t"]
    pressure: NDArray[np.float64] = 100.0 * dataset["level"].to_numpy()
    along = [1] * r.ndim
    along[r.dims.index("level")] = -1
    values = specific_humidity(r.to_numpy(), t.transpose(*r.dims).to_numpy(), pressure.reshape(along))
    return r.copy(data=values.astype(np.float32)).assign_attrs(VARIABLES["q"])
