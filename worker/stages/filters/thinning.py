"""Fewer values where there are more than the analysis can use: thinning and superobbing in boxes of space and time.

Bands of latitude `distance_km` high, cut into boxes as wide; layers of `depth` in ln p; slots of `hours`.
"""

import numpy as np

from service.observations.configuration import Thinning
from worker.stages.filters.case import Comparison, Setting, Verdict
from worker.stages.filters.tracks import EARTH_RADIUS, unit_vectors
from worker.stages.observed import Bools, Doubles, Integers, Observed


def thinned(observed: Observed, _: Comparison, setting: Setting) -> Bools:
    """All of a box but the report nearest to the analysis time, of equals the one nearest to the box's middle."""
    out = np.zeros(len(observed), bool)
    for kind, _entry, rows in setting.entries(observed):
        if kind.thinning.method == "thin":
            box, off_centre = boxes(observed, rows, kind.thinning, setting)
            late = np.abs(observed.hours_from(setting.valid_time)[rows])
            order = np.lexsort((rows, off_centre, late, box))
            out[rows[order[1:]]] = box[order][1:] == box[order][:-1]
    return out


def averaged(observed: Observed, _: Comparison, setting: Setting) -> Verdict:
    """The values that a superob stands for: all of a box with `fewest` or more (how many there are)."""
    out = np.zeros(len(observed), bool)
    number, limit = np.full(len(observed), np.nan), np.full(len(observed), np.nan)
    for kind, _entry, rows in setting.entries(observed):
        if kind.thinning.method == "superob":
            box, _off_centre = boxes(observed, rows, kind.thinning, setting)
            number[rows], limit[rows] = np.bincount(box)[box], kind.thinning.fewest
            out[rows] = number[rows] >= kind.thinning.fewest
    return Verdict(out, number, limit)


def boxes(observed: Observed, rows: Integers, thinning: Thinning, setting: Setting) -> tuple[Integers, Doubles]:
    """The number of the box of each of `rows`, from 0, and how far from its middle it is (in boxes): [m], [m]."""
    latitude, longitude = observed.number("latitude")[rows], observed.number("longitude")[rows]
    height = np.rad2deg(thinning.distance_km / EARTH_RADIUS)
    y = (latitude + 90.0) / height
    middle = np.deg2rad((np.floor(y) + 0.5) * height - 90.0)
    around = np.maximum(1.0, np.floor(360.0 * np.maximum(np.cos(middle), 0.0) / height))
    x = (longitude % 360.0) / 360.0 * around
    ln_p = np.log(observed.pressure[rows])
    z = np.where(np.isfinite(ln_p), ln_p, 0.0) / thinning.depth
    # a slot is centred on the analysis time
    slot = np.floor(observed.hours_from(setting.valid_time)[rows] / thinning.hours + 0.5)
    keys = np.column_stack([np.floor(y), np.floor(x) % around, np.floor(z), slot])
    _boxes, number = np.unique(keys, axis=0, return_inverse=True)
    off = np.hypot(y - np.floor(y) - 0.5, x - np.floor(x) - 0.5)
    return number.ravel().astype(np.int64), np.asarray(off)


class Superobs:
    """The averages of the boxes: `first` [k] names a row that lends its names; the rest are means over the box [k]."""

    def __init__(self, observed: Observed, comparison: Comparison, setting: Setting) -> None:
        """`observed`: exactly the values that `averaged` has taken out."""
        box, rho = np.full(len(observed), -1, np.int64), np.zeros(len(observed))
        offset = 0
        for kind, _entry, rows in setting.entries(observed):
            number, _off_centre = boxes(observed, rows, kind.thinning, setting)
            box[rows] = number + offset
            rho[rows] = kind.thinning.correlation
            offset += int(number.max()) + 1
        self.count = np.bincount(box)
        self.first = np.unique(box, return_index=True)[1]
        self.box = box
        share = 1.0 / self.count + rho[self.first] * (1.0 - 1.0 / self.count)
        self.error = np.sqrt(self.mean(observed.error**2) * share)
        self.value, self.background = self.mean(observed.value), self.mean(comparison.background)
        place = unit_vectors(observed.number("latitude"), observed.number("longitude"))
        mean = np.column_stack([self.mean(part) for part in place.T])
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        self.latitude = np.rad2deg(np.arcsin(np.clip(mean[:, 2], -1, 1)))
        self.longitude = np.rad2deg(np.arctan2(mean[:, 1], mean[:, 0]))
        self.pressure = np.exp(self.mean(np.log(observed.number("pressure"))))
        self.height = self.mean(observed.number("height"))
        self.pressure_top = np.exp(self.mean(np.log(observed.number("pressure_top"))))
        time = observed.microseconds()
        start = int(time.min())
        self.time = np.round(self.mean((time - start).astype(float))).astype(np.int64) + start
        self.received = np.full(len(self.count), np.iinfo(np.int64).min)
        np.maximum.at(self.received, box, observed.microseconds("receipt_time"))

    def mean(self, values: Doubles) -> Doubles:
        """Over each box [k]."""
        return np.asarray(np.bincount(self.box, values) / self.count)
