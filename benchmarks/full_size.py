"""What an analysis costs at the size of Align-DA (arXiv 2505.22008): 69 x 128 x 256, latent 69 x 32 x 64.

Random weights: speed does not depend on them. The denoiser is a transformer of the paper's kind and width (2 x 2 patches,
z_b by cross-attention; 1024 wide, 24 blocks, as its "vit_large"), the decoder has 24 blocks with window attention. Around them run
the product's own sampler, guidance and observation operator. What is too slow on a CPU is extrapolated from fewer
evaluations; each figure says so.
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.assimilation import AnalysisSettings, Assimilator
from models.bundle import Bundle
from models.nature.random_values import SMALLEST_ERROR, random_values
from models.networks.autoencoder import Autoencoder
from models.observation_operator import ObservationSet
from models.precision import networks_on
from models.specification import (
    AutoencoderSpec,
    BalanceReference,
    BundleSpec,
    ChannelSpec,
    ErrorLevels,
    GridSpec,
    NetworksSpec,
    UNetSpec,
)

LEVELS = (50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0, 500.0, 600.0, 700.0, 850.0, 925.0, 1000.0)
ROWS, COLUMNS, PATCH, LATENT = 128, 256, 4, 69
WIDTH, BLOCKS, HEADS, WINDOW = 1024, 24, 16, 8
PAPER_EVALUATIONS = 128 * 3 + 1
VALID_TIME = datetime(2019, 1, 1, tzinfo=UTC)
SEED = 17


class Transformer(nn.Module):
    """The denoiser's place in the prior: tokens of 2 x 2 latent columns, z_b by cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.given = nn.Conv2d(2 * LATENT, WIDTH, 2, 2), nn.Conv2d(LATENT, WIDTH, 2, 2)
        self.scalars = nn.Linear(3, WIDTH)
        self.blocks = nn.ModuleList(
            nn.TransformerDecoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, functional.gelu, batch_first=True, norm_first=True)
            for _ in range(BLOCKS)
        )
        self.leave = nn.ConvTranspose2d(WIDTH, LATENT, 2, 2)

    def forward(
        self, x: Tensor, wiener: Tensor, background: Tensor, modulation: Tensor, log_snr: Tensor, level: Tensor,
        season: Tensor,
    ) -> Tensor:  # fmt: skip
        tokens = self.enter(torch.cat([x, wiener], dim=1))
        shape = tokens.shape[-2:]
        scalars = self.scalars(torch.stack([log_snr, level, season], dim=1))
        h = tokens.flatten(2).mT + scalars[:, None]
        memory = self.given(background).flatten(2).mT
        for block in self.blocks:
            h = block(h, memory)
        out: Tensor = self.leave(h.mT.unflatten(2, shape)).float()
        return out


