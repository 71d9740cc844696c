"""What the API returns and takes, as it stands in the OpenAPI document. Times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from service.catalogue.tables import CycleState, ExperimentState, FieldPurpose
from service.experiments import NAME_PATTERN, ExperimentConfig, Utc, ValidTime
from service.observations.configuration import ObservationConfiguration

Item = TypeVar("Item")

EXPERIMENT_NAME = Annotated[str, Field(pattern=NAME_PATTERN, examples=["demo"])]
BUNDLE_NAME = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", examples=["speedy-t31"])]


class PageOf(BaseModel, Generic[Item]):
    """A slice of a collection: `offset .. offset + len(items)` of `total`."""

    items: list[Item]
    total: int
    limit: int
    offset: int


class FromRow(BaseModel):
    """Made from a row of the catalogue."""

    model_config = ConfigDict(from_attributes=True)


class BatchView(FromRow):
    """An upload of observations; `reasons` counts the values rejected on arrival by reason code."""

    id: int
    sha256: str
    source: str
    media_type: str
    received_at: datetime
    time_min: datetime | None
    time_max: datetime | None
    received: int
    rejected: int
    reasons: dict[str, int] = Field(validation_alias="counts")
    notes: list[str]
    status: str


class StoredValueView(BaseModel):
    """One stored value in SI units, as docs/observations.md has it; `id` is its name, the same through every feed."""

    id: str
    time: datetime
    receipt_time: datetime
    latitude: float
    longitude: float
    pressure: float | None
    height: float | None
    variable: str
    value: float
    error: float | None
    type: str
    station: str
    source: str
    preqc: int | None


class FieldView(FromRow):
    """A posted field; `notes` say what was regridded, converted or derived."""

    id: int
    sha256: str
    purpose: FieldPurpose
    experiment_id: int | None
    valid_time: datetime
    lead_hours: int | None
    received_at: datetime
    notes: list[str]


class ExperimentRequest(BaseModel):
    """A new experiment; without `bundle` the default one is used."""

    model_config = ConfigDict(extra="forbid")

    name: EXPERIMENT_NAME
    bundle: BUNDLE_NAME | None = None
    config: ExperimentConfig = Field(default_factory=ExperimentConfig)


class ExperimentView(FromRow):
    """A named cycling configuration."""

    id: int
    name: str
    state: ExperimentState
    bundle: str
    config: ExperimentConfig
    created_at: datetime


class ObservationConfigurationView(BaseModel):
    """What is done with observations: `changes` to what is shipped, what comes out, and its sha256."""

    experiment: str
    sha256: str
    changes: dict[str, Any]
    configuration: ObservationConfiguration


class BiasView(BaseModel):
    """One coefficient in the unit of the variable; `station` "" is the whole type; `std` its own uncertainty.

    `cycles`: in how many it was seen; `seen`: the last of them; `valid_time`: the cycle after which it stood so.
    """

    type: str
    station: str
    variable: str
    predictor: str
    value: float
    std: float
    cycles: int
    seen: datetime
    valid_time: datetime


class CycleRequest(BaseModel):
    """A cycle to run; with `as_of` only what had been received by then is used (a replay)."""

    model_config = ConfigDict(extra="forbid")

    valid_time: ValidTime
    as_of: Utc | None = None


class Degradation(BaseModel):
    """A fallback that was used."""

    reason: str
    detail: str = ""


class CycleView(FromRow):
    """One valid time of an experiment and how far it is. `seconds` by stage, `counts` of observations,
    `verified_with`: the field that its RMSEs are against (its events say so if there are none)."""

    id: int
    experiment_id: int
    valid_time: datetime
    state: CycleState
    stage: str | None
    degraded: list[Degradation]
    error: str | None
    attempt: int
    seed: int
    counts: dict[str, Any]
    seconds: dict[str, float]
    background: dict[str, Any] | None
    verified_with: int | None
    as_of: datetime | None
    cutoff_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class EventView(FromRow):
    """One step of a cycle; `fraction` of the running stage."""

    id: int
    cycle_id: int
    time: datetime
    stage: str
    message: str
    fraction: float | None


class ProductView(FromRow):
    """A published file; GET /v1/products/{id}/content downloads it."""

    id: int
    cycle_id: int
    kind: str
    format: str
    lead_hours: int
    path: str
    sha256: str
    size: int
    created_at: datetime


class ScoreView(FromRow):
    """One number about a cycle. `level` in hPa, null at the surface; `type` is the report type, "" for all."""

    id: int
    cycle_id: int
    name: str
    field: str
    variable: str
    type: str
    level: float | None
    lead_hours: int | None
    value: float | None
    unit: str
    valid_time: datetime


class DepartureView(BaseModel):
    """One observed value and what the cycle made of it, in SI units; `reason` names the reason code `qc`.

    `check_value` and `check_limit`: the number of the check that rejected it, else of the first-guess check.
    `influence`: d H(x_a) / d y, of what was assimilated.
    """

    model_config = ConfigDict(extra="allow")

    id: str | None = None
    time: datetime | None = None
    station: str | None = None
    type: str | None = None
    variable: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    pressure: float | None = None
    value: float | None = None
    error: float | None = None
    bias: float | None = None
    background: float | None = None
    background_spread: float | None = None
    background_error: float | None = None
    observation_error: float | None = None
    weight: float | None = None
    o_b: float | None = None
    analysis: float | None = None
    analysis_spread: float | None = None
    o_a: float | None = None
    influence: float | None = None
    check_value: float | None = None
    check_limit: float | None = None
    qc: int | None = None
    reason: str | None = None


class CycleDepartureView(DepartureView):
    """The same with the cycle that it is from."""

    cycle_id: int
    valid_time: datetime


class DepartureStatisticsView(BaseModel):
    """A group of a cycle's values; "" is all together. docs/scores.md defines the numbers (SI units)."""

    cycle_id: int
    valid_time: datetime
    use: str
    type: str
    variable: str
    layer: str
    region: str
    count: int
    compared: int
    reasons: dict[str, int]
    bias_background: float | None = None
    rms_background: float | None = None
    bias_analysis: float | None = None
    rms_analysis: float | None = None
    sigma_o: float | None = None
    sigma_o_diagnosed: float | None = None
    sigma_b: float | None = None
    sigma_b_diagnosed: float | None = None
    chi_square: float | None = None
    chi_square_analysis: float | None = None
    dfs: float | None = None
    dfs_error: float | None = None
    dfs_departures: float | None = None


class Health(BaseModel):
    """The process answers."""

    status: str


class Readiness(BaseModel):
    """Whether requests can be served; `checks` says "ok" or what is wrong, by part."""

    ready: bool
    checks: dict[str, str]
