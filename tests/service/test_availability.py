"""What callers see when a part of the gateway is gone."""

from __future__ import annotations

from service.settings import Settings


def test_a_catalogue_that_is_gone_is_told_as_such_and_comes_back(settings, run_gateway, postgres_url):
    import psycopg

    on_postgres = Settings(**settings.model_dump() | {"database_url": postgres_url})
    admin = postgres_url.rsplit("/", 1)[0] + "/postgres"
    name = postgres_url.rsplit("/", 1)[1]
    with run_gateway(on_postgres, lambda cycle_id: None) as client, psycopg.connect(admin, autocommit=True) as server:
        assert client.post("/v1/experiments", json={"name": "demo"}).status_code == 201
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        for path in ("/v1/experiments", "/metrics"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), path
            assert answer.headers["Retry-After"] == "5"
        assert client.get("/readyz").status_code == 503
        assert client.get("/readyz").json()["checks"]["catalogue"] == "OperationalError"
        assert client.get("/healthz").status_code == 200
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert client.get("/v1/experiments").json()["total"] == 1
        assert client.get("/readyz").status_code == 200


def test_an_archive_that_cannot_be_written_makes_the_gateway_unready(client, settings):
    moved = settings.archive_dir.with_name("elsewhere")
    settings.archive_dir.rename(moved)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["archive"]) == (503, "not writable")
    moved.rename(settings.archive_dir)
    assert client.get("/readyz").status_code == 200