class WindowAutoencoder(Autoencoder):
    """The bundle's linear part, and 24 blocks with window attention behind it."""

    def use_transformer(self) -> None:
        self.into = nn.Conv2d(LATENT, WIDTH, 1)
        self.window_blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, functional.gelu, batch_first=True, norm_first=True)
            for _ in range(BLOCKS)
        )
        self.out = nn.Conv2d(WIDTH, self.synthesis.shape[0], 1)

    def decode(self, z: Tensor) -> Tensor:
        h = self.into(z)
        batch, _, rows, columns = h.shape
        windows = h.unflatten(3, (-1, WINDOW)).unflatten(2, (-1, WINDOW)).permute(0, 2, 4, 3, 5, 1)
        tokens = windows.reshape(-1, WINDOW * WINDOW, WIDTH)
        for block in self.window_blocks:
            tokens = block(tokens)
        h = tokens.reshape(batch, rows // WINDOW, columns // WINDOW, WINDOW, WINDOW, WIDTH)
        h = h.permute(0, 5, 1, 3, 2, 4).reshape(batch, WIDTH, rows, columns)
        correction = functional.pixel_shuffle(self.out(h).float(), self.spec.patch)
        return self.decode_linear(z) + 1e-3 * correction


def full_size_bundle() -> Bundle:
    """A bundle of this size with random weights and a white Gaussian reference."""
    torch.manual_seed(SEED)
    channels = [ChannelSpec(variable=v, level=p) for v in ("z", "t", "q", "u", "v") for p in LEVELS]
    channels += [ChannelSpec(variable=v, level=None) for v in ("u10", "v10", "t2m", "sp")]
    latitudes = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(ROWS)[0]))[::-1]
    none = UNetSpec(width=8, deep_width=8, blocks=1, deep_blocks=1, patch=1)
    spec = BundleSpec(
        name="full-size", description="random weights", step_hours=6,
        grid=GridSpec(N=ROWS // 2, latitudes=tuple(latitudes), longitudes=tuple(np.arange(COLUMNS) * 360 / COLUMNS)),
        channels=tuple(channels),
        networks=NetworksSpec(
            autoencoder=AutoencoderSpec(patch=PATCH, latent=LATENT, width=8, blocks=1), denoiser=none, forecast=none
        ),
        error_levels=ErrorLevels(lead_hours=(48.0, None), level=(0.3, 1.0)),
        balance=BalanceReference(geostrophic=1.0, hydrostatic=1.0), provenance={}, files={},
    )  # fmt: skip
    bundle = Bundle(spec)
    bundle.build_networks()
    coder = WindowAutoencoder(
        spec.networks.autoencoder, len(channels), bundle.climate.static, bundle.latitudes, bundle.longitudes
    )
    coder.use_transformer()
    basis = torch.linalg.qr(torch.randn(coder.synthesis.shape))[0]
    coder.synthesis.copy_(basis)
    coder.components.copy_(basis.T)
    statistics = bundle.statistics
    statistics.level.copy_(torch.tensor(spec.error_levels.level))
    statistics.root.copy_(statistics.level[:, None, None, None] * torch.eye(LATENT))
    statistics.covariance.copy_(torch.eye(ROWS // PATCH).expand_as(statistics.covariance))
    statistics.channel_error.copy_(statistics.level[:, None].expand_as(statistics.channel_error))
    bundle.autoencoder, bundle.denoiser = coder, Transformer()  # type: ignore[assignment]
    return bundle


def observations(spec: BundleSpec, background: np.ndarray[Any, Any]) -> ObservationSet:
    """1 % of the grid values, off the background by noise, with errors as small as methods are ever told."""
    unit = np.ones(len(spec.channels))
    drawn = random_values(background[0], spec, unit, 0.01, 0.3, np.random.default_rng(SEED))
    return replace(drawn, error=np.full(len(drawn), SMALLEST_ERROR))


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median wall-clock seconds after one run that does not count."""
    found = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return float(np.median(found[1:]))


def measure(assimilator: Assimilator, members: int) -> list[dict[str, Any]]:
    """Seconds of one evaluation of each network, and of whole analyses."""
    device, bundle, spec = assimilator.device, assimilator.bundle, assimilator.spec
    fast = device.type == "cuda"
    rows: list[dict[str, Any]] = []

    def tell(what: str, batch: int, value: float, extrapolated: bool) -> None:
        rows.append({"what": what, "batch": batch, "seconds": value, "extrapolated": extrapolated})
        print(json.dumps(rows[-1]), flush=True)

    for batch in (1, members) if fast else (1,):
        z = torch.randn(batch, LATENT, ROWS // PATCH, COLUMNS // PATCH, device=device)
        one = torch.ones(batch, device=device)
        with torch.no_grad(), networks_on(device):
            arguments = (z, z, z, z[:, :1], one, one, one)
            tell("denoiser", batch, seconds(partial(bundle.denoiser, *arguments), device, 10 if fast else 1), False)
            tell("decoder", batch, seconds(partial(bundle.autoencoder.decode, z), device, 10 if fast else 1), False)
    background = np.zeros((1, len(spec.channels), ROWS, COLUMNS), np.float32)
    given = observations(spec, background)

    def analysis(**settings: Any) -> float:
        chosen = AnalysisSettings(seed=SEED, **settings)
        arguments = (background, given, VALID_TIME, 0.3, chosen)
        return seconds(lambda: assimilator.analyse(*arguments), device, 3 if fast else 1)

    for batch in (1, members) if fast else (1,):
        steps = 8 if fast else 1
        taken = analysis(steps=steps, members=batch)  # one member is the centre alone
        tell("ours: 8 steps, MMPS", batch, taken * 9 / (steps + 1), not fast)
    if not fast:
        lone = next(row["seconds"] for row in rows if row["what"].startswith("ours"))
        tell("ours: 8 steps, MMPS, centre and samples", members, lone * (members + 1), True)
    steps = 4 if fast else 1
    taken = analysis(steps=steps, members=1, sampler="ancestral", guidance="dps")
    tell("paper: 128 ancestral steps, 2 corrections, DPS", 1, taken * PAPER_EVALUATIONS / (3 * steps + 1), True)
    return rows


def main(out: Path, device: str, members: int) -> None:
    """Measure and write."""
    assimilator = Assimilator(full_size_bundle(), device)
    chosen = assimilator.device
    weights = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in (("denoiser", assimilator.bundle.denoiser), ("autoencoder", assimilator.bundle.autoencoder))
    }
    rows = measure(assimilator, members)
    report = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "date": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "machine": f"{platform.machine()} {platform.system()}",
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "seed": SEED,
        "provenance": {"bundle_sha256": "random weights"}, "parameters": weights, "rows": rows,
    }  # fmt: skip
    out.write_text(json.dumps(report, indent=1) + "\n")
