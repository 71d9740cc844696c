"""Control the quality: take off known biases, compare every value with the background, give each its reason code.

Every filter reports how many values came in and how many it rejected; none is dropped without a reason. What is
kept gets a weight, and what was seen is remembered for the next cycle.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.observation_state import KIND
from service.observations.configuration import digest, key, to_yaml
from service.observations.reasons import Reason
from worker.stages import bias, memory
from worker.stages.filters import FILTERS, Comparison, Filter, Setting, Verdict
from worker.stages.filters.background import huber_weight
from worker.stages.memory import Memory
from worker.stages.observed import Bools, Doubles, Observed, with_columns
from worker.stages.superobs import append_superobs
from worker.work import Result, Work

Reasons = npt.NDArray[np.int16]


def run(work: Work) -> Result:
    """Leaves `controlled` (the observations with bias, error, background, spread, weight and qc) and
    `observation_state` on the desk."""
    known = memory.recall(work)
    setting = setting_of(work, known)
    observed = without_bias(work.desk.table("observations"), known, setting)
    comparison = compare(observed, work)
    reasons, filters, number, limit = judge(observed, comparison, setting)
    remember(work, known, observed, comparison, reasons, setting)
    weight = weights(observed, comparison, reasons, setting)
    controlled, superobs = append_superobs(
        with_columns(
            observed.table,
            {
                "error": observed.error.astype(np.float32),
                "background": comparison.background.astype(np.float32),
                "background_spread": comparison.spread.astype(np.float32),
                "weight": weight.astype(np.float32),
                "qc": reasons,
                "check_value": number.astype(np.float32),
                "check_limit": limit.astype(np.float32),
            },
        ),
        observed,
        comparison,
        reasons,
        setting,
        lambda some: compare(some, work),
    )
    return _result(work, controlled, superobs, filters, setting)


def _result(work: Work, controlled: pa.Table, superobs: int, filters: list[dict[str, Any]], setting: Setting) -> Result:
    reasons = controlled.column("qc").to_numpy()
    if not work.config.assimilate:
        reasons = np.where(reasons == Reason.ASSIMILATED, np.int16(Reason.PASSIVE), reasons).astype(np.int16)
        controlled = with_columns(controlled, {"qc": reasons})
    work.desk.put_table("controlled", controlled)
    used, rejected = int((reasons == Reason.ASSIMILATED).sum()), int((reasons >= Reason.MISSING_VALUE).sum())
    return Result(
        f"{used} of {len(reasons)} values used, {rejected} rejected",
        counts={
            "used": used,
            "rejected": rejected,
            "reasons": by_reason(reasons),
            "filters": filters,
            "superobs": superobs,
            "configuration": store_configuration(work, setting),
        },
    )


def setting_of(work: Work, known: Memory) -> Setting:
    """What the filters are told beside the values."""
    ratios = {group: ratio.value for group, ratio in known.ratios.items()}
    return Setting(work.config, work.config.observation_configuration, work.valid_time, ratios, known.unchanged)


def without_bias(table: pa.Table, known: Memory, setting: Setting) -> Observed:
    """The values with the column `bias`, which Observed.value takes off."""
    reported = Observed(table, setting.configuration)
    taken_off = bias.biases(reported, known.biases, setting)
    return Observed(with_columns(table, {"bias": taken_off.astype(np.float32)}), setting.configuration)


def store_configuration(work: Work, setting: Setting) -> str:
    """The sha256 of the configuration, under which the archive has it."""
    sha256 = digest(setting.configuration)
    if not work.archive.path(key(sha256)).is_file():
        work.archive.put(to_yaml(setting.configuration).encode(), key(sha256))
    return sha256


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
    observed: Observed, comparison: Comparison, setting: Setting, filters: Sequence[Filter] = FILTERS
) -> tuple[Reasons, list[dict[str, Any]], Doubles, Doubles]:
    """The reason of each value [n]; per filter: its name, how many came in, how many it took out; the number that
    decided about each value and its limit [n]: of the check that rejected it, else of the one that is `kept`."""
    reasons = np.full(len(observed), Reason.ASSIMILATED, np.int16)
    number, limit = np.full(len(observed), np.nan), np.full(len(observed), np.nan)
    report = []
    for check in filters:
        candidates = reasons == Reason.ASSIMILATED
        rejected = np.zeros(len(observed), bool)
        # a filter sees only what passed the ones before: a duplicate of a rejected value is not a duplicate
        verdict = Verdict.of(check.rejects(observed.where(candidates), comparison.where(candidates), setting))
        rejected[candidates] = verdict.rejected
        which = np.ones(len(verdict.rejected), bool) if check.kept else verdict.rejected
        told = np.flatnonzero(candidates)[which]
        number[told], limit[told] = verdict.value[which], verdict.limit[which]
        reasons[rejected] = check.reason
        entry = {"filter": check.name, "reason": check.reason.name}
        report.append({**entry, "in": int(candidates.sum()), "rejected": int(rejected.sum())})
    return reasons, report, number, limit


def weights(observed: Observed, comparison: Comparison, reasons: Reasons, setting: Setting) -> Doubles:
    """Factor on 1/R of what is used [n]; nan for everything else."""
    out, used = np.full(len(observed), np.nan), reasons == Reason.ASSIMILATED
    if used.any():
        out[used] = huber_weight(observed.where(used), comparison.where(used), setting)
    return out


def remember(
    work: Work, known: Memory, observed: Observed, comparison: Comparison, reasons: Reasons, setting: Setting
) -> None:
    """What the next cycle will know, on the desk until this cycle publishes."""
    telling = memory.compared(reasons)
    some, beside = observed.where(telling), comparison.where(telling)
    # a value that was refused for being stuck is the one to be remembered
    placed = observed.where(telling | (reasons == Reason.STUCK))
    after = Memory(
        memory.update_ratios(known.ratios, some, beside, setting),
        bias.update(known.biases, some, beside, setting),
        memory.update_unchanged(known.unchanged, placed, setting),
    )
    work.desk.put_table(KIND, memory.to_table(after))


def by_reason(reasons: Reasons) -> dict[str, int]:
    """Reason name -> number of values."""
    codes, numbers = np.unique(reasons, return_counts=True)
    return {Reason(int(code)).name: int(number) for code, number in zip(codes, numbers, strict=True)}
