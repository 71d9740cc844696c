"""Gridded states: what a field is, GRIB2 and netCDF in and out, regridding, the check of posted backgrounds."""
