"""`alignda observations`: what the store of a running gateway holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignda.remote import TIME, _show, connected

if TYPE_CHECKING:
    from alignda.client import Client

COLUMNS = ("time", "receipt_time", "type", "station", "variable", "pressure", "value", "error", "source", "id")


@click.command()
@click.option("--start", type=TIME, metavar="TIME", help="First valid time (UTC).")
@click.option("--end", type=TIME, metavar="TIME", help="Valid times before this one (UTC).")
@click.option("--as-of", type=TIME, metavar="TIME", help="Only what had been received by then (UTC).")
@click.option("--type", multiple=True, help="Only this report type (repeatable).")
@click.option("--variable", multiple=True, help="Only this variable (repeatable).")
@click.option("--station", multiple=True, help="Only this station (repeatable).")
@click.option("--source", multiple=True, help="Only this feed (repeatable).")
@click.option("--box", metavar="W,S,E,N", help="Only this box of degrees; W > E crosses the date line.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Show at most so many.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write all of them to this Parquet file.")
@connected
def observations(client: "Client", limit: int, out: Path | None, as_json: bool, **asked: Any) -> None:
    """Find stored values by valid time, as known at a time, by type, variable, station, feed and place."""
    given: dict[str, Any] = {name: value for name, value in asked.items() if value not in (None, ())}
    if out is not None:
        client.download_observations(out, **given)
        size = out.stat().st_size
        click.echo(json.dumps({"path": str(out), "size": size}) if as_json else f"{out}: {size:,} bytes")
        return
    rows, total = client.observations(at_most=limit, **given)
    _show(rows, as_json, COLUMNS)
    if len(rows) < total:
        click.echo(f"{len(rows):,} of {total:,} values; more with --limit, all with --out", err=True)
