"""From BUFR reports to rows: what all kinds of reports have in common."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.observations.checks import RawRows
from service.observations.conversions import wind_components
from service.observations.reasons import Reason

SPEED_OF = {"u": "ws", "u10": "ws10"}

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def rows(
    variable: str, values: Floats, confidence: Floats, shared: dict[str, Any], observed: Bools | None = None
) -> RawRows:
    """One row per observed value; a value that was observed but could not be derived is kept as missing.

    Args:
        values, confidence: [n], SI units and per cent.
        shared: the other columns, each [n] or one for all.
        observed: which were observed [n]; None: those that are not NaN.
    """
    present = ~np.isnan(values) if observed is None else observed
    made = RawRows.empty(int(present.sum()))
    for name, column in shared.items():
        made.columns[name][:] = column[present] if isinstance(column, np.ndarray) else column
    made.columns["variable"][:] = variable
    made.columns["value"] = values[present]
    made.columns["preqc"] = confidence[present]
    if observed is not None:
        underivable = np.isnan(made.columns["value"])
        made.refuse(underivable, Reason.MISSING_VALUE, f"{variable} cannot be derived from what was reported")
    return made


def wind(
    direction: Floats, speed: Floats, confidence: Floats, shared: dict[str, Any], names: tuple[str, str] = ("u", "v")
) -> list[RawRows]:
    """Rows of the components of a wind from `direction` (degrees) with `speed` (m s-1), each [n].

    A speed without a direction is a row of its own.
    """
    speed_only = np.isnan(direction) & ~np.isnan(speed)
    observed = ~(np.isnan(direction) & np.isnan(speed)) & ~speed_only
    with np.errstate(invalid="ignore"):
        possible = ~((direction < 0) | (direction > 360) | (speed < 0))
    components = wind_components(direction, np.where(possible, speed, np.nan))
    return [
        rows(name, np.where(possible, values, np.inf), confidence, shared, observed=observed)
        for name, values in zip(names, components, strict=True)
    ] + [rows(SPEED_OF[names[0]], speed, confidence, shared, observed=speed_only)]


def degrees(angle: Floats) -> Floats:
    """To BUFR's finest step: ecCodes unpacks the South Pole as -90.00000000000001."""
    return np.round(angle, 5)


def refused(reason: Reason, detail: str) -> RawRows:
    """One row that says what could not be read."""
    made = RawRows.empty(1)
    made.refuse(np.ones(1, dtype=np.bool_), reason, detail[:300])
    return made
