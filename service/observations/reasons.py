"""Why a value was or was not used: one numbered reason per observed value (cf. JCSDA/ufo `QCflags.h`).

Below 10: the value takes part. 10-19: refused for what it is, on arrival or in the cycle. 20-29: for its place in the
cycle. 30-39: in comparison with the background, its neighbours and the rest of its report, or represented by another
value. From 40: by the experiment's configuration.
"""

from enum import IntEnum


class Reason(IntEnum):
    """The story of one observed value, as a number that is stored with it."""

    ASSIMILATED = 0
    PASSIVE = 1
    WITHHELD = 2
    MISSING_VALUE = 10
    POSITION_INVALID = 11
    TIME_INVALID = 12
    RANGE = 13
    UNIT_INVALID = 14
    UNKNOWN_VARIABLE = 15
    SENDER_REJECTED = 16
    OUTSIDE_WINDOW = 20
    DUPLICATE = 21
    OUTSIDE_DOMAIN = 22
    FIRST_GUESS = 30
    THINNED = 31
    SUPEROBBED = 32
    BUDDY = 33
    HYDROSTATIC = 34
    LAPSE_RATE = 35
    WIND_INCONSISTENT = 36
    TRACK = 37
    STUCK = 38
    LEVEL_INCONSISTENT = 39
    NOT_USED_BY_EXPERIMENT = 40
    DENYLISTED = 41
    DENIED = 42


DESCRIPTIONS: dict[Reason, str] = {
    Reason.ASSIMILATED: "used by the analysis",
    Reason.PASSIVE: "compared with the analysis, not used by it",
    Reason.WITHHELD: "kept from the analysis to verify it independently",
    Reason.MISSING_VALUE: "the value, or a part that it is computed from, is missing or cannot be read",
    Reason.POSITION_INVALID: "latitude, longitude, pressure or height is missing or impossible",
    Reason.TIME_INVALID: "the valid time is missing or impossible",
    Reason.RANGE: "the value lies outside what the variable can have on Earth",
    Reason.UNIT_INVALID: "the unit is not one that this variable can be given in",
    Reason.UNKNOWN_VARIABLE: "the variable or the report type is not in the observation table",
    Reason.SENDER_REJECTED: "the sender's own quality mark says that it has no confidence in the value",
    Reason.OUTSIDE_WINDOW: "the valid time lies outside the window of its type",
    Reason.DUPLICATE: "a preferred report tells the same of this station, time, level and variable",
    Reason.OUTSIDE_DOMAIN: "above the top level, below the ground, or its level is not bracketed by the bundle's levels",
    Reason.FIRST_GUESS: "too far from the background (gross check)",
    Reason.THINNED: "a nearer observation represents this place",
    Reason.SUPEROBBED: "averaged with its neighbours into a superob, which takes its place",
    Reason.BUDDY: "contradicts what its neighbours say (buddy check)",
    Reason.HYDROSTATIC: "best explains why heights and temperatures of the sounding do not belong together",
    Reason.LAPSE_RATE: "makes a layer of the sounding less stable than dry adiabatic, or an impossible inversion",
    Reason.WIND_INCONSISTENT: "speed or direction of the whole wind is impossible at its level",
    Reason.TRACK: "the platform cannot have been there at that time",
    Reason.STUCK: "the sensor says the same again and again",
    Reason.LEVEL_INCONSISTENT: "height and pressure do not belong together",
    Reason.NOT_USED_BY_EXPERIMENT: "the experiment does not use this report type or variable",
    Reason.DENYLISTED: "on the denylist of the configuration",
    Reason.DENIED: "kept from this experiment to see what it is worth (data denial)",
}
