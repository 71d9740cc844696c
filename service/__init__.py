"""The gateway and what is known and kept: catalogue, archive, observations, fields, scheduling, metrics."""

# ecCodes' wheels bring libraries of their own that take the place of the system's for whoever is loaded after them: an
# SQLite of 2018, too old for the catalogue (it needs RETURNING, SQLite 3.35), and others with which psycopg crashes
# when the process ends. So both databases' libraries are loaded first, before any module of this package.
import sqlite3 as sqlite3
from contextlib import suppress

with suppress(ImportError):  # the extra `postgres` is not always there
    import psycopg as psycopg
