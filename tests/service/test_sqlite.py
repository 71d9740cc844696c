"""The databases' libraries and ecCodes' live in one process."""

import subprocess
import sys

import pytest

PROGRAM = """
import {first}
from service.catalogue import Catalogue
import eccodes, sqlite3
print(sqlite3.sqlite_version_info >= (3, 35))
Catalogue.open("sqlite:///{path}").ping()
"""


def run(first: str, path: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first, path=path)], capture_output=True, text=True, check=False
    )


def test_any_module_of_the_service_loads_the_systems_sqlite_first(tmp_path: object) -> None:
    done = run("service.fields.grib", f"{tmp_path}/catalogue.sqlite")
    assert done.returncode == 0 and done.stdout.strip() == "True", done.stderr


def test_an_old_sqlite_is_named_instead_of_a_syntax_error(tmp_path: object) -> None:
    done = run("eccodes", f"{tmp_path}/catalogue.sqlite")
    # where the wheel brings no SQLite of its own there is nothing to complain about
    assert done.returncode == 0 or "is too old for the catalogue" in done.stderr, done.stderr


def test_a_process_with_postgresql_and_eccodes_ends_without_a_crash() -> None:
    pytest.importorskip("psycopg")
    program = "import service.fields.grib, eccodes, codc, psycopg"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
