"""Constants of the Earth and of dry air, in SI units."""

EARTH_RADIUS = 6.371229e6  # m, the sphere of GRIB2 code table 3.2 value 6
OMEGA = 7.292115e-5  # s-1
GAS_CONSTANT = 287.0597  # J kg-1 K-1, dry air
