"""The commands about what became of observations: departures, their statistics, the story of one value, data denial."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignda.remote import TIME, Json, connected
from alignda.remote import _show as show

if TYPE_CHECKING:
    from alignda.client import Client

OBSERVATION = re.compile(r"[0-9a-f]{16}")
COLUMNS = (
    "time", "station", "type", "variable", "pressure", "value", "reason", "check_value", "check_limit",
    "o_b", "o_a", "influence",
)  # fmt: skip


def conditioned(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `conditions`: which values are wanted."""

    @click.option("--type", "type_", help="Only this report type.")
    @click.option("--variable", help="Only this variable.")
    @click.option("--station", help="Only this station.")
    @click.option("--source", help="Only this feed.")
    @click.option("--reason", help="Only this reason, e.g. FIRST_GUESS.")
    @click.option("--level-min", type=float, help="Pressure of this many hPa or more.")
    @click.option("--level-max", type=float, help="Pressure of this many hPa or less.")
    @click.option("--bbox", metavar="W,S,E,N", help="Only inside, degrees; across the date line if west > east.")
    @click.option("--start", type=TIME, metavar="TIME", help="Valid at or after this (UTC).")
    @click.option("--end", type=TIME, metavar="TIME", help="Valid before this (UTC).")
    @wraps(command)
    def run(type_: str | None, start: datetime | None, end: datetime | None, **options: Any) -> None:
        from alignda.client import timestamp

        names = ("variable", "station", "source", "reason", "level_min", "level_max", "bbox")
        conditions = {name: options.pop(name) for name in names}
        times = {name: timestamp(moment) for name, moment in (("start", start), ("end", end)) if moment is not None}
        command(conditions={"type": type_, **conditions, **times}, **options)

    return run


