"""Places on land where the simulated network observes: real radiosonde stations (stations.csv, see its NOTICE)."""

import csv
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stations:
    """Fixed places on land: WMO number, degrees, m above sea level (NaN: not known). All [n]."""

    id: NDArray[np.str_]
    latitude: Floats
    longitude: Floats
    elevation: Floats

    def __len__(self) -> int:
        return len(self.id)

    def take(self, index: NDArray[np.intp]) -> "Stations":
        return Stations(self.id[index], self.latitude[index], self.longitude[index], self.elevation[index])


def load_stations(path: str | Path | None = None) -> Stations:
    """Stations of a CSV file (id, latitude, longitude, elevation); the real radiosonde stations shipped here if None."""
    source = files("models.nature") / "stations.csv" if path is None else Path(path)
    rows = list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))
    return Stations(
        np.array([row["id"] for row in rows]),
        np.array([float(row["latitude"]) for row in rows]),
        np.array([float(row["longitude"]) for row in rows]),
        np.array([float(row["elevation"] or "nan") for row in rows]),
    )


def spread_out(stations: Stations, count: int, first: int) -> NDArray[np.intp]:
    """Indices of up to `count` stations, each as far as possible from those chosen before it."""
    latitude, longitude = np.deg2rad(stations.latitude), np.deg2rad(stations.longitude)
    points = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
    chosen = [first]
    nearest = points @ points[first]
    for _ in range(min(count, len(stations)) - 1):
        chosen.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, points @ points[chosen[-1]])
    return np.array(chosen)
