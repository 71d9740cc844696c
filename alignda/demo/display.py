"""Live progress on a terminal; plain lines elsewhere."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from alignda.demo.cycle_row import CycleRow

HEADINGS = (
    "cycle", "status", "z500 b>a (free)", "t850 b>a (free)", "u500 b>a (free)", "O-B", "O-A", "obs used", "geo", "s",
)  # fmt: skip


PLAIN_WIDTH = 150


class Display:
    """`with Display(say) as display`: a progress line for the running stage and a table that grows."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.console = Console()
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        self.say = say
        self.bar = Progress(
            TextColumn("{task.description:<34}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("starting", total=1.0, note="")
        self.rows: list[tuple[str, ...]] = []

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.rows:
            table = Table(
                title="b: background, a: analysis, free: run without observations (RMSE; z500 m2 s-2, K, m/s)"
            )
            for heading in HEADINGS:
                table.add_column(heading, justify="left" if heading in ("cycle", "status") else "right")
            for row in self.rows:
                table.add_row(*row)
            self.console.print(table)

    def progress(self, experiment: str, valid_time: datetime, stage: str, fraction: float | None, note: str) -> None:
        """What is happening now."""
        title = f"{valid_time:%d %H}Z {experiment} {stage}"
        self.bar.update(self.task, description=title, completed=fraction or 0.0, note=note[:60])

    def row(self, row: "CycleRow") -> None:
        """A finished cycle."""

        def trio(name: str, digits: int) -> str:
            b, a, f = (row.rmse[field][name] for field in ("background", "analysis", "free"))
            return f"{b:.{digits}f}>{a:.{digits}f} ({f:.{digits}f})"

        cells: tuple[Any, ...] = (
            f"{row.valid_time:%Y-%m-%d %H}Z", row.status, trio("z500", 0), trio("t850", 2), trio("u500", 2),
            _number(row.departures["o_b"]), _number(row.departures["o_a"]),
            f"{row.observations['used']}/{row.observations['received']}",
            "-" if row.geo_score is None else f"{100 * row.geo_score:.1f}", f"{row.seconds['total']:.1f}",
        )  # fmt: skip
        self.rows.append(cells)
        if not self.console.is_terminal:
            self.say("  ".join(f"{h}: {c}" for h, c in zip(HEADINGS, cells, strict=True)))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
