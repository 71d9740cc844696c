"""`run_isolated`: whatever the called function does, the caller gets its result or a typed error, in bounded time."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from service.isolation import (
    IsolatedFunctionError,
    MemoryLimitExceeded,
    ProcessCrashed,
    TimeLimitExceeded,
    run_isolated,
)
from service.observations.decoders import DecodeError, decode_isolated


@pytest.fixture(autouse=True)
def functions_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)


def call(name: str, *args: object, seconds: float = 10, megabytes: int = 512, wall: float | None = None) -> object:
    return run_isolated(f"isolated_functions:{name}", *args, seconds=seconds, megabytes=megabytes, wall_seconds=wall)


def test_the_result_comes_back() -> None:
    assert call("add", 2, 3) == 5


def test_arrays_tables_and_datasets_come_back_unchanged() -> None:
    array, scalar, table, dataset, when, path = call("everything_a_decoder_returns")  # type: ignore[misc]
    np.testing.assert_array_equal(array, np.arange(6).reshape(2, 3))
    assert scalar == np.float32(1.5) and when == datetime(2000, 1, 1, tzinfo=UTC) and path == Path("/x")
    assert table.to_pydict() == {"a": [1, 2], "b": ["x", None]}
    assert dataset["t"].sel(level=500.0).values.tolist() == [1.0, 3.0]
    assert dataset["time"].values[1] == np.datetime64("2000-01-01T06")
    assert dataset["name"].values.tolist() == ["a", "b"]


def test_a_busy_loop_is_ended_by_its_cpu_limit() -> None:
    started = time.monotonic()
    with pytest.raises(TimeLimitExceeded, match="CPU"):
        call("loop", seconds=1, wall=60)
    assert time.monotonic() - started < 30


def test_a_function_that_waits_is_ended_by_its_wall_limit() -> None:
    started = time.monotonic()
    with pytest.raises(TimeLimitExceeded, match=r"1\.5 s"):
        call("sleep", 600.0, wall=1.5)
    assert time.monotonic() - started < 30


def test_what_the_function_started_is_gone_with_it(tmp_path: Path) -> None:
    with pytest.raises(TimeLimitExceeded):
        call("sleep_behind_a_child", str(tmp_path / "pids"), wall=1.5)
    child, grandchild = map(int, (tmp_path / "pids").read_text().split())
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in (child, grandchild)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child) and not _runs(grandchild)


def test_the_process_dies_with_a_killed_caller(tmp_path: Path) -> None:
    script = (
        "from service.isolation import run_isolated as run;"
        f"run('isolated_functions:sleep_behind_a_child', {str(tmp_path / 'pids')!r}, seconds=60, megabytes=99)"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    caller.kill()
    caller.wait()
    child, grandchild = map(int, (tmp_path / "pids").read_text().split())
    try:
        while _runs(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _runs(child)
    finally:
        os.kill(grandchild, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_too_much_memory_is_a_memory_error_and_less_is_none() -> None:
    assert call("allocate", 100, megabytes=200) == 100 << 20
    with pytest.raises(MemoryLimitExceeded, match="200 MB"):
        call("allocate", 400, megabytes=200)


def test_a_segmentation_fault_is_a_typed_error() -> None:
    with pytest.raises(ProcessCrashed, match="SIGSEGV"):
        call("crash")


def test_leaving_without_a_result_is_a_typed_error() -> None:
    with pytest.raises(ProcessCrashed, match="status 3"):
        call("leave")


def test_the_functions_own_exception_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="the file is odd"):
        call("complain", "the file is odd")


def test_an_exception_comes_back_though_a_library_pickles_exceptions_its_own_way() -> None:
    with pytest.raises(ValueError, match="the file is odd"):
        call("complain_where_exceptions_have_another_reducer", "the file is odd")


def test_an_exception_of_an_unknown_class_is_named() -> None:
    with pytest.raises(IsolatedFunctionError, match="Stranger: of a class that only the child knows"):
        call("complain_strangely")


def test_a_result_that_would_run_code_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsolatedFunctionError, match="not allowed"):
        call("bomb", str(tmp_path / "exploded"))
    assert not (tmp_path / "exploded").exists()


def test_no_socket_is_inherited() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.set_inheritable(True)
        assert call("open_sockets") == []


def namespaces_are_allowed() -> bool:
    return subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not namespaces_are_allowed(), reason="this kernel does not let users make network namespaces")
def test_no_network_is_reached() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        socket.create_connection(server.getsockname(), 5).close()
        assert "unreachable" in str(call("reach", server.getsockname()[1]))


def test_no_secret_of_the_service_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNDA_API_KEYS", "secret-key:writer")
    assert call("environment", "ALIGNDA_API_KEYS") is None
    assert call("environment", "PATH") == os.environ["PATH"]


def test_many_threads_may_call_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: call("add", i, i), range(8))) == [2 * i for i in range(8)]


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    call("add", 1, 1)
    with pytest.raises(ProcessCrashed):
        call("crash")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seconds", "megabytes"), [(0, 10), (1, 0)])
def test_a_limit_that_is_none_is_refused(seconds: float, megabytes: int) -> None:
    with pytest.raises(ValueError, match="limits must be positive"):
        call("add", 1, 1, seconds=seconds, megabytes=megabytes)


def test_a_decoders_error_crosses_the_process_border(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("this is text, not Parquet")
    with pytest.raises(DecodeError, match="not Parquet"):
        decode_isolated(tmp_path / "x", "application/vnd.apache.parquet", "test", datetime.now(UTC))


def test_a_decoded_batch_crosses_the_process_border(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(
        '[{"time": "2020-01-01T00:00Z", "latitude": 50, "longitude": 5, "variable": "sp", "value": 1e5, "type": "synop"},'
        ' {"time": "2020-01-01T00:00Z", "latitude": 50, "longitude": 5, "variable": "sp", "value": 1, "type": "synop"}]'
    )
    batch = decode_isolated(tmp_path / "x", "application/json", "test", datetime.now(UTC))
    assert (batch.table.num_rows, batch.counts) == (1, {"RANGE": 1})
