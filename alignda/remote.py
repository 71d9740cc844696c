"""The commands that talk to a running gateway: experiments, post, cycles, products, scores."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from alignda.client import Client

Json = dict[str, Any]
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TIME = click.DateTime(["%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y%m%dT%H", "%Y-%m-%dT%H:%M:%SZ"])


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its `client` and `as_json`, and turn refusals into one line and exit status 1."""

    @click.option("--url", envvar="ALIGNDA_URL", default="http://127.0.0.1:8750", show_default=True, help="Gateway.")
    @click.option("--api-key", envvar="ALIGNDA_API_KEY", help="Sent as a bearer token [env: ALIGNDA_API_KEY].")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
    @wraps(command)
    def run(url: str, api_key: str | None, **options: Any) -> None:
        with _client(url, api_key) as client:
            command(client=client, **options)

    return run


@contextmanager
def _client(url: str, api_key: str | None) -> "Iterator[Client]":
    from alignda.client import Client, GatewayError

    with Client(url, api_key) as client:
        try:
            yield client
        except (GatewayError, TimeoutError) as error:
            raise click.ClickException(str(error)) from error


@click.group()
def experiments() -> None:
    """Named cycling configurations."""


@experiments.command("create")
@click.argument("name")
@click.option("--config", type=FILE, help="JSON file with the configuration.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One entry, e.g. --set members=8.")
@click.option("--bundle", help="Model bundle; the shipped one if not given.")
@connected
def create_experiment(
    client: "Client", name: str, config: Path | None, settings: Sequence[str], bundle: str | None, as_json: bool
) -> None:
    """Create an experiment."""
    entries = json.loads(config.read_text()) if config else {}
    entries.update(_entry(setting) for setting in settings)
    _show([client.create_experiment(name, entries, bundle)], as_json, ("name", "state", "bundle"))


@experiments.command("list")
@connected
def list_experiments(client: "Client", as_json: bool) -> None:
    """List the experiments."""
    _show(client.experiments(), as_json, ("name", "state", "bundle", "created_at"))


@experiments.command("show")
@click.argument("name")
@connected
def show_experiment(client: "Client", name: str, as_json: bool) -> None:
    """Everything known about an experiment, its configuration included."""
    _show_one(client.experiment(name), as_json)


@experiments.command("suspend")
@click.argument("name")
@connected
def suspend_experiment(client: "Client", name: str, as_json: bool) -> None:
    """Start no more cycles of an experiment."""
    _show([client.suspend(name)], as_json, ("name", "state"))


@experiments.command("resume")
@click.argument("name")
@connected
def resume_experiment(client: "Client", name: str, as_json: bool) -> None:
    """Let a suspended experiment go on."""
    _show([client.resume(name)], as_json, ("name", "state"))


@click.group("observations-config")
def observations_config() -> None:
    """What an experiment does with each type of observation."""


@observations_config.command("show")
@click.argument("experiment")
@click.option("--changes", is_flag=True, help="Only what differs from the shipped configuration.")
@connected
def show_observations_config(client: "Client", experiment: str, changes: bool, as_json: bool) -> None:
    """The whole configuration as YAML, with its sha256."""
    import yaml

    answer = client.observations_config(experiment)
    shown = answer["changes"] if changes else answer["configuration"]
    if as_json:
        click.echo(json.dumps({"sha256": answer["sha256"], "configuration": shown}))
        return
    click.echo(f"# sha256 {answer['sha256']}")
    click.echo(yaml.safe_dump(shown, sort_keys=False).rstrip())


@observations_config.command("change")
@click.argument("experiment")
@click.argument("file", type=FILE)
@click.option("--anew", is_flag=True, help="Forget all earlier changes.")
@connected
def change_observations_config(client: "Client", experiment: str, file: Path, anew: bool, as_json: bool) -> None:
    """Change it from the next cycle on by a YAML or JSON file with the parts that differ."""
    import yaml

    try:
        changes = json.loads(json.dumps(yaml.safe_load(file.read_text()) or {}, default=str))
    except yaml.YAMLError as error:
        raise click.ClickException(f"{file} cannot be read as YAML: {error}") from error
    answer = client.change_observations_config(experiment, changes, anew=anew)
    _show([{"experiment": experiment, "sha256": answer["sha256"]}], as_json, ("experiment", "sha256"))


