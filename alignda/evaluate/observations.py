"""Observations from the service's side of the house: its error table for the simulated network, its table from a file."""

from datetime import UTC, datetime
from pathlib import Path

from models.evaluation.observing import SimulatedNetwork
from models.evaluation.truth_run import TruthRun
from models.nature.network import Network
from models.nature.stations import load_stations
from models.observation_operator import ObservationSet
from service.observations.decoders import decode
from service.observations.error_table import default_error
from service.observations.window import duplicates, select_window
from worker.stages.observed import Observed


def simulated_network(truth: TruthRun, seed: int) -> SimulatedNetwork:
    """The network of the demo, with another seed, of this truth."""
    return SimulatedNetwork(truth, Network(seed, load_stations(), default_error))


class ObservationFile:
    """A Parquet file of the observation table (docs/observations.md); the gross check is left to the harness.

    Each value must pass the checks of arrival; repeated values and those that the sender distrusts (`preqc` 0) are
    left out. Raises DecodeError when the file is not readable.
    """

    screened = False

    def __init__(self, path: Path, window_hours: float) -> None:
        self.batch = decode(path, "application/vnd.apache.parquet", path.stem, datetime.now(UTC))
        self.window_hours = window_hours

    def at(self, valid_time: datetime) -> ObservationSet:
        """What the window around `valid_time` holds."""
        table = select_window(self.batch.table, valid_time, self.window_hours)
        observed = Observed(table)
        observed = observed.where(~duplicates(table) & (observed.number("preqc") != 0) & (observed.error > 0))
        return ObservationSet(**vars(observed.observations(valid_time)))
