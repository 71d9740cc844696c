"""The OpenAPI document is complete and the gateway keeps to it: schemathesis asks a live server."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from service.app import create_app
from service.settings import Settings

EXAMPLES = 12


@pytest.fixture
def document(settings):
    return create_app(settings, lambda cycle_id: None).openapi()


KEY = {"X-API-Key": "writer-key"}


@pytest.fixture
def furnished(settings, run_gateway):
    """A live gateway that asks for keys, with something to find behind its paths."""
    locked = Settings(**settings.model_dump() | {"api_keys": "writer-key:writer"})
    with run_gateway(locked, lambda cycle_id: None) as client:
        client.headers.update(KEY)
        client.post("/v1/experiments", json={"name": "demo"})
        cycle = client.post("/v1/experiments/demo/cycles", json={"valid_time": "2009-01-23T12:00:00Z"}).json()
        client.post(f"/v1/cycles/{cycle['id']}/cancel")  # so that its events end
        yield client


# Not from_fixture: schemathesis 4.32 reads pytest's Node._nodeid there, which pytest 9.2 no longer has.
schema = schemathesis.openapi.from_dict(create_app(Settings(data_dir=Path("unused"))).openapi())


@schema.auth()
class WriterKey:
    """Sends the key; schemathesis then also tries without it and with wrong ones."""

    def get(self, case, context):
        return KEY

    def set(self, case, data, context):
        case.headers.pop("Authorization", None)
        case.headers.update(data)


# `seconds` gives every operation a node id of its own: pytest 9.2 makes it from pytest's parameters, not from schemathesis'
# operation, and of tests that share an id pytest-xdist runs one.
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [60])
@schema.parametrize()
@hypothesis_settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore:Skipped test cases with unsupported payload")
def test_the_gateway_keeps_to_its_document(case, furnished, seconds):
    # JSON Schema cannot say which bytes are GRIB, which bundle exists, which times are whole hours.
    excluded = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]
    if "x-schemathesis-unknown-property" in case.headers:
        # A header that no one knows is to be ignored (RFC 9110, 5.1), not refused.
        excluded.append(schemathesis.checks.CHECKS.get_one("negative_data_rejection"))
    case.call_and_validate(base_url=str(furnished.base_url), excluded_checks=excluded, timeout=seconds)


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_every_operation_is_described_and_typed(document):
    for path, method, operation in operations(document):
        where = f"{method.upper()} {path}"
        assert operation["summary"] and operation["description"] and operation["tags"], where
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                continue
            for media_type, content in response["content"].items():
                if media_type == "application/json":
                    assert content["schema"], where


def test_every_error_is_documented_as_a_problem(document):
    for path, method, operation in operations(document):
        errors = {status: response for status, response in operation["responses"].items() if status >= "400"}
        if path.startswith("/v1"):
            assert {"401", "403", "422", "500", "503"} <= set(errors), (method, path)
        for status, response in errors.items():
            if (path, status) != ("/readyz", "503"):
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_reference_leads_somewhere(document):
    names = set(re.findall(r"#/components/schemas/([^'\"]+)", str(document)))
    assert names and names <= set(document["components"]["schemas"])


def test_every_collection_has_pages(document):
    for path, method, operation in operations(document):
        content = operation["responses"].get("200", {}).get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if "PageOf" in reference:
            names = {parameter["name"] for parameter in operation["parameters"]}
            assert {"limit", "offset"} <= names, (method, path)


def test_the_document_and_its_page_are_served(client):
    assert client.get("/openapi.json").json()["info"]["title"] == "alignda"
    assert httpx.get(f"{client.base_url}/docs").status_code == 200