@click.command()
@click.argument("experiment")
@click.option("--type", "type_", help="Only this report type.")
@click.option("--station", help="Only this station.")
@click.option("--variable", help="Only this variable.")
@click.option("--cycles", type=click.IntRange(1, 200), default=1, show_default=True, help="Newest cycles: the history.")
@connected
def biases(
    client: "Client",
    experiment: str,
    type_: str | None,
    station: str | None,
    variable: str | None,
    cycles: int,
    as_json: bool,
) -> None:
    """What is taken off the observations, per type and station, as known after the newest cycles."""
    columns = ("valid_time", "type", "station", "variable", "predictor", "value", "std", "cycles")
    _show(client.biases(experiment, type_, station, variable, cycles), as_json, columns)


@click.group()
def post() -> None:
    """Send observations, backgrounds and verifying fields."""


@post.command("observations")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--source", required=True, help="The feed they come from.")
@click.option("--media-type", help="By the file's suffix if not given.")
@click.option(
    "--receipt-time", type=TIME, metavar="TIME", help="When they were received (UTC), for a replay; now if not given."
)
@connected
def post_observations(
    client: "Client",
    files: Sequence[Path],
    source: str,
    media_type: str | None,
    receipt_time: datetime | None,
    as_json: bool,
) -> None:
    """Post observation files (BUFR, Parquet, JSON, CSV)."""
    answers = [
        client.post_observations(file, source=source, media_type=media_type, receipt_time=receipt_time)
        for file in files
    ]
    _show(answers, as_json, ("id", "received", "rejected", "reasons", "time_min", "time_max"))


@post.command("backgrounds")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--experiment", required=True, help="The experiment that may start from it.")
@click.option("--lead-hours", type=int, required=True, help="How old a forecast it is.")
@click.option(
    "--receipt-time", type=TIME, metavar="TIME", help="When they were received (UTC), for a replay; now if not given."
)
@connected
def post_backgrounds(
    client: "Client",
    files: Sequence[Path],
    experiment: str,
    lead_hours: int,
    receipt_time: datetime | None,
    as_json: bool,
) -> None:
    """Post background fields (GRIB, netCDF)."""
    answers = [
        client.post_background(file, experiment=experiment, lead_hours=lead_hours, receipt_time=receipt_time)
        for file in files
    ]
    _show(answers, as_json, ("id", "valid_time", "notes"))


@post.command("verifications")
@click.argument("files", nargs=-1, required=True, type=FILE)
@connected
def post_verifications(client: "Client", files: Sequence[Path], as_json: bool) -> None:
    """Post verifying analyses (GRIB, netCDF)."""
    _show([client.post_verification(file) for file in files], as_json, ("id", "valid_time", "notes"))


@click.group()
def cycles() -> None:
    """The cycles of an experiment."""


CYCLE_COLUMNS = ("id", "valid_time", "state", "attempt", "degraded", "error")


@cycles.command("list")
@click.argument("experiment")
@click.option("--state", help="Only cycles in this state.")
@connected
def list_cycles(client: "Client", experiment: str, state: str | None, as_json: bool) -> None:
    """List the cycles of an experiment."""
    _show(client.cycles(experiment, state), as_json, CYCLE_COLUMNS)


@cycles.command("show")
@click.argument("cycle_id", type=int)
@connected
def show_cycle(client: "Client", cycle_id: int, as_json: bool) -> None:
    """Everything known about a cycle."""
    _show_one(client.cycle(cycle_id), as_json)


