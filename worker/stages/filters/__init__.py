"""The filters of quality control, in order. Each names its reason; a value keeps the first reason it gets.

A filter is a function of the observed values that tells which of them it rejects; docs/observations.md has formulas.
"""

from service.observations.reasons import Reason
from worker.stages.filters.background import first_guess
from worker.stages.filters.case import Comparison, Filter, Setting, Unchanged, Verdict
from worker.stages.filters.duplicates import duplicate
from worker.stages.filters.neighbours import against_neighbours
from worker.stages.filters.reports import denied, kept_away, monitored, outside_domain, unwanted, withheld
from worker.stages.filters.soundings import hydrostatic, lapse_rate
from worker.stages.filters.stuck import stuck
from worker.stages.filters.thinning import averaged, thinned
from worker.stages.filters.tracks import off_track
from worker.stages.filters.values import (
    impossible_position,
    impossible_time,
    level_inconsistent,
    missing_value,
    out_of_range,
    outside_window,
)
from worker.stages.filters.winds import inconsistent_wind

__all__ = ["FILTERS", "Comparison", "Filter", "Setting", "Unchanged", "Verdict"]

FILTERS: tuple[Filter, ...] = (
    # what a value tells by itself
    Filter("missing value", Reason.MISSING_VALUE, missing_value),
    Filter("position", Reason.POSITION_INVALID, impossible_position),
    Filter("time", Reason.TIME_INVALID, impossible_time),
    Filter("window", Reason.OUTSIDE_WINDOW, outside_window),
    Filter("range", Reason.RANGE, out_of_range),
    Filter("level", Reason.LEVEL_INCONSISTENT, level_inconsistent),
    # which reports are wanted
    Filter("type", Reason.NOT_USED_BY_EXPERIMENT, unwanted),
    Filter("denylist", Reason.DENYLISTED, denied),
    Filter("duplicate", Reason.DUPLICATE, duplicate),
    # what the values of one report or platform tell about each other
    Filter("track", Reason.TRACK, off_track),
    Filter("stuck", Reason.STUCK, stuck),
    Filter("hydrostatic", Reason.HYDROSTATIC, hydrostatic),
    Filter("lapse rate", Reason.LAPSE_RATE, lapse_rate),
    # against the background and the neighbours
    Filter("domain", Reason.OUTSIDE_DOMAIN, outside_domain),
    Filter("gross check", Reason.FIRST_GUESS, first_guess, kept=True),
    Filter("wind", Reason.WIND_INCONSISTENT, inconsistent_wind),
    # what is only compared must not speak about what is used
    Filter("monitored", Reason.PASSIVE, monitored),
    Filter("denial", Reason.DENIED, kept_away),
    Filter("buddy check", Reason.BUDDY, against_neighbours),
    # what is kept back for verification has passed every check, and stands for no other value
    Filter("withheld", Reason.WITHHELD, withheld),
    Filter("thinning", Reason.THINNED, thinned),
    Filter("superob", Reason.SUPEROBBED, averaged),
)
