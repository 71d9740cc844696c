"""Broken, mislabelled, huge and malicious files: a clear answer in bounded time and memory, and nothing good lost.

The fuzz test runs for some seconds; FUZZ_SECONDS=600 makes it run longer, FUZZ_FILES=folder adds files.
"""

import contextlib
import gzip
import json
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import h5py
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.isolation import MemoryLimitExceeded, TimeLimitExceeded
from service.observations.decoders import DecodeError, UnsupportedFormat, decode, decode_isolated
from service.observations.encode_ioda import write_ioda

DATA = Path(__file__).parents[2] / "data"
RECEIVED = datetime(2020, 1, 1, tzinfo=UTC)
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "12"))
FUZZ_FILES = os.environ.get("FUZZ_FILES")
EXAMPLE_SECONDS = 10
OK, REFUSED, OUT_OF_BOUNDS, UNEXPECTED = 0, 1, 2, 3


def messages(name: str, count: int) -> bytes:
    data, end = (DATA / name).read_bytes(), 0
    for _ in range(count):
        start = data.index(b"BUFR", end)
        end = start + int.from_bytes(data[start + 4 : start + 7], "big")
    return data[:end]


@cache
def seeds() -> list[bytes]:
    """Small whole files of every format; the real ones in the repository where there are some."""
    import tempfile

    table = decode(DATA / "aircraft_20090123T12.bufr", None, "gts", RECEIVED).table.slice(0, 60)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ioda(table, folder / "x.nc")
        pq.write_table(table, folder / "x.parquet")
        written = [(folder / file).read_bytes() for file in ("x.nc", "x.parquet")]
    names = ["time", "latitude", "longitude", "pressure", "variable", "value", "type", "station"]
    rows = [{k: v.isoformat() if k == "time" else v for k, v in row.items()} for row in table.select(names).to_pylist()]
    as_json = json.dumps(rows).encode()
    as_csv = "\n".join([",".join(names), *(",".join(map(str, row.values())) for row in rows)]).encode()
    real = [messages("temp_20081208T12.bufr", 3), messages("aircraft_20090123T12.bufr", 40),
            (DATA / "ecmwf_feedback.odb").read_bytes()]  # fmt: skip
    more = [path.read_bytes() for path in sorted(Path(FUZZ_FILES).iterdir())] if FUZZ_FILES else []
    return [*real, *written, as_json, as_csv, *more]


