"""The inner side of `service.isolation`: limits itself, calls the function, leaves the result in the folder.

What comes back was made by a process that read untrusted bytes, so it is unpickled with an allow-list of classes.
"""

import ctypes
import importlib
import io
import math
import os
import pickle
import resource
import signal
import sys
from pathlib import Path
from typing import Any

_REQUEST, _RESULT = "request", "result"
_LARGEST_RESULT = 4 << 30  # bytes
_OPEN_FILES = 1024
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def store_request(
    folder: Path, function_path: str, args: tuple[object, ...], seconds: float, megabytes: int, wall: float
) -> None:
    """Leave a call for `serve` in `folder`."""
    (folder / _REQUEST).write_bytes(pickle.dumps((function_path, args, seconds, megabytes, wall)))


def serve() -> None:
    """Run the call in the folder named by argv[1]; argv[2] is the process that waits for it."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    _leave_the_network()  # before the next line: new credentials would undo it
    _die_with(parent)
    function_path, args, seconds, megabytes, wall = pickle.loads((folder / _REQUEST).read_bytes())
    module, _, function_name = function_path.partition(":")
    function = getattr(importlib.import_module(module), function_name)
    _limit(seconds, megabytes, wall)
    try:
        outcome: tuple[str, Any] = ("result", function(*args))
    except MemoryError:
        outcome = ("memory", None)
    except Exception as error:  # noqa: BLE001  whatever it is belongs to the caller, across the border
        outcome = ("raised", error) if _crosses(type(error)) else ("failed", f"{type(error).__name__}: {error}")
    try:
        _store(folder, outcome)
    except MemoryError:
        _store(folder, ("memory", None))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        _store(folder, ("failed", f"cannot be returned: {outcome[1]!r:.300} ({error})"))
    # libraries may hang or crash in their own clean-up, after the result is safe
    sys.stderr.flush()
    os._exit(0)


def load_result(folder: Path) -> tuple[str, Any] | None:
    """What `serve` left in `folder`: ("result", value), ("raised", exception), ("memory", None), ("failed", text)."""
    path = folder / _RESULT
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            kind, content = _Unpickler(file).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError, ValueError) as error:
        return "failed", f"its result cannot be read: {error}"
    return str(kind), content


def _leave_the_network() -> None:
    """Move into an empty network namespace: at once as root, else by a user namespace where the kernel lets users."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)  # refused by some kernels and containers: then as before
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        # the signal comes when the waiting thread ends, which it does not before this process has
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _limit(seconds: float, megabytes: int, wall: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, _LARGEST_RESULT)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + (megabytes << 20))
    signal.setitimer(signal.ITIMER_REAL, wall)


def _lower(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (limit, limit))


def _store(folder: Path, outcome: tuple[str, Any]) -> None:
    partial = folder / f"{_RESULT}.partial"
    with partial.open("wb") as file:
        _Pickler(file, protocol=5).dump(outcome)
    partial.rename(folder / _RESULT)


def _crosses(kind: type) -> bool:
    return kind.__module__ == "builtins" or kind.__module__.split(".")[0] == "service"


class _Pickler(pickle.Pickler):
    """Pickles Arrow tables as Arrow IPC streams, which carry data and no code, and exceptions as themselves."""

    def reducer_override(self, value: object) -> Any:
        kind = type(value)
        if isinstance(value, BaseException):
            # a library in this process may have registered another way (dask does where tblib is installed)
            return value.__reduce__()
        if kind.__name__ == "Table" and kind.__module__ == "pyarrow.lib":
            import pyarrow as pa

            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, value.schema) as writer:  # type: ignore[attr-defined]
                writer.write_table(value)
            return table_from_stream, (sink.getvalue(),)
        return NotImplemented


def table_from_stream(stream: bytes) -> Any:
    """The Arrow table in an IPC stream."""
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()


class _Unpickler(pickle.Unpickler):
    """Loads data, and classes of the packages that results are made of; no other function can be called."""

    _PACKAGES = frozenset({"service", "datetime", "pathlib", "collections", "xarray", "pandas"})
    _BUILTINS = frozenset(
        {"list", "dict", "set", "frozenset", "tuple", "bytearray", "complex", "slice", "range", "object"}
    )
    _FUNCTIONS = frozenset(
        {
            ("service.isolation_child", "table_from_stream"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("pandas", "_new_Index"),
            ("pandas.core.indexes.base", "_new_Index"),
            ("pandas.core.indexes.datetimes", "_new_DatetimeIndex"),
            ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
            ("copyreg", "_reconstructor"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if "." not in name:
            if (module, name) in self._FUNCTIONS:
                return super().find_class(module, name)
            found = getattr(importlib.import_module(module), name, None) if self._trusted(module) else None
            if module == "builtins" and name not in self._BUILTINS:
                found = found if isinstance(found, type) and issubclass(found, BaseException) else None
            if isinstance(found, type):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a result")

    def _trusted(self, module: str) -> bool:
        return module == "builtins" or module.split(".")[0] in self._PACKAGES
