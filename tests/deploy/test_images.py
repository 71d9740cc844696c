"""Dockerfile and compose file, as far as they can be checked without a Docker engine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from alignda.cli import main
from service.settings import Settings, parse_api_keys
from tests.deploy.documented import ROOT

SECRETS = {"ALIGNDA_API_KEYS", "METRICS_KEY", "POSTGRES_PASSWORD", "VALKEY_PASSWORD", "GRAFANA_ADMIN_PASSWORD"}
COMPOSE_FILES = ["docker-compose.yml", "deploy/docker-compose.cuda.yml"]


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def compose_client() -> list[str] | None:
    """`docker compose` or `docker-compose`, whichever is here."""
    for client in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(client[0])
            and subprocess.run([*client, "version"], capture_output=True, check=False).returncode == 0
        ):
            return client
    return None


def render(*files: str, **environment: str) -> subprocess.CompletedProcess[str]:
    client = compose_client()
    if client is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    chosen = [argument for file in files for argument in ("-f", file)]
    inherited = {name: value for name, value in os.environ.items() if name not in SECRETS}
    command = [*client, "--env-file", "/dev/null", *chosen, "config", "--quiet"]
    return subprocess.run(command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False)


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed (extra `test`)")
    said = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_there_is_a_cpu_and_a_cuda_image_and_neither_runs_as_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    bases = {match[2]: match[1] for stage in stages if (match := re.match(r"(\S+) AS (\S+)", stage))}
    assert bases["cpu"] == bases["cuda"] == "runtime"
    (runtime,) = (stage for stage in stages if re.match(r"\S+ AS runtime\s", stage))
    (user,) = re.findall(r"^USER (\S+)$", runtime, flags=re.MULTILINE)
    assert int(user.partition(":")[0]) > 0
    assert re.search(r"^HEALTHCHECK .*/healthz", runtime.replace("\\\n", ""), flags=re.MULTILINE)
    after = "".join(stage for stage in stages if re.match(r"runtime AS", stage))
    assert "USER" not in after


def test_the_build_context_holds_what_the_wheel_is_built_from_and_no_secret() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {
        *("alignda/", "service/", "worker/", "models/"),
        *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
    }


def test_no_secret_has_a_default_and_each_is_in_the_example() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    asked = dict(re.findall(r"\$\{(\w+)(:[?-][^}]*)?\}", text))
    required = {name for name, rest in asked.items() if rest.startswith(":?")}
    assert required == SECRETS
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        assert name not in SECRETS or rest.startswith(":?"), name
    example = dict(re.findall(r"^#?(\w+)=(.*)$", (ROOT / "deploy/env.example").read_text(), flags=re.MULTILINE))
    assert set(example) == set(asked)
    assert {name for name, value in example.items() if value == ""} == SECRETS


def test_every_service_has_a_health_check() -> None:
    of_its_image = {name for name, service in compose()["services"].items() if "build" in service}
    checked = {name for name, service in compose()["services"].items() if "healthcheck" in service}
    assert checked | of_its_image == set(compose()["services"])
    assert "worker" in checked, "the image's own check asks the gateway, which is not in the worker's container"


def test_nothing_listens_beyond_loopback_unless_asked() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith(("127.0.0.1:", "${ALIGNDA_BIND:-127.0.0.1}:")) for port in ports)


def test_what_is_mounted_exists() -> None:
    volumes = [volume for service in compose()["services"].values() for volume in service.get("volumes", [])]
    sources = {volume.partition(":")[0] for volume in volumes}
    assert {source for source in sources if source.startswith("./") and not (ROOT / source).exists()} == set()
    assert {source for source in sources if not source.startswith("./")} == set(compose()["volumes"])


def test_the_commands_exist_in_the_command_line() -> None:
    for service in ("gateway", "worker"):
        name, *options = compose()["services"][service]["command"]
        command = main.commands[name]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert isinstance(command, click.Command) and set(options) <= known, service


def test_the_environment_is_what_the_settings_read() -> None:
    names = set(re.findall(r"\bALIGNDA_[A-Z_]+(?=[:=])", (ROOT / "Dockerfile").read_text()))
    for service in ("gateway", "worker"):
        names |= {name for name in compose()["services"][service]["environment"] if name.startswith("ALIGNDA_")}
    assert {"ALIGNDA_DATA_DIR", "ALIGNDA_REDIS_URL", "ALIGNDA_API_KEYS"} <= names
    assert {name.removeprefix("ALIGNDA_").lower() for name in names} <= set(Settings.model_fields)


def test_the_gateway_of_the_image_does_not_start_without_a_key() -> None:
    with pytest.raises(ValueError, match="ALIGNDA_API_KEYS"):
        Settings(host="0.0.0.0", api_keys="")
    assert parse_api_keys(Settings(host="0.0.0.0", api_keys="0123456789abcdef:writer").api_keys)


@pytest.mark.parametrize("files", [COMPOSE_FILES[:1], COMPOSE_FILES])
def test_compose_accepts_the_files(files: list[str]) -> None:
    done = render(*files, **dict.fromkeys(SECRETS, "0123456789abcdef"))
    assert done.returncode == 0, done.stderr


def test_prometheus_has_a_readers_key_of_the_gateway() -> None:
    """Without one /metrics answers 401 as soon as there are API keys, and in the stack there must be."""
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    mounted = job["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert mounted in compose()["services"]["prometheus"]["secrets"]
    variable = compose()["secrets"][mounted]["environment"]
    keys = compose()["services"]["gateway"]["environment"]["ALIGNDA_API_KEYS"]
    assert re.search(rf"\$\{{{variable}:\?[^}}]*\}}:reader,", keys)


def test_a_secret_from_the_environment_is_not_given_to_a_read_only_container() -> None:
    """Compose refuses that (docker/compose#12531)."""
    of_environment = {name for name, secret in compose().get("secrets", {}).items() if "environment" in secret}
    for name, service in compose()["services"].items():
        assert not (service.get("read_only") and of_environment & set(service.get("secrets", []))), name


def test_compose_refuses_to_start_without_secrets() -> None:
    done = render(COMPOSE_FILES[0])
    assert done.returncode != 0
    assert all(name in done.stderr for name in SECRETS)
