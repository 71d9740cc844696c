"""For all tests: what has to be loaded before anything else."""

import service  # noqa: F401  the system's SQLite, before the old one in ecCodes' wheels (see service/__init__.py)
