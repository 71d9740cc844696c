"""The gateway and what is known and kept: catalogue, archive, observations, fields, scheduling, metrics."""

# ecCodes' wheels bring an SQLite of 2018 that takes the place of the system's for whoever loads sqlite3 after them.
# The catalogue needs RETURNING (SQLite 3.35): so the system's is loaded first, before any module of this package.
import sqlite3 as sqlite3
