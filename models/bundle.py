"""A model bundle on disk: `bundle.json` (specification) and safetensors weights, checked by sha256.

Weights are stored as float16 (statistics and networks) or float32 (climate); no file holds pickled code.
"""

import hashlib
import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.alignment_card import alignment_names, read_card, weights_path
from models.climate import Climate
from models.covariance.store import COVARIANCE, BalancedStatistics, load_statistics, save_statistics
from models.diffusion.prior import ErrorStatistics
from models.hydrostatic import HYDROSTATIC, HydrostaticBalance
from models.networks.autoencoder import Autoencoder
from models.networks.denoiser import DenoiserNetwork
from models.networks.forecast import ForecastModel
from models.networks.low_rank import LowRankChange
from models.specification import BundleSpec

SHIPPED = Path(__file__).parent / "bundles" / "speedy-t31"
MODULES = ("climate", "statistics", "autoencoder", "forecast", "denoiser")


class BundleError(Exception):
    """A bundle is missing, incomplete or altered."""


def file_digest(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


class Bundle:
    """The modules of one bundle, in evaluation mode, on one device."""

    def __init__(self, spec: BundleSpec) -> None:
        self.spec = spec
        self.directory: Path | None = None
        self._aligned: dict[str, DenoiserNetwork] = {}
        grid = spec.grid
        channels, rows, columns = len(spec.channels), len(grid.latitudes), len(grid.longitudes)
        self.latitudes, self.longitudes = torch.tensor(grid.latitudes), torch.tensor(grid.longitudes)
        coder = spec.networks.autoencoder
        self.covariance: BalancedStatistics | None = None
        self.hydrostatic: HydrostaticBalance | None = None
        self.climate = Climate(channels, rows, columns)
        self.statistics = ErrorStatistics(
            len(spec.error_levels.level), coder.latent, rows // coder.patch, columns // coder.patch, channels
        )

    def build_networks(self) -> None:
        """Create the networks; needs the climate (its static fields and scales are network inputs)."""
        spec, static = self.spec, self.climate.static
        place = (self.latitudes, self.longitudes)
        coder = spec.networks.autoencoder
        self.autoencoder = Autoencoder(coder, len(spec.channels), static, *place)
        self.forecast = ForecastModel(
            spec.networks.forecast, spec.channels, self.climate, *place, spec.networks.truncation
        )
        self.denoiser = DenoiserNetwork(spec.networks.denoiser, coder.latent, static, *place, coder.patch)

    def modules(self) -> dict[str, nn.Module]:
        """Module by file name (without .safetensors)."""
        return {name: getattr(self, name) for name in MODULES}

    def to(self, device: torch.device | str) -> "Bundle":
        """Move every module to `device`, in evaluation mode and without gradients."""
        for module in self.modules().values():
            module.requires_grad_(False).eval().to(device)
        if self.hydrostatic is not None:
            self.hydrostatic = self.hydrostatic.to(device)
        return self

    @classmethod
    def load(cls, directory: Path, device: torch.device | str = "cpu") -> "Bundle":
        """Read and verify a bundle.

        Raises:
            BundleError: no bundle there, its description is wrong, a file is missing or not described, or its sha256
                is not the recorded one.
        """
        description = directory / "bundle.json"
        if not description.exists():
            raise BundleError(f"{directory} holds no bundle.json; train one with `alignda train` or set ALIGNDA_BUNDLE")
        try:
            bundle = cls(BundleSpec.model_validate_json(description.read_text()))
        except ValidationError as error:
            raise BundleError(f"{description} does not describe a bundle: {error}") from error
        bundle.directory = directory
        states = {}
        for name, digest in bundle.spec.files.items():
            path = directory / name
            if not path.exists():
                raise BundleError(f"{path} is missing from the bundle")
            if file_digest(path) != digest:
                raise BundleError(f"{path} is not the file that bundle.json describes (sha256 differs)")
            if name not in (COVARIANCE, HYDROSTATIC):
                states[path.stem] = {key: value.float() for key, value in load_file(path).items()}
        undescribed = [f"{name}.safetensors" for name in MODULES if name not in states]
        if undescribed:
            raise BundleError(f"{description} does not list {', '.join(undescribed)}")
        bundle.climate.load_state_dict(states["climate"])
        bundle.build_networks()
        if COVARIANCE in bundle.spec.files:
            bundle.covariance = load_statistics(directory / COVARIANCE, bundle.spec, bundle.climate)
        if HYDROSTATIC in bundle.spec.files:
            bundle.hydrostatic = HydrostaticBalance.load(directory / HYDROSTATIC, bundle.spec)
        for name, module in bundle.modules().items():
            module.load_state_dict(states[name])
        return bundle.to(device)

    def aligned(self, name: str | None) -> DenoiserNetwork:
        """The denoiser with the alignment `name` merged into its weights; None: as trained. Read once.

        Raises:
            BundleError: there is no such alignment, it was made for another denoiser, or its file was altered.
        """
        if name is None:
            return self.denoiser
        if name not in self._aligned:
            self._aligned[name] = self._read_alignment(name)
        return self._aligned[name]

    def _read_alignment(self, name: str) -> DenoiserNetwork:
        known = [] if self.directory is None else alignment_names(self.directory)
        if self.directory is None or name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none; make one with `alignda align`"
            raise BundleError(f"bundle {self.spec.name} has no alignment {name!r}: {there}")
        path = weights_path(self.directory, name)
        try:
            card = read_card(self.directory, name)
        except ValidationError as error:
            raise BundleError(f"the card of alignment {name!r} cannot be read: {error}") from error
        if card.base_denoiser != self.spec.files["denoiser.safetensors"]:
            raise BundleError(f"alignment {name!r} was made for another denoiser; make it anew with `alignda align`")
        if not path.exists():
            raise BundleError(f"{path} is missing from the bundle")
        if file_digest(path) != card.sha256:
            raise BundleError(f"{path} is not the file that its card describes (sha256 differs)")
        try:
            return LowRankChange.load(path, self.denoiser).merged(self.denoiser)
        except ValueError as error:
            raise BundleError(str(error)) from error

    def save(self, directory: Path) -> BundleSpec:
        """Write weights and `bundle.json`; returns the specification with the digests filled in."""
        directory.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, module in self.modules().items():
            state = {key: value.contiguous().cpu() for key, value in module.state_dict().items()}
            path = directory / f"{name}.safetensors"
            save_file(state if name == "climate" else _half(state), path)
            files[path.name] = file_digest(path)
        if self.covariance is not None:
            save_statistics(directory / COVARIANCE, self.covariance)
            files[COVARIANCE] = file_digest(directory / COVARIANCE)
        if self.hydrostatic is not None:
            self.hydrostatic.save(directory / HYDROSTATIC)
            files[HYDROSTATIC] = file_digest(directory / HYDROSTATIC)
        return self._describe(directory, files)

    def add_hydrostatic(self, balance: HydrostaticBalance) -> BundleSpec:
        """Put a balance into the folder that this bundle was read from; nothing else there is written anew."""
        assert self.directory is not None
        balance.save(self.directory / HYDROSTATIC)
        self.hydrostatic = balance
        digest = file_digest(self.directory / HYDROSTATIC)
        return self._describe(self.directory, {**self.spec.files, HYDROSTATIC: digest})

    def _describe(self, directory: Path, files: dict[str, str]) -> BundleSpec:
        for name in files:
            (directory / name).chmod(0o644)  # safetensors leaves them to their owner; a worker may be another user
        spec = self.spec.model_copy(update={"files": files})
        (directory / "bundle.json").write_text(json.dumps(json.loads(spec.model_dump_json()), indent=1) + "\n")
        return spec
