"""What test_isolation.py calls in the other process; importable there by name."""

import copyreg
import ctypes
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def add(a: int, b: int) -> int:
    return a + b


def everything_a_decoder_returns() -> tuple[Any, ...]:
    import numpy as np
    import pyarrow as pa
    import xarray as xr

    times = np.array(["2000-01-01T00", "2000-01-01T06"], dtype="datetime64[ns]")
    dataset = xr.Dataset(
        {"t": (("time", "level"), np.arange(4.0, dtype=np.float32).reshape(2, 2))},
        coords={"time": times, "level": [850.0, 500.0], "name": ("level", ["a", "b"])},
        attrs={"Conventions": "CF-1.11"},
    )
    table = pa.table({"a": [1, 2], "b": pa.array(["x", None]).dictionary_encode()})
    return np.arange(6).reshape(2, 3), np.float32(1.5), table, dataset, datetime(2000, 1, 1, tzinfo=UTC), Path("/x")


def loop() -> None:
    while True:
        pass


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def sleep_behind_a_child(path: str) -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
    Path(path).write_text(f"{os.getpid()} {pid}")
    time.sleep(600)


def allocate(megabytes: int) -> int:
    block = bytearray(megabytes << 20)
    return len(block)


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(3)


def complain(text: str) -> None:
    raise ValueError(text)


def complain_where_exceptions_have_another_reducer(text: str) -> None:
    """As where a library has registered one (tblib does, for the whole process)."""
    copyreg.pickle(ValueError, lambda error: (complain, (text,)))
    raise ValueError(text)


class Stranger(Exception):
    pass


def complain_strangely() -> None:
    raise Stranger("of a class that only the child knows")


@dataclass
class Bomb:
    path: str

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def bomb(path: str) -> Bomb:
    return Bomb(path)


def open_sockets() -> list[str]:
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return [link for link in links if link.startswith("socket:")]


def environment(name: str) -> str | None:
    return os.environ.get(name)


def reach(port: int) -> str:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError as error:
        return type(error).__name__ + f": {error}"
    return "reached"
