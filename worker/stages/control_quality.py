"""Control the quality: compare every value with the background, then give each its reason code, filter by filter.

Every filter reports how many values came in and how many it rejected; none is dropped without a reason.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.experiments import ExperimentConfig
from service.observations.reasons import Reason
from worker.stages.filters import FILTERS, Comparison, Filter
from worker.stages.observed import Bools, Observed, with_columns
from worker.work import Result, Work

Reasons = npt.NDArray[np.int16]


def run(work: Work) -> Result:
    """Leaves `controlled` on the desk: the observations with error, background, background_spread and qc."""
    observed = Observed(work.desk.table("observations"))
    comparison = compare(observed, work)
    reasons, filters = judge(observed, comparison, work.config)
    if not work.config.assimilate:
        reasons[reasons == Reason.ASSIMILATED] = Reason.PASSIVE
    work.desk.put_table(
        "controlled",
        with_columns(
            observed.table,
            {
                "error": observed.error.astype(np.float32),
                "background": comparison.background.astype(np.float32),
                "background_spread": comparison.spread.astype(np.float32),
                "qc": reasons,
            },
        ),
    )
    used = int((reasons == Reason.ASSIMILATED).sum())
    rejected = int((reasons >= Reason.MISSING_VALUE).sum())
    return Result(
        f"{used} of {len(observed)} values used, {rejected} rejected",
        counts={"used": used, "rejected": rejected, "reasons": by_reason(reasons), "filters": filters},
    )


def compare(observed: Observed, work: Work) -> Comparison:
    """Every value beside the background, where the model has an equivalent."""
    columns = {name: np.full(len(observed), np.nan) for name in Comparison.__dataclass_fields__}
    usable = comparable(observed, work)
    if usable.any():
        some = observed.observations(work.valid_time).where(usable)
        members = work.model.equivalents(work.desk.array("background"), some)
        columns["background"][usable] = members.mean(axis=0, dtype=np.float64)
        if len(members) > 1:
            columns["spread"][usable] = members.std(axis=0, ddof=1, dtype=np.float64)
        level = work.model.error_level(work.background["lead_hours"])
        columns["background_error"][usable] = work.model.background_error(some, level)
        columns["observation_error"][usable] = work.model.observation_error(some)
    return Comparison(**columns)


def comparable(observed: Observed, work: Work) -> Bools:
    """[n]: on the globe and at a level where the model has an equivalent."""
    observations = observed.observations(work.valid_time)
    usable = np.asarray((np.abs(observations.latitude) <= 90) & (np.abs(observations.longitude) <= 360))
    if usable.any():
        usable[usable] = work.model.supported(observations.where(usable))
    return usable


def judge(
    observed: Observed, comparison: Comparison, config: ExperimentConfig, filters: Sequence[Filter] = FILTERS
) -> tuple[Reasons, list[dict[str, Any]]]:
    """The reason of each value [n], and per filter: its name, how many came in, how many it rejected."""
    reasons = np.full(len(observed), Reason.ASSIMILATED, np.int16)
    report = []
    for check in filters:
        candidates = reasons == Reason.ASSIMILATED
        rejected = np.zeros(len(observed), bool)
        # a filter sees only what passed the ones before: a duplicate of a rejected value is not a duplicate
        rejected[candidates] = check.rejects(observed.where(candidates), comparison.where(candidates), config)
        reasons[rejected] = check.reason
        report.append({"filter": check.name, "in": int(candidates.sum()), "rejected": int(rejected.sum())})
    return reasons, report


def by_reason(reasons: Reasons) -> dict[str, int]:
    """Reason name -> number of values."""
    codes, numbers = np.unique(reasons, return_counts=True)
    return {Reason(int(code)).name: int(number) for code, number in zip(codes, numbers, strict=True)}
