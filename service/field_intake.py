"""From a posted file of fields to the contract's netCDF on the bundle's grid. Opens untrusted bytes: run it by name
through `service.isolation.run_isolated`; it sees neither catalogue nor settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from service.fields.contract import from_array
from service.fields.grid import BundleDescription
from service.fields.intake import validate_and_regrid
from service.fields.netcdf import write_netcdf
from service.fields.reading import read_fields

FUNCTION = "service.field_intake:take_in"


@dataclass(frozen=True)
class TakenIn:
    """What a file turned out to be."""

    valid_time: datetime
    notes: list[str]


def take_in(path: str, bundle: str, target: str, product: str) -> TakenIn:
    """Read `path`, make it a state of the bundle in the folder `bundle`, write it to `target`.

    Raises:
        FieldError: the file is no field file or does not make a state of the bundle.
    """
    description = BundleDescription.load(bundle)
    state, valid_time, notes = validate_and_regrid(read_fields(path), description)
    write_netcdf(target, from_array(state, description, valid_time), product=product)
    return TakenIn(valid_time, notes)
