"""A gateway's registry over a real catalogue with two completed cycles, and where promtool is."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import start_http_server

from service.catalogue import Catalogue, NewScore, StageOutcome
from service.catalogue.tables import Batch
from service.metrics import make_registry
from tests.deploy.panels import PrometheusMissing, prometheus_programs

VALID = datetime(2026, 11, 1, 12, tzinfo=UTC)
UNITS = {"z": "m2 s-2", "t": "K", "u": "m s-1", "v": "m s-1", "q": "kg kg-1"}
SURFACE_UNITS = {"sp": "Pa", "t2m": "K", "u10": "m s-1", "v10": "m s-1"}


@pytest.fixture(scope="session")
def promtool() -> Path:
    try:
        return prometheus_programs() / "promtool"
    except PrometheusMissing as missing:
        pytest.skip(f"no promtool: {missing}")


@pytest.fixture
def metrics_url(tmp_path: Path) -> Iterator[str]:
    """/metrics of a gateway that has seen one cycle with observations, one free run, one upload, one request."""
    catalogue = Catalogue.open(f"sqlite:///{tmp_path}/catalogue.sqlite")
    for name in ("control", "control-free"):
        complete_a_cycle(catalogue, name)
    catalogue.batches.add(accepted_batch())
    registry, requests = make_registry(catalogue)
    requests.labels("/v1/observations", "POST", "201").observe(0.2)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        catalogue.close()


def complete_a_cycle(catalogue: Catalogue, name: str) -> None:
    experiment = catalogue.experiments.create(name, {}, "speedy-t31")
    cycle, _ = catalogue.cycles.accept(experiment.id, VALID, seed=1)
    lease = catalogue.leases.claim(cycle.id, "test")
    assert lease is not None
    counts = {"received": 5, "used": 4, "rejected": 1, "reasons": {"assimilated": 4, "duplicate": 1}}
    counts["filters"] = [{"filter": "duplicate", "in": 5, "rejected": 1}]
    catalogue.leases.complete_stage(lease, StageOutcome("assemble", 0.1, counts=counts))
    catalogue.leases.complete_stage(lease, StageOutcome("verify", 0.2, scores=scores()))
    catalogue.leases.finish(lease)


def scores() -> list[NewScore]:
    def score(name: str, field: str, unit: str, **where: object) -> NewScore:
        return NewScore(name=name, field=field, value=0.9, unit=unit, valid_time=VALID, **where)  # type: ignore[arg-type]

    made = []
    leads = {"background": 6, "analysis": 0, "forecast": 48}
    for field, lead in leads.items():
        for variable, unit in UNITS.items():
            made.append(score("rmse", field, unit, variable=variable, level=500.0, lead_hours=lead))
        for variable, unit in SURFACE_UNITS.items():
            made.append(score("rmse", field, unit, variable=variable, lead_hours=lead))
    for field in ("background", "analysis"):
        for variable, unit in (UNITS | SURFACE_UNITS).items():
            for name in ("departure_rms", "departure_bias"):
                made += [score(name, field, unit, variable=variable, type=kind) for kind in ("", "temp")]
        made += [score(f"balance_{kind}", field, "1") for kind in ("geostrophic", "hydrostatic")]
    for field in ("background", "analysis"):
        for variable in ("t", "u", "sp"):
            made.append(score("withheld_rmse", field, (UNITS | SURFACE_UNITS)[variable], variable=variable))
    for kind in ("", "temp"):
        for variable in ("", "t"):
            for name in ("departure_count", "chi_square"):
                made.append(score(name, "background", "1", variable=variable, type=kind))
        made += [score(name, "analysis", "1", type=kind) for name in ("dfs", "dfs_error", "dfs_departures")]
        made.append(score("sigma_o_ratio", "observation", "1", variable="t", type=kind))
        made.append(score("sigma_b_ratio", "background", "1", variable="t", type=kind))
    made += [score("spread_skill_ratio", "analysis", "1", variable=variable, level=500.0) for variable in UNITS]
    return made


def accepted_batch() -> Batch:
    return Batch(
        sha256="0" * 64,
        source="gts",
        media_type="application/json",
        path="observations/table.parquet",
        raw_path="observations/raw",
        received_at=VALID + timedelta(minutes=5),
        received=5,
        rejected=0,
        counts={},
        notes=[],
        status="accepted",
    )
