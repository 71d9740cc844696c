"""A client of the gateway over HTTP: what the command line does, callable from Python.

Every method returns the gateway's JSON (see /docs of a running gateway); errors are `GatewayError`.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx

PAGE = 1000  # rows asked for at a time
ENDED = frozenset({"done", "degraded", "failed", "cancelled"})
MEDIA_TYPES = {
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".bufr": "application/bufr",
    ".csv": "text/csv",
    ".grib": "application/octet-stream",
    ".grib2": "application/octet-stream",
    ".nc": "application/octet-stream",
}

Json = dict[str, Any]


class GatewayError(Exception):
    """The gateway refused a request or cannot be reached. `status` is the HTTP status, None when unreachable."""

    def __init__(self, title: str, detail: str, status: int | None = None) -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.title, self.detail, self.status = title, detail, status


class Client:
    """`with Client("http://127.0.0.1:8750") as client: client.post_observations(Path("temp.bufr"), source="gts")`."""

    def __init__(self, url: str = "http://127.0.0.1:8750", api_key: str | None = None, timeout: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # observations and fields in

    def post_observations(
        self,
        content: Path | bytes,
        *,
        source: str,
        media_type: str | None = None,
        receipt_time: datetime | None = None,
    ) -> Json:
        """Post a batch (a file or its bytes). The same bytes again return the same id."""
        headers = {"X-Source": source, "Content-Type": media_type or media_type_of(content)}
        if receipt_time is not None:
            headers["X-Receipt-Time"] = timestamp(receipt_time)
        return self._post_bytes("/v1/observations", content, headers)

    def post_background(
        self, content: Path | bytes, *, experiment: str, lead_hours: int, receipt_time: datetime | None = None
    ) -> Json:
        """Post a GRIB or netCDF background; its valid time is read from the file.

        `receipt_time` says when it was known, for cycles that are run "as of" a time in the past.
        """
        headers = {"Content-Type": "application/octet-stream"}
        if receipt_time is not None:
            headers["X-Receipt-Time"] = timestamp(receipt_time)
        return self._post_bytes(
            "/v1/backgrounds", content, headers, {"experiment": experiment, "lead_hours": lead_hours}
        )

    def post_verification(self, content: Path | bytes) -> Json:
        """Post a GRIB or netCDF verifying analysis (or truth); its valid time is read from the file."""
        return self._post_bytes("/v1/verifications", content, {"Content-Type": "application/octet-stream"})

    def batches(self) -> list[Json]:
        return self._list("/v1/observations/batches")

    def observations(self, *, at_most: int = 1000, **query: Any) -> tuple[list[Json], int]:
        """Stored values, at most so many, and how many there are.

        `query`: start, end, as_of (datetimes), type, variable, station, source (texts or lists of them),
        box ("west,south,east,north").
        """
        rows: list[Json] = []
        while True:
            asked = {**_texts(query), "limit": min(PAGE, at_most - len(rows)), "offset": len(rows)}
            answer = self._request("GET", "/v1/observations", params=asked)
            rows += answer["items"]
            if len(rows) >= min(at_most, answer["total"]) or not answer["items"]:
                return rows, answer["total"]

    def download_observations(self, target: Path, **query: Any) -> Path:
        """All stored values that `query` (see `observations`) selects, as a Parquet file; complete or not at all."""
        return self._download("/v1/observations", {**_texts(query), "format": "parquet"}, target)

    # experiments and cycles

    def create_experiment(self, name: str, config: Json | None = None, bundle: str | None = None) -> Json:
        body: Json = {"name": name, "config": config or {}}
        if bundle is not None:
            body["bundle"] = bundle
        return self._json("POST", "/v1/experiments", json=body)

    def experiments(self) -> list[Json]:
        return self._list("/v1/experiments")

    def experiment(self, name: str) -> Json:
        return self._json("GET", f"/v1/experiments/{name}")

    def suspend(self, name: str) -> Json:
        return self._json("POST", f"/v1/experiments/{name}/suspend")

    def resume(self, name: str) -> Json:
        return self._json("POST", f"/v1/experiments/{name}/resume")

    def run_cycle(self, experiment: str, valid_time: datetime, as_of: datetime | None = None) -> Json:
        """Ask for the cycle of `valid_time`; the existing one when it was asked for before."""
        body = {"valid_time": timestamp(valid_time)}
        if as_of is not None:
            body["as_of"] = timestamp(as_of)
        return self._json("POST", f"/v1/experiments/{experiment}/cycles", json=body)

    def cycles(self, experiment: str, state: str | None = None) -> list[Json]:
        return self._list(f"/v1/experiments/{experiment}/cycles", {"state": state} if state else {})

    def cycle(self, cycle_id: int) -> Json:
        return self._json("GET", f"/v1/cycles/{cycle_id}")

    def cancel(self, cycle_id: int) -> Json:
        return self._json("POST", f"/v1/cycles/{cycle_id}/cancel")

    def retry(self, cycle_id: int) -> Json:
        return self._json("POST", f"/v1/cycles/{cycle_id}/retry")

    def events(self, cycle_id: int) -> Iterator[Json]:
        """The cycle's progress as it happens; ends when the cycle ends."""
        with self._http.stream("GET", f"/v1/cycles/{cycle_id}/events", timeout=None) as response:
            _raise_for_problem(response)
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def wait(self, cycle_id: int, seconds: float = 600.0, every: float = 0.5) -> Json:
        """The cycle, once it has ended. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            cycle = self.cycle(cycle_id)
            if cycle["state"] in ENDED:
                return cycle
            if time.monotonic() > deadline:
                raise TimeoutError(f"Cycle {cycle_id} is still {cycle['state']} after {seconds:.0f} s.")
            time.sleep(every)

    # results out

    def products(self, cycle_id: int) -> list[Json]:
        return self._list(f"/v1/cycles/{cycle_id}/products")

    def download(self, product: Json, target: Path) -> Path:
        """Write a product (an entry of `products`) to `target`; it appears there complete or not at all.

        Raises GatewayError when what arrived does not have the catalogued sha256.
        """
        digest = hashlib.sha256()
        part = target.with_name(f".{target.name}.part")
        try:
            with self._http.stream("GET", f"/v1/products/{product['id']}/content") as response, part.open("wb") as file:
                _raise_for_problem(response)
                for chunk in response.iter_bytes():
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != product["sha256"]:
                raise GatewayError("Damaged download", f"product {product['id']} does not have its sha256; try again")
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def observations_config(self, experiment: str) -> Json:
        """What the experiment does with observations: sha256, changes, configuration."""
        return self._json("GET", f"/v1/experiments/{experiment}/observations-config")

    def change_observations_config(self, experiment: str, changes: Json, *, anew: bool = False) -> Json:
        """Add changes to those made so far, or (`anew`) put them in their place."""
        method = "PUT" if anew else "PATCH"
        return self._json(method, f"/v1/experiments/{experiment}/observations-config", json=changes)

    def biases(
        self,
        experiment: str,
        type: str | None = None,
        station: str | None = None,
        variable: str | None = None,
        cycles: int = 1,
    ) -> list[Json]:
        """What is taken off the observations, after each of the newest cycles."""
        query = _given({"type": type, "station": station, "variable": variable, "cycles": cycles})
        return self._list(f"/v1/experiments/{experiment}/biases", query)

    def scores(
        self, experiment: str, name: str | None = None, variable: str | None = None, level: float | None = None
    ) -> list[Json]:
        query = {"name": name, "variable": variable, "level": level}
        return self._list(f"/v1/experiments/{experiment}/scores", _given(query))

    def departures(
        self,
        cycle_id: int,
        station: str | None = None,
        variable: str | None = None,
        reason: str | None = None,
        **conditions: Any,
    ) -> list[Json]:
        """The story of each observation of a cycle: value, reason, O-B, O-A, influence.

        More `conditions`: type, source, level_min, level_max (hPa), bbox (west,south,east,north), start, end.
        """
        query = {"station": station, "variable": variable, "reason": reason, **conditions}
        return self._list(f"/v1/cycles/{cycle_id}/departures", _given(query))

    def experiment_departures(self, experiment: str, limit: int, **conditions: Any) -> list[Json]:
        """The first `limit` of all cycles of an experiment, each with `cycle_id` and `valid_time`."""
        return self._list(f"/v1/experiments/{experiment}/departures", _given(conditions), limit)

    def download_departures(self, experiment: str, target: Path, format: str, **conditions: Any) -> Path:
        """All of them in one file (parquet or csv); it appears there complete or not at all."""
        query = {**_given(conditions), "format": format}
        return self._download(f"/v1/experiments/{experiment}/departures/file", query, target)

    def departure_statistics(self, experiment: str, **groups: Any) -> list[Json]:
        """Statistics of the newest `cycles`; of the groups whose use, type, variable, layer, region are as given."""
        return self._list(f"/v1/experiments/{experiment}/departure-statistics", _given(groups))

    def observation(self, observation_id: str, **where: Any) -> Json:
        """The story of one observed value; `where`: experiment, cycle, start, end."""
        return self._json("GET", f"/v1/observations/{observation_id}", params=_given(where))

    def deny(self, experiment: str, name: str, denied: Json, start: datetime | None = None) -> Json:
        """Create the shadow `name` of an experiment, which does without the observations `denied`."""
        body: Json = {"name": name, "denied": denied}
        if start is not None:
            body["start"] = timestamp(start)
        return self._json("POST", f"/v1/experiments/{experiment}/shadow", json=body)

    def comparison(self, experiment: str, against: str | None = None, **which: Any) -> Json:
        """Paired differences of scores, `experiment` less `against` (a shadow's parent if not given)."""
        return self._json(
            "GET", f"/v1/experiments/{experiment}/comparison", params=_given({"against": against, **which})
        )

    def _post_bytes(self, path: str, content: Path | bytes, headers: dict[str, str], query: Json | None = None) -> Json:
        if isinstance(content, bytes):
            return self._json("POST", path, content=content, headers=headers, params=query)
        with content.open("rb") as file:
            return self._json("POST", path, content=file, headers=headers, params=query)

    def _download(self, path: str, query: Json, target: Path) -> Path:
        """The answer as a file; it appears complete or not at all."""
        part = target.with_name(f".{target.name}.part")
        try:
            with self._http.stream("GET", path, params=query, timeout=None) as response, part.open("wb") as file:
                _raise_for_problem(response)
                for chunk in response.iter_bytes():
                    file.write(chunk)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def _list(self, path: str, query: Json | None = None, at_most: int | None = None) -> list[Json]:
        """Every item of a collection (the first `at_most`), page by page."""
        rows: list[Json] = []
        while True:
            limit = PAGE if at_most is None else min(PAGE, at_most - len(rows))
            answer = self._request("GET", path, params={**(query or {}), "limit": limit, "offset": len(rows)})
            rows += answer["items"]
            if len(rows) >= min(answer["total"], at_most or answer["total"]) or not answer["items"]:
                return rows

    def _json(self, method: str, path: str, **options: Any) -> Json:
        answer = self._request(method, path, **options)
        return dict(answer)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise GatewayError(f"No answer from {self.url}", f"{error}; is `alignda serve` running there?") from error
        _raise_for_problem(response)
        return response.json()


def media_type_of(content: Path | bytes) -> str:
    """By the file's suffix; unknown ones are left to the gateway, which looks at the first bytes."""
    suffix = content.suffix.lower() if isinstance(content, Path) else ""
    return MEDIA_TYPES.get(suffix, "application/octet-stream")


def timestamp(time_: datetime) -> str:
    """RFC 3339 in UTC; a time without a zone is UTC."""
    aware = time_ if time_.tzinfo else time_.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _texts(query: Json) -> Json:
    return {key: timestamp(value) if isinstance(value, datetime) else value for key, value in query.items()}


def _given(query: Json) -> Json:
    return {key: value for key, value in query.items() if value is not None}


def _raise_for_problem(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        problem = response.json()
    except json.JSONDecodeError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    title = problem.get("title", response.reason_phrase or "Error")
    raise GatewayError(str(title), str(problem.get("detail", "")), response.status_code)