@cycles.command("run")
@click.argument("experiment")
@click.argument("valid_times", nargs=-1, required=True, type=TIME, metavar="TIME...")
@click.option("--as-of", type=TIME, metavar="TIME", help="Use only what had been received by then (UTC).")
@click.option("--wait/--no-wait", default=False, help="Follow the cycles until they have ended.")
@connected
def run_cycles(
    client: "Client",
    experiment: str,
    valid_times: Sequence[datetime],
    as_of: datetime | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Ask for the cycles of these valid times (UTC)."""
    asked = [client.run_cycle(experiment, valid_time, as_of) for valid_time in valid_times]
    if wait:
        asked = [_follow(client, cycle) for cycle in asked]
    _show(asked, as_json, CYCLE_COLUMNS)
    if wait and any(cycle["state"] in ("failed", "cancelled") for cycle in asked):
        sys.exit(1)


@cycles.command("retry")
@click.argument("cycle_id", type=int)
@connected
def retry_cycle(client: "Client", cycle_id: int, as_json: bool) -> None:
    """Start a failed, cancelled or degraded cycle again."""
    _show([client.retry(cycle_id)], as_json, CYCLE_COLUMNS)


@cycles.command("cancel")
@click.argument("cycle_id", type=int)
@connected
def cancel_cycle(client: "Client", cycle_id: int, as_json: bool) -> None:
    """Cancel a cycle that has not ended."""
    _show([client.cancel(cycle_id)], as_json, CYCLE_COLUMNS)


@click.group()
def products() -> None:
    """Analyses, increments, forecasts, departures."""


@products.command("download")
@click.argument("cycle_id", type=int)
@click.option("--kind", help="Only this kind, e.g. analysis, increment, spread, forecast, departures.")
@click.option("--format", "format_", help="Only this format, e.g. grib2, netcdf, parquet, odb2.")
@click.option("--lead-hours", type=int, help="Only this lead time.")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), default=Path("."), show_default=True)
@connected
def download_products(
    client: "Client",
    cycle_id: int,
    kind: str | None,
    format_: str | None,
    lead_hours: int | None,
    into: Path,
    as_json: bool,
) -> None:
    """Download the products of a cycle, each checked against its sha256."""
    asked = {"kind": kind, "format": format_, "lead_hours": lead_hours}
    into.mkdir(parents=True, exist_ok=True)
    rows = [
        {**product, "path": str(client.download(product, into / Path(product["path"]).name))}
        for product in client.products(cycle_id)
        if all(value is None or product[key] == value for key, value in asked.items())
    ]
    _show(rows, as_json, ("kind", "format", "lead_hours", "size", "path"))


@click.command()
@click.argument("experiment")
@click.option("--name", help="Only this score.")
@click.option("--variable", help="Only this variable.")
@click.option("--level", type=float, help="Only this level (hPa).")
@connected
def scores(
    client: "Client", experiment: str, name: str | None, variable: str | None, level: float | None, as_json: bool
) -> None:
    """The scores of an experiment, each with its unit and valid time."""
    columns = ("valid_time", "name", "field", "variable", "level", "lead_hours", "value", "unit")
    _show(client.scores(experiment, name, variable, level), as_json, columns)


REMOTE_COMMANDS: tuple[click.Command, ...] = (
    experiments, observations_config, biases, post, cycles, products, scores,
)  # fmt: skip


def _follow(client: "Client", cycle: Json) -> Json:
    for event in client.events(cycle["id"]):
        if "state" in event:  # the last event is the cycle itself
            click.echo(f"{cycle['valid_time']} ended: {event['state']}", err=True)
            continue
        share = event["fraction"]
        done = f" {share:4.0%}" if share is not None else ""
        click.echo(f"{cycle['valid_time']} {event['stage']}{done} {event['message']}", err=True)
    return client.wait(cycle["id"])


def _entry(setting: str) -> tuple[str, Any]:
    key, separator, value = setting.partition("=")
    if not separator:
        raise click.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="--set")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:  # a bare word is a string
        return key, value


def _show(rows: Sequence[Json], as_json: bool, columns: Sequence[str]) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    table = [list(columns), *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_one(row: Json, as_json: bool) -> None:
    """One entry a line."""
    if as_json:
        _show([row], True, ())
        return
    for key, value in row.items():
        click.echo(f"{key:>16}  {_text(value)}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
