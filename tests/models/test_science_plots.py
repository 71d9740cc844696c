"""The plots of docs/science.md against a small document made by hand."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.testing import assert_allclose
from PIL import Image

from benchmarks import plots
from models.evaluation.report import Report

START = datetime(2021, 1, 5, tzinfo=UTC)
GROUPS = ("z", "q", "wind")
METHODS = {"free": 800.0, "3dvar": 100.0, "letkf:members=3": 90.0, "ours": 79.0, "ours:alignment=a": 78.0}
ENSEMBLES = [name for name in METHODS if name.startswith(("letkf", "ours"))]


def z500(method: str, cycles: int = 12) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Errors that differ from cycle to cycle, about the method's own."""
    return METHODS[method] * (1 + 0.1 * np.cos(np.arange(cycles)))


def entry(method: str) -> dict[str, Any]:
    """What the document has of a method."""
    case = {"observations": 9, "mse_member": 1, "mse_background": 1, "mse_48h": None, "crps": 1, "seconds": 1}
    cases = [
        {
            **case,
            "valid_time": (START + i * timedelta(hours=6)).isoformat(),
            "mse": error / 1e3,
            "wrmse": {"z500": error},
        }
        for i, error in enumerate(z500(method))
    ]
    tests = {"reliability_index": 0.3, "effective": 9, "p_flat": 1, "slope": 0, "p_slope": 1, "bend": 0, "p_bend": 1}
    ranks = {group: {"frequency": [0.4, 0.3, 0.2, METHODS[method] / 1e3], **tests} for group in GROUPS}
    power = {which: [METHODS[method] / (k * n) for n in range(1, 9)] for k, which in enumerate(
        ("truth", "member", "mean", "error"), 1)}  # fmt: skip
    summary = {"cases": len(cases), "scores": {}, "wrmse": {}, "spectra": {"z500": power, "q850": power}}
    spread = {group: METHODS[method] / 100 for group in GROUPS}
    ensemble = method in ENSEMBLES
    summary |= {"spread_skill": spread if ensemble else {}, "ranks": ranks if ensemble else {}}
    return {"summary": summary, "against_reference": None, "against_unaligned": None, "cases": cases}


@pytest.fixture(scope="module")
def report() -> Report:
    provenance = {"command": [], "date": START.isoformat(), "machine": "", "device": "cpu", "threads": 1, "python": "",
                  "torch": "", "bundle": "", "bundle_sha256": "", "alignments": {}, "truth": ""}  # fmt: skip
    document = {"format": "", "kind": "cycle", "protocol": {}, "block_hours": 120, "reference": "3dvar", "units": {},
                "failures": {"3dvar": "not finite"}, "provenance": provenance,
                "methods": {name: entry(name) for name in METHODS}}  # fmt: skip
    return Report.model_validate(document)


def lines(axis: Axes) -> dict[str, tuple[Any, Any]]:
    """The labelled curves of a panel."""
    return {str(line.get_label()): line.get_data() for line in axis.lines if not str(line.get_label()).startswith("_")}


def test_a_curve_is_the_root_of_the_mean_square_of_a_day_at_its_middle(report: Report) -> None:
    upper, lower = plots.cycle_skill(report).axes
    for method in ("3dvar", "ours"):
        error = z500(method)
        days, drawn = lines(upper)[method]
        assert_allclose(days, [0.375 + 0.25 * i for i in range(9)])
        assert_allclose(drawn, [np.sqrt(np.mean(error[i : i + 4] ** 2)) for i in range(9)])
        assert_allclose(lines(lower)[method][1], [np.mean(error[i : i + 4]) / 1e3 for i in range(9)])


def test_a_method_far_above_the_others_is_told_and_not_drawn(report: Report) -> None:
    upper, lower = plots.cycle_skill(report).axes
    assert list(lines(upper)) == list(lines(lower)) == [name for name in METHODS if name != "free"]
    told = [text.get_text() for text in upper.texts]
    assert f"not drawn: free  {np.sqrt(np.mean(z500('free') ** 2)):.1f}" in told
    assert f"3dvar  {np.sqrt(np.mean(z500('3dvar') ** 2)):.1f}, given up" in told


def test_labels_of_curves_that_end_together_stand_apart_in_their_order(report: Report) -> None:
    upper, _ = plots.cycle_skill(report).axes
    heights = {text.get_text().split()[0]: text.get_position()[1] for text in upper.texts}
    order = [heights[name] for name in ("ours:alignment=a", "ours", "letkf:members=3", "3dvar")]
    assert np.diff(order).min() >= plots.LABEL_GAP - 1e-9


def test_no_day_has_no_mean() -> None:
    times = [START + i * timedelta(hours=6) for i in range(3)]
    assert plots.running_mean(times, np.ones(3))[0] == plots.running_mean([], np.ones(0))[0] == []


def test_only_ensembles_have_a_spread_and_the_aligned_method_its_ranks(report: Report) -> None:
    spread, *histograms = plots.cycle_ensemble(report).axes
    drawn = lines(spread)
    assert list(drawn) == ENSEMBLES
    for method, (_, ratios) in drawn.items():
        assert_allclose(ratios, METHODS[method] / 100)
    assert [axis.get_title(loc="left") for axis in histograms] == [f"{group}, index 0.30" for group in GROUPS]
    for axis in histograms:
        bars: Any = axis.patches
        assert_allclose([float(bar.get_height()) for bar in bars], [1.6, 1.2, 0.8, 4 * 0.078])


def test_spectra_begin_at_wavenumber_one_and_have_the_error_of_3dvar(report: Report) -> None:
    for axis in plots.spectra(report).axes:
        drawn = lines(axis)
        for label, strength in (("truth", 78), ("mean, ours:alignment=a", 78 / 3), ("error, 3dvar", 100 / 4)):
            assert_allclose(drawn[label], [range(1, 8), [strength / n for n in range(2, 9)]])


def test_every_method_looks_different(report: Report) -> None:
    looks = plots.styles(report)
    assert len({(look.colour, look.dash) for look in looks.values()}) == len(METHODS)
    assert looks["ours"].colour == plots.SHADES["ours"][0]


def test_maps_have_greenwich_in_the_middle_and_one_scale_for_errors_and_increment() -> None:
    field = np.tile(np.arange(8.0), (4, 1)) - 2
    case = plots.MapCase(
        background_error=field, analysis_error=field / 2, increment=-field / 2, spread=abs(field),
        land=(field > 0) * 1.0,
        latitudes=np.array([60.0, 20, -20, -60]), longitudes=np.arange(0.0, 360, 45),
        observed=(np.array([20.0]), np.array([270.0])),
    )  # fmt: skip
    panels: Any = plots.maps(case).axes
    meshes = [panel.collections[-1] for panel in panels[:2]]
    assert_allclose(np.ravel(meshes[0].get_array()).reshape(4, 8)[0], [2, 3, 4, 5, -2, -1, 0, 1])
    assert meshes[0].norm.vmax == meshes[1].norm.vmax == -meshes[0].norm.vmin
    assert_allclose(panels[2].collections[-1].get_offsets(), [[-90, 20]])


def test_the_command_writes_small_pictures(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cycle-60.json").write_text(json.dumps(json.loads(report.model_dump_json())))
    out, names = tmp_path / "images", list(plots.OF_CYCLE)
    monkeypatch.setattr(sys, "argv", ["plots", "--results", str(tmp_path), "--out", str(out), "--only", *names])
    plots.main()
    assert [Path(line).stem for line in capsys.readouterr().out.split()] == names
    for path in out.iterdir():
        assert Image.open(path).width == 900 and path.stat().st_size < 80_000
