"""For all tests: what has to be loaded before anything else, in how many processes they run, in which order."""

import os
from collections import Counter
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # The processes share the cores; before torch is loaded, and for the servers that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import service  # noqa: F401  the system's SQLite, before the old one in ecCodes' wheels (see service/__init__.py)

MOST_PROCESSES = 4  # more end no sooner: the longest file, of whole stacks, is not divided


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """The processes of `-n auto`: two at least, as tests also wait. The tests of one file run in this process."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # pytest-xdist takes the number from there
    files = {config.invocation_params.dir / argument.split("::")[0] for argument in config.args}
    if len(files) == 1 and files.pop().is_file():
        return 0
    return min(max(len(os.sched_getaffinity(0)), 2), MOST_PROCESSES)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In several processes: the files with the most slow tests first, whole stacks before all others."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    if twice := [name for name, number in Counter(item.nodeid for item in items).items() if number > 1]:
        raise pytest.UsageError(f"of tests that share an id pytest-xdist would run one: {twice}")
    slow: dict[Path, tuple[int, int]] = {}
    for item in items:
        stacks, others = slow.get(item.path, (0, 0))
        if item.get_closest_marker("slow"):
            if item.get_closest_marker("e2e"):
                stacks += 1
            else:
                others += 1
        slow[item.path] = stacks, others
    items.sort(key=lambda item: slow[item.path], reverse=True)  # stable: the order within a file stays
