"""`alignda demo --real FILE`: real radiosondes, a cold start, and a fifth of the stations kept back to verify."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from alignda.client import Client, GatewayError
from alignda.demo.run import DemoOptions, free_port, prepare_folder
from alignda.embedded import background_service

WITHHELD = 0.2
GRAVITY = 9.80665
STANDARD_LEVEL_TOLERANCE = 0.001
SHOWN = {"z500 [gpm]": ("z", 50000.0, 1 / GRAVITY), "t850 [K]": ("t", 85000.0, 1.0)}
WIND_LEVEL = 50000.0


def run_real(options: DemoOptions, file: Path, valid_time: datetime, say: Callable[[str], None]) -> dict[str, Any]:
    """Analyse the soundings of `file` from the climatology; returns RMSE at withheld and at used stations.

    The result, `{"WITHHELD" | "ASSIMILATED": {variable: {"before", "after", "count"}}}`, is also written to real.json.
    Raises GatewayError when the file is refused or the cycle fails.
    """
    from service.settings import Settings

    prepare_folder(options.out, options.resume)
    settings = Settings(
        data_dir=options.out / "service",
        host="127.0.0.1",
        port=options.port or free_port(),
    )
    with background_service(settings) as url, Client(url) as client:
        batch = client.post_observations(file, source="gts")
        say(f"{file.name}: {batch['received']} values, {batch['rejected']} rejected on arrival {batch['reasons']}")
        config = {"members": options.members, "withheld_fraction": WITHHELD, "seed": 1, "forecast_hours": 48}
        client.create_experiment("real", config)
        cycle = client.wait(client.run_cycle("real", valid_time.replace(tzinfo=UTC))["id"])
        if cycle["state"] not in ("done", "degraded"):
            raise GatewayError(f"the cycle {cycle['state']}", str(cycle["error"]))
        product = next(p for p in client.products(cycle["id"]) if (p["kind"], p["format"]) == ("departures", "parquet"))
        departures = client.download(product, options.out / "departures.parquet")
    result = {name: departures_rmse(departures, name) for name in ("WITHHELD", "ASSIMILATED")}
    summary = {"cycle": {"state": cycle["state"], "counts": cycle["counts"], "seconds": cycle["seconds"]}, **result}
    (options.out / "real.json").write_text(json.dumps(summary, indent=1) + "\n")
    for reason, scores in result.items():
        for name, score in scores.items():
            say(
                f"{reason.lower():<12} {name:<12} RMSE {score['before']:8.2f} before, {score['after']:8.2f} after "
                f"({score['count']} values)"
            )
    return result


def departures_rmse(path: Path, reason: str) -> dict[str, dict[str, float]]:
    """RMS of O - climatology and O - analysis at standard levels over the rows with this reason."""
    import pyarrow.parquet as pq

    from service.observations.reasons import Reason

    table = pq.read_table(path)
    rows = table.filter((table.column("qc").to_numpy() == Reason[reason]).tolist())
    columns = {
        name: rows.column(name).to_numpy().astype(float) for name in ("pressure", "value", "background", "analysis")
    }
    variable = np.array(rows.column("variable").to_pylist())

    def score(names: tuple[str, ...], pressure: float, factor: float) -> dict[str, float]:
        near = np.abs(columns["pressure"] / pressure - 1) < STANDARD_LEVEL_TOLERANCE
        chosen = near & np.isin(variable, names) & np.isfinite(columns["analysis"])
        out: dict[str, float] = {"count": int(chosen.sum())}
        if not chosen.any():
            raise GatewayError(
                "Nothing to verify", f"no {reason.lower()} value of {', '.join(names)} at {pressure / 100:.0f} hPa"
            )
        for label, field in (("before", "background"), ("after", "analysis")):
            departure = (columns["value"] - columns[field])[chosen] * factor
            out[label] = float(np.sqrt(np.mean(departure**2) * len(names)))
        return out

    scores = {name: score((variable_,), pressure, factor) for name, (variable_, pressure, factor) in SHOWN.items()}
    scores["wind500 [m/s]"] = score(("u", "v"), WIND_LEVEL, 1.0)
    return scores
