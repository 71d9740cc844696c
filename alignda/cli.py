"""The command line, `alignda ...`: run the service, make and train the default atmosphere, talk to a gateway.

Nothing heavy is imported before a command needs it, so that `alignda --help` answers at once.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from alignda.departures import DEPARTURE_COMMANDS
from alignda.evaluate.commands import evaluate
from alignda.inspecting import inspect
from alignda.remote import REMOTE_COMMANDS
from alignda.stored import observations


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="alignda", prog_name="alignda")
def main() -> None:
    """Aligned generative data assimilation: observations in over HTTP, analyses and forecasts out.

    Settings come from the environment (ALIGNDA_DATA_DIR, ALIGNDA_REDIS_URL, ...); options win over them.
    """


def _service_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept."),
        click.option("--host", help="Address to listen on; API keys are required beyond loopback."),
        click.option("--port", type=int, help="Port of the gateway."),
    ):
        command = option(command)
    return command


@main.command()
@_service_options
@click.option("--worker/--no-worker", default=True, show_default=True, help="Start a worker as well.")
def serve(data_dir: Path | None, host: str | None, port: int | None, worker: bool) -> None:
    """Run broker, gateway and worker on this machine until Ctrl-C."""
    from alignda.embedded import StackError
    from alignda.embedded import serve as run

    try:
        run(_settings(data_dir=data_dir, host=host, port=port), _report, worker=worker)
    except StackError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept.")
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Cycles at a time.")
def worker(data_dir: Path | None, concurrency: int) -> None:
    """Run one Celery worker (at most one child per GPU)."""
    from worker.app import run_worker

    run_worker(_settings(data_dir=data_dir), concurrency=concurrency)


@main.command()
@click.option("--days", type=click.IntRange(1), required=True, help="Length of the run.")
@click.option("--seed", type=int, default=0, show_default=True, help="Perturbs the initial state.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="netCDF file to write or continue.")
@click.option("--start", type=click.DateTime(), default="2000-01-01", show_default=True, help="First state.")
def nature(days: int, seed: int, out: Path, start: datetime) -> None:
    """Make a SPEEDY nature run, the truth of the default atmosphere (extra `nature`)."""
    from models.nature.speedy import generate

    generate(days=days, seed=seed, out=out, start=start)


@main.command()
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Recipe.")
@click.option(
    "--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Nature runs, checkpoints."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the bundle.")
@click.option("--stage", "stages", multiple=True, help="Only this one (repeatable): autoencoder, forecast, ...")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def train(config: Path, work: Path, out: Path, stages: tuple[str, ...], device: str) -> None:
    """Train a bundle: autoencoder, forecast, prior, rounds of cycling (extra `train`); goes on where it was interrupted."""
    from models.training.cli import STAGES
    from models.training.cli import train as run
    from service.observations.table import default_error

    if unknown := set(stages) - set(STAGES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(STAGES)}", param_hint="--stage")
    run(config, work, out, stages or STAGES, device, default_error)


@main.command()
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Recipe.")
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of the bundle; the alignment is written into its `alignments`.",
)
@click.option(
    "--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Nature runs, pairs, checkpoints."
)
@click.option(
    "--nature",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the nature runs.  [default: nature in the work folder]",
)
@click.option("--stage", "stages", multiple=True, help="Only this one (repeatable): candidates, preferences, ...")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def align(config: Path, bundle: Path, work: Path, nature: Path | None, stages: tuple[str, ...], device: str) -> None:
    """Align a bundle's prior with preferences or rewards (extra `train`); goes on where it was interrupted."""
    from models.alignment.cli import STAGES
    from models.alignment.cli import align as run
    from service.observations.table import default_error

    if unknown := set(stages) - set(STAGES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(STAGES)}", param_hint="--stage")
    run(config, bundle, work, stages or STAGES, device, nature, default_error)


@main.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="alignda-demo",
    show_default=True,
    help="Folder for products, plots and summary.json.",
)
@click.option("--cycles", type=click.IntRange(1, 12), default=8, show_default=True, help="Six-hourly cycles.")
@click.option("--members", type=click.IntRange(1), default=16, show_default=True, help="Members of the ensemble.")
@click.option("--port", type=int, default=0, help="Port of the gateway; any free one if not given.")
@click.option("--resume", is_flag=True, help="Go on with the demo in --out; without it, --out starts clean.")
@click.option("--keep", is_flag=True, help="Leave the service running at the end, until Ctrl-C.")
@click.option(
    "--real",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="BUFR",
    help="Analyse these real soundings from a cold start instead, a fifth of the stations withheld.",
)
@click.option(
    "--valid-time",
    type=click.DateTime(["%Y-%m-%dT%H"]),
    default="2008-12-08T12",
    show_default=True,
    help="Valid time of the analysis of --real.",
)
def demo(
    out: Path, cycles: int, members: int, port: int, resume: bool, keep: bool, real: Path | None, valid_time: datetime
) -> None:
    """Run the whole loop on a held-out sample atmosphere: service, observations, cycles, GRIB, scores."""
    from alignda.client import GatewayError
    from alignda.demo.report import ReportError
    from alignda.demo.run import DemoError, DemoOptions, run_demo
    from alignda.embedded import StackError

    options = DemoOptions(out, cycles, members, port, resume, keep)
    try:
        if real is not None:
            from alignda.demo.real import run_real

            run_real(options, real, valid_time, click.echo)
        else:
            run_demo(options, click.echo)
    except (DemoError, GatewayError, ReportError, StackError, ValueError) as error:
        raise click.ClickException(str(error)) from error


for _command in (*REMOTE_COMMANDS, *DEPARTURE_COMMANDS, observations, evaluate, inspect):
    main.add_command(_command)


def _settings(**given: Any) -> Any:
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise click.ClickException(f"These settings cannot be used.\n{error}") from error


def _report(line: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {line}", err=True)