@click.command()
@click.argument("experiment")
@conditioned
@click.option("--cycle", type=int, help="Only this cycle.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="At most so many are printed.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write all to this .parquet or .csv file.")
@connected
def departures(
    client: "Client",
    experiment: str,
    conditions: Json,
    cycle: int | None,
    limit: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """What the cycles of an experiment made of each observation: reason, O-B, O-A, influence."""
    if out is not None:
        format_ = out.suffix.lstrip(".")
        if format_ not in ("parquet", "csv"):
            raise click.BadParameter(f"{out} must end in .parquet or .csv", param_hint="--out")
        client.download_departures(experiment, out, format_, cycle=cycle, **conditions)
        show([{"path": str(out), "size": out.stat().st_size}], as_json, ("path", "size"))
        return
    if cycle is not None:
        rows = client.departures(cycle, **conditions)[:limit]
    else:
        rows = client.experiment_departures(experiment, limit, **conditions)
    show(rows, as_json, ("id", *COLUMNS))


@click.command("departure-statistics")
@click.argument("experiment")
@click.option(
    "--use", default="assimilated", show_default=True, help="assimilated, passive, withheld, denied, rejected."
)
@click.option("--type", "type_", help='Only this report type; "" all together.')
@click.option("--variable", help='Only this variable; "" all together.')
@click.option("--layer", default="", help="A layer such as 700-400 (hPa) or surface; all together if not given.")
@click.option("--region", default="", help="nh, tropics or sh; the globe if not given.")
@click.option("--cycles", type=click.IntRange(1, 2000), default=1, show_default=True, help="Newest cycles.")
@connected
def departure_statistics(
    client: "Client",
    experiment: str,
    use: str,
    type_: str | None,
    variable: str | None,
    layer: str,
    region: str,
    cycles: int,
    as_json: bool,
) -> None:
    """Count, bias, RMS, errors assumed and diagnosed, chi-square and DFS of the newest cycles."""
    groups = {"use": use, "type": type_, "variable": variable, "layer": layer, "region": region, "cycles": cycles}
    columns = (
        "valid_time", "type", "variable", "count", "bias_background", "rms_background", "bias_analysis", "rms_analysis",
        "sigma_o", "sigma_o_diagnosed", "sigma_b", "sigma_b_diagnosed", "chi_square", "dfs", "dfs_error",
    )  # fmt: skip
    show(client.departure_statistics(experiment, **groups), as_json, columns)


class Explain(click.Group):
    """`observation` may be left out before an id."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put it in."""
        if args and OBSERVATION.fullmatch(args[0]):
            args = ["observation", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Explain)
def explain() -> None:
    """Why things came out as they did: of a cycle, or of one observation (its id alone is enough)."""


@explain.command("departures")
@click.argument("cycle_id", type=int)
@conditioned
@connected
def explain_departures(client: "Client", cycle_id: int, conditions: Json, as_json: bool) -> None:
    """What became of each observation of a cycle: reason, the number that decided, O-B, O-A, influence."""
    show(client.departures(cycle_id, **conditions), as_json, COLUMNS)


@explain.command("observation")
@click.argument("observation_id")
@click.option("--experiment", help="Only what this experiment did.")
@click.option("--cycle", type=int, help="Only what this cycle did.")
@click.option("--start", type=TIME, metavar="TIME", help="It is valid at or after this (UTC): found sooner.")
@click.option("--end", type=TIME, metavar="TIME", help="It is valid before this (UTC): found sooner.")
@connected
def explain_observation(
    client: "Client",
    observation_id: str,
    experiment: str | None,
    cycle: int | None,
    start: datetime | None,
    end: datetime | None,
    as_json: bool,
) -> None:
    """The story of one observed value: arrival, checks with numbers and limits, O-B, weight, O-A, influence."""
    from alignda.client import timestamp

    times = {name: timestamp(moment) for name, moment in (("start", start), ("end", end)) if moment is not None}
    story = client.observation(observation_id, experiment=experiment, cycle=cycle, **times)
    if as_json:
        show([story], True, ())
        return
    for line in as_page(story):
        click.echo(line)


def as_page(story: Json) -> Iterator[str]:
    """The story in lines."""
    seen = story["observed"]
    level = f" at {seen['pressure'] / 100:g} hPa" if seen["pressure"] is not None else ""
    yield f"{story['id']}  {seen['variable']} = {_number(seen['value'])}{level}, {seen['type']} {seen['station']}"
    yield f"  {seen['time']}, latitude {_number(seen['latitude'])}, longitude {_number(seen['longitude'])}"
    for arrival in story["arrivals"]:
        yield f"arrived {arrival['receipt_time']} by {arrival['source']}: batch {arrival['batch_id']}, {arrival['format']}"
        yield f"  as sent: {arrival['raw']}"
        if arrival["reason"] is not None:
            yield f"  rejected on arrival: {arrival['reason']}, {arrival['detail']}"
        yield from (f"  {note}" for note in arrival["notes"])
    for cycle in story["cycles"]:
        yield from _treatment(cycle)
    if not story["cycles"]:
        yield "no cycle has used or refused it"


def _treatment(cycle: Json) -> Iterator[str]:
    yield f"cycle {cycle['cycle_id']} of {cycle['experiment']}, {cycle['valid_time']}, {cycle['state']}"
    yield f"  {cycle['reason']}: {cycle['reason_in_words']}"
    for check in cycle["checks"]:
        number = f", {_number(check['value'])} (limit {_number(check['limit'])})" if check["value"] is not None else ""
        yield f"    {check['filter']:<14} {check['outcome']}{number}"
    spread = f"spread {_number(cycle['background_spread'])}, assumed error {_number(cycle['background_error'])}"
    yield f"  background {_number(cycle['background'])}, O-B {_number(cycle['o_b'])}, {spread}"
    errors = f"{_number(cycle['error'])}, as analysed {_number(cycle['observation_error'])}"
    yield f"  bias {_number(cycle['bias'])}, observation error {errors}, weight {_number(cycle['weight'])}"
    spread = f"spread {_number(cycle['analysis_spread'])}, influence {_number(cycle['influence'])}"
    yield f"  analysis {_number(cycle['analysis'])}, O-A {_number(cycle['o_a'])}, {spread}"
    after = cycle["next"]
    if after is not None:
        reasons = ", ".join(f"{count} {reason}" for reason, count in after["reasons"].items()) or "nothing reported"
        yield f"  next cycle {after['cycle_id']}, {after['valid_time']}, of this station, type and variable: {reasons}"
        yield f"    mean O-B {_number(after['mean_o_b'])}, mean O-A {_number(after['mean_o_a'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


@click.command()
@click.argument("experiment")
@click.argument("name")
@click.option("--type", "types", multiple=True, help="A report type to do without (repeatable).")
@click.option("--variable", "variables", multiple=True, help="A variable to do without (repeatable).")
@click.option("--start", type=TIME, metavar="TIME", help="First cycle (UTC); the next one if not given.")
@connected
def deny(
    client: "Client",
    experiment: str,
    name: str,
    types: tuple[str, ...],
    variables: tuple[str, ...],
    start: datetime | None,
    as_json: bool,
) -> None:
    """Create the shadow NAME of EXPERIMENT, which makes the same cycles without some observations."""
    made = client.deny(experiment, name, {"types": list(types), "variables": list(variables)}, start)
    show([{**made, **made["config"]["shadow"]}], as_json, ("name", "state", "of", "start"))


@click.command()
@click.argument("experiment")
@click.option("--against", help="Another experiment; the parent of a shadow if not given.")
@click.option("--name", help="Only this score: rmse, withheld_rmse, departure_rms.")
@click.option("--field", help="Only background, analysis or forecast.")
@click.option("--variable", help="Only this variable.")
@connected
def compare(
    client: "Client",
    experiment: str,
    against: str | None,
    name: str | None,
    field: str | None,
    variable: str | None,
    as_json: bool,
) -> None:
    """Scores of an experiment beside another's over common cycles: differences with 95 % intervals."""
    found = client.comparison(experiment, against, name=name, field=field, variable=variable)
    if as_json:
        show([found], True, ())
        return
    click.echo(
        f"{found['experiment']} less {found['control']}: {found['cycles']} cycles, {found['unequal']} with unequal input"
    )
    columns = (
        "name", "field", "variable", "type", "level", "lead_hours", "pairs", "value", "control", "difference",
        "low", "high", "unit",
    )  # fmt: skip
    show(found["scores"], False, columns)


DEPARTURE_COMMANDS: tuple[click.Command, ...] = (departures, departure_statistics, explain, deny, compare)
