"""One cycle of the demo in numbers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class CycleRow:
    """One cycle as the summary tells it; RMSE against the truth in SI units."""

    valid_time: datetime
    status: str
    rmse: dict[str, dict[str, float]]
    observations: dict[str, int]
    departures: dict[str, float | None]
    geo_score: float | None
    hydro_score: float | None
    spread_skill: float | None
    seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "valid_time": self.valid_time.isoformat().replace("+00:00", "Z")}
