"""One resumable optimisation loop for every stage: AdamW, warm-up and cosine decay, averaged weights.

A stage gives `loss(step) -> scalar`; the loop checkpoints, logs one JSON line a report, and leaves the averaged
weights in the module. On a GPU the networks run in bfloat16 by autocast, the state in float32.
"""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from models.precision import networks_on
from models.training.recipe import StageRecipe

REPORTS = 40
SAVES_EVERY_SECONDS = 120.0


def learning_rate_factor(step: int, stage: StageRecipe) -> float:
    """Linear warm-up, then half a cosine down to 1 %."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def optimise(
    name: str,
    module: nn.Module,
    stage: StageRecipe,
    work: Path,
    loss: Callable[[int], Tensor],
    validate: Callable[[nn.Module], dict[str, float]],
    device: torch.device,
) -> dict[str, float]:
    """Train `module` for `stage.steps` steps, continuing from `work/<name>.pt` when it is there.

    `loss(step)` is evaluated under bfloat16 autocast on a GPU; `validate(averaged module)` returns scores to log.
    Returns the last validation scores.
    """
    averaged = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(stage.average_decay)
    )
    decayed = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": stage.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.98))
    checkpoint, log = work / f"{name}.pt", work / f"{name}.jsonl"
    start, spent, scores = 0, 0.0, {}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        module.load_state_dict(saved["module"])
        averaged.load_state_dict(saved["averaged"])
        optimiser.load_state_dict(saved["optimiser"])
        start, spent, scores = saved["step"], saved["seconds"], saved["scores"]

    def save(step: int) -> None:
        state = {
            "module": module.state_dict(),
            "averaged": averaged.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "seconds": spent + time.monotonic() - began,
            "scores": scores,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        os.replace(checkpoint.with_suffix(".tmp"), checkpoint)

    began = saved_at = time.monotonic()
    running, steps = 0.0, 0  # since the last report
    report = max(1, stage.steps // REPORTS)
    for step in range(start, stage.steps):
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * learning_rate_factor(step, stage)
        with networks_on(device):
            value = loss(step)
        if not torch.isfinite(value):
            raise FloatingPointError(f"{name}: loss is {value.item()} at step {step}; lower its learning rate")
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(module)
        running, steps = running + value.item(), steps + 1
        if (step + 1) % report == 0 or step + 1 == stage.steps:
            with torch.no_grad(), networks_on(device):
                scores = validate(averaged.module)
            seconds = spent + time.monotonic() - began
            row = {"step": step + 1, "of": stage.steps, "loss": running / steps, "seconds": round(seconds), **scores}
            running, steps = 0.0, 0
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(name, json.dumps(row), flush=True)
        if time.monotonic() - saved_at > SAVES_EVERY_SECONDS or step + 1 == stage.steps:
            save(step + 1)
            saved_at = time.monotonic()
    module.load_state_dict(averaged.module.state_dict())
    return scores


def load_averaged(module: torch.nn.Module, checkpoint: Path) -> None:
    """Load the averaged weights that `optimise` saved."""
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint}: run this stage first (`alignda train --stage {checkpoint.stem}`)")
    averaged = torch.load(checkpoint, map_location="cpu", weights_only=True)["averaged"]
    module.load_state_dict({k.removeprefix("module."): v for k, v in averaged.items() if k.startswith("module.")})
