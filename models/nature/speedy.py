"""The nature run: SPEEDY (Molteni 2003; `jcm`, T31L8, Earth boundaries) as 6-hourly CF netCDF.

States are on pressure levels and the model's own N24 Gaussian grid (48 x 96), latitude north to south.
The run continues from its checkpoint when it was interrupted; `--seed` perturbs the initial state.
"""

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.nature.pressure_levels import Array, to_pressure_levels

if TYPE_CHECKING:
    from netCDF4 import Dataset

LEVELS_HPA = (925.0, 850.0, 700.0, 500.0, 300.0, 200.0, 100.0)
STEP_HOURS = 6
CHUNK_DAYS = 30
SPINUP_DAYS = 90
REFERENCE_PRESSURE = 1.0e5  # Pa, SPEEDY's p0

UPPER_AIR = {
    "z": ("geopotential", "m2 s-2", "geopotential"),
    "q": ("specific_humidity", "kg kg-1", "specific humidity"),
    "u": ("eastward_wind", "m s-1", "u component of wind"),
    "v": ("northward_wind", "m s-1", "v component of wind"),
    "t": ("air_temperature", "K", "temperature"),
}
SURFACE = {
    "u10": ("eastward_wind", "m s-1", "near-surface u wind (SPEEDY surface layer)"),
    "v10": ("northward_wind", "m s-1", "near-surface v wind (SPEEDY surface layer)"),
    "t2m": ("air_temperature", "K", "near-surface air temperature (SPEEDY, sigma 0.99)"),
    "sp": ("surface_air_pressure", "Pa", "surface pressure"),
}
STATIC = {
    "orography": ("surface_altitude", "m", "model orography"),
    "lsm": ("land_area_fraction", "1", "land-sea mask"),
}


class NatureRun:
    """One SPEEDY integration that can be continued from its last checkpoint."""

    def __init__(self, seed: int, start: datetime) -> None:
        import jcm
        from jcm.forcing import ForcingData
        from jcm.model import Model
        from jcm.physics.speedy.speedy_coords import get_speedy_coords
        from jcm.terrain import TerrainData

        boundary = Path(jcm.__file__).parent / "data" / "bc" / "t30" / "clim"
        coords = get_speedy_coords()
        terrain = TerrainData.from_file(boundary / "terrain.nc", coords)
        self.forcing = ForcingData.from_file(boundary / "forcing.nc", coords=coords, align_mode="wrap_year")
        self.start = start
        self.model = Model(coords=coords, terrain=terrain, start_time=start.strftime("%Y-%m-%dT%H:%M"))
        self.model.bootstrap_state(self.model.initial_state(random_seed=seed))
        latitude = np.rad2deg(np.asarray(coords.horizontal.latitudes))
        self.longitude = np.rad2deg(np.asarray(coords.horizontal.longitudes))
        self.latitude = latitude[::-1]
        self.sigma = np.asarray(coords.vertical.centers, dtype=np.float64)
        self.orography = np.asarray(terrain.orog).T[::-1]
        self.land = np.asarray(terrain.fmask).T[::-1]

    def advance(self, days: int) -> dict[str, Array]:
        """Integrate `days` days; return the 6-hourly states, each [time, (level,) latitude, longitude], SI."""
        predictions = self.model.resume(forcing=self.forcing, save_interval=f"{STEP_HOURS}h", total_time=f"{days}d")
        dynamics, physics = predictions.dynamics, predictions.physics

        def grid(values: Any) -> Array:
            return np.ascontiguousarray(np.swapaxes(np.asarray(values, np.float32), -1, -2)[..., ::-1, :])

        sp = np.float32(REFERENCE_PRESSURE) * grid(dynamics.normalized_surface_pressure)
        column = {
            "z": grid(dynamics.geopotential),
            "q": grid(dynamics.specific_humidity),
            "u": grid(dynamics.u_wind),
            "v": grid(dynamics.v_wind),
            "t": grid(dynamics.temperature),
        }
        states = to_pressure_levels(column, sp, self.sigma, tuple(100.0 * p for p in LEVELS_HPA))
        surface = physics["_surface_flux"]
        states |= {"u10": grid(surface.u0), "v10": grid(surface.v0), "t2m": grid(surface.t0), "sp": sp}
        for name, values in states.items():
            if not np.isfinite(values).all():
                raise FloatingPointError(f"the nature run became non-finite in {name}; try another --seed")
        return states

    def save(self, path: Path) -> None:
        from jcm.checkpoint import save_checkpoint

        save_checkpoint(self.model, path)

    def load(self, path: Path) -> None:
        from jcm.checkpoint import load_checkpoint

        load_checkpoint(self.model, path)