def outcome(path: Path) -> int:
    """What becomes of `decode` in a fork with limits: one of the four above, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = UNEXPECTED
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            # the default action: a handler of Python's would wait for a C library that loops
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(EXAMPLE_SECONDS)
            try:
                batch = decode(path, None, "fuzz", RECEIVED)
                assert np.isfinite(batch.table.column("value").to_numpy()).all()
                assert batch.rejected.num_rows == sum(batch.counts.values())
                status = OK
            except DecodeError:
                status = REFUSED
            except MemoryError:
                status = OUT_OF_BOUNDS
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@st.composite
def damage(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "write", "cut", "insert", "repeat", "zeros", "ones"]))
        size = draw(st.integers(1, 64))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            data[at : at + 4] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "cut":
            del data[at : at + draw(st.sampled_from([size, len(data)]))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "repeat":
            data[at:at] = data[at : at + size]
        else:
            data[at : at + size] = (b"\x00" if kind == "zeros" else b"\xff") * size
    return bytes(data)


@pytest.mark.slow
def test_no_mutation_of_a_file_does_more_than_be_refused(tmp_path: Path) -> None:
    found: Counter[int] = Counter()
    seeds()  # made before the clock starts
    until = time.monotonic() + FUZZ_SECONDS

    @settings(max_examples=int(FUZZ_SECONDS * 40), deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(damage())
    def fuzz(data: bytes) -> None:
        if time.monotonic() > until:
            return
        (tmp_path / "x").write_bytes(data)
        result = outcome(tmp_path / "x")
        found[result] += 1
        # the HDF5 and ecCodes libraries may die of damaged bytes or loop; that is what the process is for
        if result not in (OK, REFUSED, OUT_OF_BOUNDS, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGALRM):
            (tmp_path / "failed").write_bytes(data)
            raise AssertionError(f"outcome {result} for {data[:16]!r}..., kept as {tmp_path / 'failed'}")

    fuzz()
    print(dict(found))
    died = sum(n for code, n in found.items() if code < 0)
    assert found[OK] + found[REFUSED] > 0 and died <= 1 + 0.02 * sum(found.values())


def test_every_good_message_around_a_bad_one_is_kept(tmp_path: Path) -> None:
    one = messages("temp_20081208T12.bufr", 1)
    rubbish = np.random.default_rng(0).bytes(5000)
    bad = bytearray(one)
    bad[60:90] = b"\xff" * 30
    (tmp_path / "x").write_bytes(one + rubbish + bytes(bad) + one + one[:-50])
    batch = decode_isolated(tmp_path / "x", "application/bufr", "gts", RECEIVED, seconds=30)
    (tmp_path / "y").write_bytes(one)
    alone = decode_isolated(tmp_path / "y", "application/bufr", "gts", RECEIVED, seconds=30)
    ids = batch.table.column("id").to_pylist()
    assert all(ids.count(name) >= 2 for name in alone.table.column("id").to_pylist())
    assert any("cut off" in str(detail) for detail in batch.rejected.column("detail").to_pylist())


@pytest.mark.parametrize("name", ["x.gz", "x.zip", "x.png", "noise"])
def test_what_is_no_observation_file_is_unsupported(tmp_path: Path, name: str) -> None:
    bodies = {"x.gz": gzip.compress(bytes(10 << 20)), "x.zip": b"PK\x03\x04" + bytes(100), "x.png": b"\x89PNG\r\n\x1a\n",
              "noise": np.random.default_rng(1).bytes(10_000)}  # fmt: skip
    (tmp_path / name).write_bytes(bodies[name])
    with pytest.raises(UnsupportedFormat):
        decode(tmp_path / name, None, "feed", RECEIVED)


@pytest.mark.parametrize("label", ["application/json", "text/csv", "application/bufr", "application/x-odb"])
def test_a_mislabelled_file_is_told_what_it_looks_like(tmp_path: Path, label: str) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x")
    with pytest.raises(DecodeError, match="look like Parquet"):
        decode(tmp_path / "x", label, "feed", RECEIVED)


def test_an_hdf5_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in ("latitude", "longitude", "pressure"):
            file.create_dataset(f"MetaData/{name}", (2_000_000_000,), "f4", chunks=(1 << 20,), compression="gzip")
        file.create_dataset("ObsValue/airTemperature", (2_000_000_000,), "f4", chunks=(1 << 20,), compression="gzip")
    assert (tmp_path / "x.h5").stat().st_size < 1 << 20
    with pytest.raises(DecodeError, match="locations are more than"):
        decode_isolated(tmp_path / "x.h5", None, "feed", RECEIVED, seconds=20, megabytes=1024)


def test_a_file_over_which_a_library_loops_for_ever_is_ended() -> None:
    # found by the fuzz test
    with pytest.raises((TimeLimitExceeded, DecodeError)):
        decode_isolated(DATA / "looping_ioda.h5", None, "feed", RECEIVED, seconds=2, megabytes=1024)


def test_a_parquet_bomb_meets_the_memory_limit(tmp_path: Path) -> None:
    n = 15_000_000
    columns = {name: pa.array(np.zeros(n)) for name in ("latitude", "longitude", "value", "pressure")}
    columns["time"] = pa.array(np.zeros(n, dtype="datetime64[us]"))
    for name in ("variable", "type"):
        columns[name] = pa.DictionaryArray.from_arrays(np.zeros(n, np.int8), ["t"])
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 1 << 20
    with pytest.raises((MemoryLimitExceeded, TimeLimitExceeded)):
        decode_isolated(tmp_path / "x.parquet", None, "feed", RECEIVED, seconds=20, megabytes=600)


def test_a_bufr_message_cannot_ask_for_endless_repetitions(tmp_path: Path) -> None:
    from service.observations.decoders.bufr_frame import Frame

    # a delayed replication of 65535 x 65535 elements in a message of a hundred bytes
    short = bytearray(Frame.without_data((0, 37, 0, 98, 0), (103000, 31002, 101000, 31002, 12101)))
    body = bytes(short[:-12]) + (104).to_bytes(3, "big") + b"\x00" + b"\xff\xfe" * 50 + b"7777"
    message = b"BUFR" + len(body).to_bytes(3, "big") + body[7:]
    (tmp_path / "x").write_bytes(message)
    started = time.monotonic()
    with pytest.raises(DecodeError):
        decode_isolated(tmp_path / "x", "application/bufr", "feed", RECEIVED, seconds=20, megabytes=1024)
    assert time.monotonic() - started < 60


def hostile() -> Iterator[tuple[str, bytes, str]]:
    one = messages("temp_20081208T12.bufr", 1)
    yield "cut", one[:-10], "application/bufr"
    yield "noise", np.random.default_rng(2).bytes(2000), "application/octet-stream"
    yield "mislabelled", one, "application/json"
    yield "deep", b"[" * 100_000, "application/json"
    yield "hdf5", b"\x89HDF\r\n\x1a\n" + bytes(500), "application/x-hdf5"
    yield "odb", b"\xff\xffODA" + bytes(500), "application/x-odb"


def test_the_gateway_answers_each_with_a_problem_and_goes_on(client: httpx.Client) -> None:
    for name, body, label in hostile():
        answer = client.post("/v1/observations", content=body, headers={"Content-Type": label, "X-Source": "feed"})
        assert answer.status_code in (415, 422), name
        assert answer.headers["content-type"] == "application/problem+json" and len(answer.json()["detail"]) > 20
    good = messages("temp_20081208T12.bufr", 1)
    answer = client.post(
        "/v1/observations", content=good + good[:-9], headers={"Content-Type": "application/bufr", "X-Source": "feed"}
    )
    assert answer.status_code == 201 and answer.json()["received"] > answer.json()["rejected"] >= 1
