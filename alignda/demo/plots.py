"""Two pictures of a demo run: skill over the cycles, and the last analysis beside the truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from alignda.demo.cycle_row import CycleRow

COLOURS = {"free": "#9a9a9a", "background": "#d98b2b", "analysis": "#1f5fa8"}
UNITS = {"z500": "m² s⁻²", "t850": "K", "u500": "m s⁻¹"}


def plot_skill(rows: "list[CycleRow]", path: Path) -> None:
    """RMSE of background, analysis and free run over the cycles."""
    figure, axes = _figure(1, 3, (12, 3.6))
    times = [row.valid_time for row in rows]
    for axis, (name, unit) in zip(axes, UNITS.items(), strict=True):
        for field, colour in COLOURS.items():
            values = [row.rmse[field][name] for row in rows]
            label = {"free": "without observations"}.get(field, field)
            axis.plot(times, values, color=colour, marker="o", markersize=3.5, label=label)
        axis.set_title(f"{name} RMSE [{unit}]", loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.tick_params(axis="x", rotation=35, labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def plot_map(products: Path, truth: Path, path: Path) -> None:
    """z500 of truth and analysis, the increment and the spread, from the netCDF products of one cycle."""
    import xarray as xr

    def field(name: str) -> Any:
        return xr.load_dataset(products / f"{name}.nc")["z"].sel(level=500).squeeze() / 9.80665

    with xr.open_dataset(truth) as dataset:
        reference = dataset["z"].sel(level=500).squeeze().load() / 9.80665
    analysis = field("analysis")
    panels = [
        ("analysis (mean of the ensemble) [gpm]", analysis, "viridis"),
        ("increment: analysis - background [gpm]", field("increment"), "RdBu_r"),
        ("error: analysis - truth [gpm]", analysis - reference, "RdBu_r"),
        ("spread of the analysis ensemble [gpm]", field("spread"), "magma_r"),
    ]
    figure, axes = _figure(2, 2, (12, 6))
    for axis, (title, values, colours) in zip(axes.flat, panels, strict=True):
        limit = float(np.abs(values).max()) if colours == "RdBu_r" else None
        bounds = {"vmin": -limit, "vmax": limit} if limit is not None else {}
        mesh = axis.pcolormesh(values.longitude, values.latitude, values, cmap=colours, shading="nearest", **bounds)
        figure.colorbar(mesh, ax=axis, shrink=0.85)
        axis.contour(values.longitude, values.latitude, reference, levels=12, colors="k", linewidths=0.4)
        axis.set_title(f"500 hPa {title}", loc="left", fontsize=9)
    figure.savefig(path, dpi=130)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)