def _create(path: Path, run: NatureRun, seed: int, start: datetime) -> "Dataset":
    from netCDF4 import Dataset

    file = Dataset(path, "w", format="NETCDF4")
    file.setncatts(
        {
            "Conventions": "CF-1.11",
            "title": "SPEEDY T31L8 nature run",
            "source": "jcm (JAX port of SPEEDY), T31L8, climatological Earth boundaries",
            "seed": seed,
            "history": f"alignda nature --seed {seed}, start {start.isoformat()}",
        }
    )
    sizes = {"time": None, "level": len(LEVELS_HPA), "latitude": len(run.latitude), "longitude": len(run.longitude)}
    for name, size in sizes.items():
        file.createDimension(name, size)
    axes = {
        "level": (np.array(LEVELS_HPA), "hPa", "air_pressure", {"positive": "down", "axis": "Z"}),
        "latitude": (run.latitude, "degrees_north", "latitude", {"axis": "Y"}),
        "longitude": (run.longitude, "degrees_east", "longitude", {"axis": "X"}),
    }
    for name, (values, units, standard_name, attributes) in axes.items():
        axis = file.createVariable(name, "f8", (name,))
        axis.setncatts({"units": units, "standard_name": standard_name, **attributes})
        axis[:] = values
    time = file.createVariable("time", "i4", ("time",), chunksizes=(1024,))
    time.setncatts({"units": f"hours since {start:%Y-%m-%d %H:%M:%S}", "calendar": "standard", "standard_name": "time"})
    for name, described in STATIC.items():
        static = file.createVariable(name, "f4", ("latitude", "longitude"))
        static.setncatts(dict(zip(("standard_name", "units", "long_name"), described, strict=True)))
        static[:] = run.orography if name == "orography" else run.land
    shape = (len(run.latitude), len(run.longitude))
    for name, described in (UPPER_AIR | SURFACE).items():
        levels = ("level",) if name in UPPER_AIR else ()
        field = file.createVariable(
            name,
            "f4",
            ("time", *levels, "latitude", "longitude"),
            chunksizes=(4, *(len(LEVELS_HPA),) * len(levels), *shape),
            zlib=True,
            complevel=1,
            significant_digits=6,
        )
        field.setncatts(dict(zip(("standard_name", "units", "long_name"), described, strict=True)))
    return file


def generate(days: int, seed: int, out: Path, start: datetime = datetime(2000, 1, 1), progress: bool = True) -> None:
    """Write `days` days of 6-hourly states to `out`; continue an interrupted run of the same seed and start.

    A spin-up of 90 days before `start` is integrated and thrown away. `out` grows chunk by chunk; beside it
    lie `<out>.checkpoint` (the model) and `<out>.progress.json` (how far it is) until the run is complete.

    Raises:
        ValueError: `days` is not positive, or an interrupted run at `out` has another seed or start.
        FileExistsError: `out` is already a complete run.
    """
    from netCDF4 import Dataset
    from tqdm import tqdm

    if days < 1:
        raise ValueError(f"--days must be at least 1, got {days}")
    checkpoint, status_file = Path(f"{out}.checkpoint"), Path(f"{out}.progress.json")
    identity = {"seed": seed, "start": start.isoformat()}
    done = 0
    run = NatureRun(seed, start - timedelta(days=SPINUP_DAYS))
    if status_file.exists():
        status = json.loads(status_file.read_text())
        if {key: status[key] for key in identity} != identity:
            raise ValueError(f"{out} is an interrupted run with seed {status['seed']} from {status['start']}")
        done = status["days"]
        run.load(checkpoint)
        file = Dataset(out, "a")
    elif out.exists():
        raise FileExistsError(f"{out} exists and is complete; choose another --out")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        run.advance(SPINUP_DAYS)
        file = _create(out, run, seed, start)
    with file, tqdm(total=days, initial=done, unit="day", disable=not progress, desc="nature") as bar:
        while done < days:
            chunk = min(CHUNK_DAYS, days - done)
            states = run.advance(chunk)
            first, count = done * 24 // STEP_HOURS, chunk * 24 // STEP_HOURS
            file["time"][first : first + count] = STEP_HOURS * np.arange(first + 1, first + count + 1)
            for name, values in states.items():
                file[name][first : first + count] = values
            file.sync()
            done += chunk
            run.save(checkpoint)
            temporary = status_file.with_suffix(".tmp")
            temporary.write_text(json.dumps({**identity, "days": done}))
            os.replace(temporary, status_file)
            bar.update(chunk)
    for leftover in (checkpoint, status_file):
        leftover.unlink(missing_ok=True)
