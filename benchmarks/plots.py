"""Draws the plots of docs/science.md from the results of `alignda evaluate` (docs/evaluation.md, "The document").

    python -m benchmarks.plots --results benchmarks/results --out docs/images
    python -m benchmarks.plots --results benchmarks/results --out docs/images --only cycle-skill spectra

`maps` computes one analysis of the shipped sample, which takes half a minute; the others only read cycle-60.json.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import isotonic_regression

from models.assimilation import Assimilator
from models.bundle import SHIPPED
from models.evaluation.observing import RandomGrid
from models.evaluation.options import create
from models.evaluation.report import Case, Report
from models.evaluation.summary import channel_name
from models.evaluation.truth_run import TruthRun
from models.evaluation.world import BACKGROUND_HOURS, World
from models.scores import mean_square_error

Floats = NDArray[np.floating]
DAY = timedelta(days=1)

# Okabe and Ito's colours differ to colour-blind eyes too; further methods of a family take the next shade and dash.
SHADES = {
    "free": ("#8c8c8c",),
    "background": ("#8c8c8c",),
    "3dvar": ("#d55e00",),
    "3dvar-from-prior": ("#e69f00",),
    "latent-3dvar": ("#cc79a7",),
    "letkf": ("#009e73", "#6ec5a8"),
    "ours": ("#0072b2", "#56b4e9", "#332288"),
}
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vPX"
INK = "#222222"
RELIABLE = (0.8, 1.25)  # the aim for the spread-skill ratio
FAR = 3.0  # a method with more than so many times the least mean is told, not drawn
LABEL_GAP = 0.075  # between labels at the right of an axis, of its height
POWER_UNITS = {"z500": "m$^4$ s$^{-4}$", "q850": "kg$^2$ kg$^{-2}$"}
MAP_TIME = datetime(2021, 1, 15, 12, tzinfo=UTC)
MAP_METHOD, MAP_FRACTION, MAP_SEED = "ours", 0.01, 0
PALETTE = 256  # colours of a file
PANELS = {
    "background_error": "error of the 48 h background",
    "analysis_error": "error of the analysis",
    "increment": "increment; dots: z500 observed",
    "spread": "spread of the analysis ensemble",
}


@dataclass(frozen=True)
class Style:
    """How a curve and its label are drawn."""

    colour: str
    dash: Any = "-"
    marker: str = ""
    width: float = 1.6


@dataclass(frozen=True)
class MapCase:
    """z500 of one analysis, m2 s-2, [latitude, longitude] each; `land`: fraction; `observed`: latitudes, longitudes."""

    background_error: Floats
    analysis_error: Floats
    increment: Floats
    spread: Floats
    land: Floats
    latitudes: NDArray[np.float64]
    longitudes: NDArray[np.float64]
    observed: tuple[Floats, Floats]


def styles(report: Report) -> dict[str, Style]:
    """Colour by family of methods, shade and dash by place in the family, marker by place in the file."""
    found: dict[str, Style] = {}
    for number, method in enumerate(report.methods):
        family = method.partition(":")[0]
        place = sum(other.partition(":")[0] == family for other in found)
        shades = SHADES.get(family, (INK,))
        found[method] = Style(shades[place % len(shades)], DASHES[place % len(DASHES)], MARKERS[number % len(MARKERS)])
    return found


def shown(report: Report) -> str:
    """The method whose details are drawn: `ours`, the first with an alignment where there is one.

    Of those with rank histograms, which a run that was given up early does not have.
    """
    family = [m for m, entry in report.methods.items() if m.partition(":")[0] == "ours" and entry.summary.ranks]
    return [*(method for method in family if "alignment=" in method), *family][0]


def running_mean(times: Sequence[datetime], values: Floats) -> tuple[list[datetime], Floats]:
    """Means over one day of cycles and the middle of each; empty where there is no whole day."""
    cycles = round(DAY / (times[1] - times[0])) if len(times) > 1 else 1
    starts = range(len(times) - cycles + 1)
    middles = [times[i] + (times[i + cycles - 1] - times[i]) / 2 for i in starts]
    return middles, np.array([values[i : i + cycles].mean() for i in starts])


def cycle_skill(report: Report) -> Figure:
    """z500 RMSE (m2 s-2) and normalised MSE of the analysis mean over the cycles, all methods."""
    figure = _figure((9, 7.2))
    upper, lower = figure.subplots(2, 1, sharex=True)
    _curves(upper, report, lambda case: case.wrmse["z500"] ** 2, np.sqrt, ".1f")
    _curves(lower, report, lambda case: case.mse, np.asarray, ".4f")
    upper.set_ylabel("m$^2$ s$^{-2}$")
    lower.set_ylabel("1 = variance of the full field")
    upper.set_title("z500 RMSE of the analysis mean; numbers at the right: over all cycles", loc="left", fontsize=10)
    lower.set_title("Normalised MSE of the analysis mean over all channels", loc="left", fontsize=10)
    lower.set_xlabel(f"days since {_start(report):%Y-%m-%d %H} UTC; curves are means over a day")
    return figure


def _start(report: Report) -> datetime:
    """The first analysis."""
    return min(entry.cases[0].valid_time for entry in report.methods.values())


def _curves(
    axis: Axes, report: Report, square: Callable[[Case], float], last: Callable[[Any], Any], digits: str
) -> None:
    """Running mean of `square` of each method, then `last` (a root, taken last); the labels have it over all cycles."""
    series = {m: np.array([square(case) for case in entry.cases]) for m, entry in report.methods.items()}
    total = {method: float(last(values.mean())) for method, values in series.items()}
    ends, told = {}, []
    for (method, values), style in zip(series.items(), styles(report).values(), strict=True):
        times, means = running_mean([case.valid_time for case in report.methods[method].cases], values)
        label = f"{method}  {total[method]:{digits}}" + ", given up" * (method in report.failures)
        if not times or total[method] > FAR * min(total.values()):
            told.append(label)
            continue
        days = [(time - _start(report)) / DAY for time in times]
        curve = last(means)
        axis.plot(days, curve, color=style.colour, linestyle=style.dash, linewidth=style.width, label=method)
        ends[label] = (float(curve[-1]), style)
    axis.margins(x=0)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    _label_ends(axis, ends)
    if told:
        axis.text(0.01, 0.03, f"not drawn: {'; '.join(told)}", transform=axis.transAxes, fontsize=8, color=INK)


def _label_ends(axis: Axes, ends: Mapping[str, tuple[float, Style]]) -> None:
    """Label -> where its curve ends: written right of the axis, a distance apart, with a leader in the curve's style.

    The axis is linear from 0, its upper limit final.
    """
    heights = {label: end / axis.get_ylim()[1] for label, (end, _) in ends.items()}
    order = sorted(heights, key=heights.__getitem__)
    apart = LABEL_GAP * np.arange(len(order))
    places = isotonic_regression(np.array([heights[label] for label in order]) - apart).x + apart
    for label, place in zip(order, places, strict=True):
        style = ends[label][1]
        leader = {"color": style.colour, "linestyle": style.dash, "linewidth": style.width}
        axis.annotate(
            label, (1, heights[label]), (1.06, place), "axes fraction", "axes fraction", va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0, **leader}, color=INK,
        )  # fmt: skip


def cycle_ensemble(report: Report) -> Figure:
    """Spread-skill ratio by channel group of each ensemble method; rank histograms of the method `shown`."""
    figure = _figure((9, 6.4))
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 2))
    _spread_skill(figure.add_subfigure(grid[0]).subplots(), report)
    _rank_histograms(figure.add_subfigure(grid[1]), report, shown(report))
    return figure


def _spread_skill(axis: Axes, report: Report) -> None:
    look = styles(report)
    ratios = {method: e.summary.spread_skill for method, e in report.methods.items() if e.summary.spread_skill}
    groups = list(dict.fromkeys(group for by_group in ratios.values() for group in by_group))
    axis.axhspan(*RELIABLE, color="#e9e9e9", zorder=0)
    axis.axhline(1, color=INK, linewidth=0.8, zorder=1)
    for i, (method, by_group) in enumerate(ratios.items()):
        places = [groups.index(group) + 0.12 * (i - (len(ratios) - 1) / 2) for group in by_group]
        values, style = list(by_group.values()), look[method]
        axis.plot(places, values, color=style.colour, marker=style.marker, linestyle="none", markersize=7, label=method)
    every = [value for by_group in ratios.values() for value in by_group.values()]
    axis.set_yscale("log")
    axis.set_ylim(min(0.6, *every) / 1.05, max(1.6, *every) * 1.05)
    axis.yaxis.set_major_locator(FixedLocator((0.3, 0.4, 0.6, 0.8, 1, 1.25, 1.6, 2, 3)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.set_xticks(range(len(groups)), groups)
    axis.set_ylabel("spread / error of the mean")
    axis.set_title("Spread-skill ratio by channel group; shaded: the aim, 0.8 to 1.25", loc="left", fontsize=10)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)


def _rank_histograms(figure: FigureBase, report: Report, method: str) -> None:
    ranks = report.methods[method].summary.ranks
    figure.suptitle(f"Rank histograms of {method}; dashed: flat", x=0.01, ha="left", fontsize=10)
    colour = styles(report)[method].colour
    for axis, (group, flatness) in zip(figure.subplots(1, len(ranks), sharey=True), ranks.items(), strict=True):
        height = np.array(flatness.frequency) * len(flatness.frequency)
        axis.bar(range(len(height)), height, width=0.9, color=colour)
        axis.axhline(1, color=INK, linewidth=0.8, linestyle="--")
        axis.set_title(f"{group}, index {flatness.reliability_index:.2f}", loc="left", fontsize=9)
        axis.set_xlabel("rank of the truth")
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel("share × number of ranks")


def spectra(report: Report) -> Figure:
    """Power by total wavenumber of truth, member, mean and error of the method `shown`, and of the error of 3D-Var."""
    figure = _figure((9, 4.4))
    axes = figure.subplots(1, 2)
    for axis, (channel, unit) in zip(axes, POWER_UNITS.items(), strict=True):
        for label, (power, style) in _power(report, channel).items():
            numbers = np.arange(1, len(power))
            axis.loglog(
                numbers, power[1:], color=style.colour, linestyle=style.dash, linewidth=style.width, label=label
            )
        axis.set_title(f"{channel}: power [{unit}]", loc="left", fontsize=10)
        axis.set_xlabel("total wavenumber")
        axis.xaxis.set_major_locator(FixedLocator((1, 2, 5, 10, 20, 40)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(ScalarFormatter())
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _power(report: Report, channel: str) -> Mapping[str, tuple[Sequence[float], Style]]:
    """Label -> power from wavenumber 0, and how it is drawn."""
    method = shown(report)
    found, colour = report.methods[method].summary.spectra[channel], styles(report)[method].colour
    lines = {
        "truth": (found.truth, Style(INK, width=2.2)),
        f"member, {method}": (found.member, Style(colour, DASHES[1])),
        f"mean, {method}": (found.mean, Style(colour)),
        f"error of the mean, {method}": (found.error, Style(colour, DASHES[2])),
    }
    if "3dvar" in report.methods:
        error = report.methods["3dvar"].summary.spectra[channel].error
        lines["error, 3dvar"] = (error, Style(SHADES["3dvar"][0], DASHES[3]))
    return lines


def held_out_case() -> MapCase:
    """The analysis of MAP_TIME from a 48 h forecast and exact values of 1 % of the grid, beside the truth."""
    assimilator = Assimilator(SHIPPED, "cpu")
    spec, climate = assimilator.spec, assimilator.bundle.climate
    truth = TruthRun(SHIPPED / "sample.nc", spec)
    world = World.of(assimilator, truth, truth, truth.times)
    observing = RandomGrid(truth, spec, climate.total_std.numpy(), MAP_FRACTION, 0.0, MAP_SEED)
    background = world.first_background(MAP_TIME)
    given = world.given(background, observing.at(MAP_TIME), MAP_TIME, BACKGROUND_HOURS, MAP_SEED, observing.screened)
    z500 = [channel_name(channel) for channel in spec.channels].index("z500")
    members = create(MAP_METHOD, assimilator).analyse(given)[:, z500]
    seen = given.observations.select((given.observations.variable == "z") & (given.observations.pressure == 50_000))
    before, mean, true = background[0, z500], members.mean(axis=0), truth.state(MAP_TIME)[z500]
    return MapCase(
        background_error=before - true,
        analysis_error=mean - true,
        increment=mean - before,
        spread=members.std(axis=0, ddof=1),
        land=climate.static[1].numpy(),
        latitudes=np.array(spec.grid.latitudes),
        longitudes=np.array(spec.grid.longitudes),
        observed=(seen.latitude, seen.longitude),
    )


def maps(case: MapCase) -> Figure:
    """Errors, increment and spread of z500 (m2 s-2): the first three on one scale."""
    figure = _figure((9, 4.7))
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    limit = float(np.quantile(np.abs(case.background_error), 0.995))
    for axis, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        field = getattr(case, name)
        if name == "spread":
            drawn = _map(axis, case, field, "YlGnBu", Normalize(0, float(np.quantile(field, 0.995))))
        else:
            drawn = _map(axis, case, field, "RdBu_r", Normalize(-limit, limit))
        rms = np.sqrt(mean_square_error(field, 0.0, case.latitudes))
        axis.set_title(f"{title} (rms {rms:.0f})", loc="left", fontsize=9)
        bar = figure.colorbar(drawn, ax=axis, shrink=0.8, extend="max" if name == "spread" else "both")
        bar.ax.tick_params(labelsize=7)
    latitudes, longitudes = case.observed
    axes[1, 0].scatter(_east_of_dateline(longitudes), latitudes, s=6, color=INK, linewidths=0)
    title = f"{MAP_TIME:%Y-%m-%d %H} UTC, {MAP_FRACTION:.0%} of the grid observed, analysis by {MAP_METHOD}"
    figure.suptitle(f"z500 [m$^2$ s$^{{-2}}$], {title}", x=0.01, ha="left", fontsize=10)
    return figure


def _map(axis: Axes, case: MapCase, field: Floats, colours: str, scale: Normalize) -> Any:
    """One field on a plate carrée from 180 W to 180 E, with the coasts."""
    order = np.argsort(_east_of_dateline(case.longitudes))
    longitudes = _east_of_dateline(case.longitudes)[order]
    axis.contour(longitudes, case.latitudes, case.land[:, order], levels=[0.5], colors=INK, linewidths=0.5)
    axis.set_aspect("equal")
    axis.set_xticks(range(-120, 121, 60), ["120°W", "60°W", "0°", "60°E", "120°E"], fontsize=7)
    axis.set_yticks(range(-60, 61, 30), ["60°S", "30°S", "0°", "30°N", "60°N"], fontsize=7)
    return axis.pcolormesh(
        longitudes, case.latitudes, field[:, order], cmap=colours, norm=scale, shading="nearest", zorder=0
    )


def _east_of_dateline(longitudes: Floats) -> Floats:
    """0 to 360 -> -180 to 180 degrees east."""
    return (longitudes + 180) % 360 - 180


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG with a palette, which is a third of the size of one without."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(PALETTE).save(path, optimize=True)


def _figure(size: tuple[float, float]) -> Figure:
    return Figure(figsize=size, dpi=100, layout="constrained")


OF_CYCLE = {"cycle-skill": cycle_skill, "cycle-ensemble": cycle_ensemble, "spectra": spectra}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    names = [*OF_CYCLE, "maps"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    report = Report.model_validate_json((options.results / "cycle-60.json").read_text())
    for name in options.only:
        figure = maps(held_out_case()) if name == "maps" else OF_CYCLE[name](report)
        save(figure, options.out / f"{name}.png")
        print(f"{options.out / name}.png", flush=True)


if __name__ == "__main__":
    main()
