"""The networks know the sphere: periodic in longitude, continuous across the poles, and start from what is known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.bundle import Bundle
from models.climate import Climate
from models.diffusion.gaussian import ZonalGaussian
from models.diffusion.prior import LevelPrior, PriorDenoiser
from models.diffusion.schedule import Level
from models.networks.autoencoder import Autoencoder
from models.networks.denoiser import DenoiserNetwork
from models.networks.forecast import ForecastModel
from models.networks.layers import ResidualBlock, SphereConv, geography, pad_sphere
from models.specification import AutoencoderSpec, ChannelSpec, UNetSpec
from tests.models.conftest import Trained

ROWS, COLUMNS, CHANNELS = 8, 16, 5
LATITUDES = torch.arange(ROWS) * -22.5 + 78.75
LONGITUDES = torch.arange(COLUMNS) * 22.5
STATIC = torch.zeros(2, ROWS, COLUMNS)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def autoencoder() -> Autoencoder:
    """Random components, no correction yet (as every autoencoder starts)."""
    model = Autoencoder(AutoencoderSpec(patch=4, latent=6, width=8, blocks=1), CHANNELS, STATIC, LATITUDES, LONGITUDES)
    model.components.copy_(noise(1, *model.components.shape))
    model.synthesis.copy_(noise(2, *model.synthesis.shape))
    return model


def forecast_model(climate: Climate) -> ForecastModel:
    spec = UNetSpec(width=8, deep_width=8, blocks=1, deep_blocks=1, patch=2)
    torch.manual_seed(0)
    channels = [ChannelSpec(variable="t", level=500.0)] * (CHANNELS - 1) + [ChannelSpec(variable="sp", level=None)]
    return ForecastModel(spec, channels, climate, LATITUDES, LONGITUDES)


def test_one_row_beyond_a_pole_is_the_cell_across_the_pole() -> None:
    def smooth(latitude: Tensor, longitude: Tensor) -> Tensor:
        """A function of the place on the sphere, whatever coordinates name it."""
        latitude, longitude = torch.deg2rad(latitude), torch.deg2rad(longitude)
        return latitude.cos() * longitude.cos() + 2 * latitude.cos() * longitude.sin() + latitude.sin()

    field = smooth(*torch.meshgrid(LATITUDES, LONGITUDES, indexing="ij"))
    beyond = torch.cat([LATITUDES[:1] + 22.5, LATITUDES, LATITUDES[-1:] - 22.5])  # 101.25 is 78.75 across the pole
    around = torch.cat([LONGITUDES[:1] - 22.5, LONGITUDES, LONGITUDES[-1:] + 22.5])
    padded = pad_sphere(field[None, None])[0, 0]
    torch.testing.assert_close(padded, smooth(*torch.meshgrid(beyond, around, indexing="ij")), atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [SphereConv(3, 3), ResidualBlock(3)], ids=["convolution", "residual block"])
def test_convolutions_commute_with_rotation_in_longitude(layer: nn.Module) -> None:
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data.copy_(noise(seed, *parameter.shape))
    x = noise(9, 2, 3, ROWS, COLUMNS)
    with torch.no_grad():
        out = layer(x)
        assert out.shape == x.shape and (out - x).abs().max() > 0.1
        for shift in (1, 5, COLUMNS - 1):
            torch.testing.assert_close(layer(x.roll(shift, -1)), out.roll(shift, -1), atol=1e-4, rtol=1e-4)


def test_a_convolution_mirrors_at_the_north_as_at_the_south_pole() -> None:
    """Reflecting field and kernel in the equator reflects the result: neither pole is special."""
    layer, x = SphereConv(1, 1), noise(3, 1, 1, ROWS, COLUMNS)
    with torch.no_grad():
        out = layer(x)
        layer.weight.copy_(layer.weight.flip(-2))
        torch.testing.assert_close(layer(x.flip(-2)).flip(-2), out, atol=1e-5, rtol=1e-5)


def test_the_adjoint_of_the_linear_decoder_is_exact() -> None:
    model = autoencoder()
    z, x = noise(4, 3, 6, 2, 4), noise(5, 3, CHANNELS, ROWS, COLUMNS)
    left, right = (model.decode_linear(z) * x).sum(), (z * model.decode_linear_adjoint(x)).sum()
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-3)


def test_an_untrained_autoencoder_is_linear_and_each_patch_has_its_own_column() -> None:
    model, z = autoencoder(), noise(6, 1, 6, 2, 4)
    with torch.no_grad():
        torch.testing.assert_close(model.decode(z), model.decode_linear(z))
    alone = torch.zeros_like(z)
    alone[..., 1, 2] = z[..., 1, 2]
    reached = model.decode_linear(alone).abs().sum(dim=(0, 1)) > 0
    expected = torch.zeros_like(reached)
    expected[4:8, 8:12] = True
    assert torch.equal(reached, expected)


def test_trained_components_are_a_projection(trained: Trained) -> None:
    model = Bundle.load(trained.bundle).autoencoder
    identity = model.components @ model.synthesis  # float16 on disk
    torch.testing.assert_close(identity, torch.eye(len(identity)), atol=5e-3, rtol=0)


def test_an_untrained_forecast_is_persistence_and_a_step_keeps_the_shape() -> None:
    model = forecast_model(Climate(CHANNELS, ROWS, COLUMNS))
    x, season = noise(7, 3, CHANNELS, ROWS, COLUMNS), torch.tensor([0.0, 0.3, 0.9])
    with torch.no_grad():
        torch.testing.assert_close(model(x, season), x)


def test_a_forecast_tendency_has_the_unit_of_six_hour_changes() -> None:
    climate = Climate(CHANNELS, ROWS, COLUMNS)
    climate.std.copy_(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]))
    climate.tendency_std.copy_(torch.full((CHANNELS,), 2.0))
    model = forecast_model(climate)
    model.network.leave[-1].bias.data.fill_(1.0)  # type: ignore[operator]
    x = noise(8, 1, CHANNELS, ROWS, COLUMNS)
    with torch.no_grad():
        change = (model(x, torch.tensor([0.5])) - x)[0] * climate.std[:, None, None]
    torch.testing.assert_close(change[:-1], torch.full_like(change[:-1], 2.0), rtol=1e-5, atol=1e-5)


def test_a_forecast_conserves_the_mass_of_the_atmosphere_and_nothing_else() -> None:
    """The last channel is surface pressure; the area mean of every other channel is free."""
    model = forecast_model(Climate(CHANNELS, ROWS, COLUMNS))
    for seed, parameter in enumerate(model.network.leave.parameters()):
        parameter.data.copy_(noise(seed, *parameter.shape))
    with torch.no_grad():
        change = model.tendency(noise(8, 2, CHANNELS, ROWS, COLUMNS), torch.tensor([0.1, 0.6]))
    means = (change * model.area).mean(dim=(-2, -1))
    torch.testing.assert_close(means[:, -1], torch.zeros(2), rtol=0, atol=1e-6)
    assert change[:, -1].abs().max() > 0.1 and (means[:, :-1].abs() > 1e-2).all()


def test_a_trained_forecast_knows_the_season_and_the_place(trained: Trained) -> None:
    model = Bundle.load(trained.bundle).forecast
    x = noise(8, 1, 19, 16, 32).expand(2, -1, -1, -1)
    winter, summer = model.tendency(x, torch.tensor([0.0, 0.5]))
    assert (winter - summer).abs().max() > 1e-4
    rolled = model.tendency(x[:1].roll(8, -1), torch.tensor([0.0])).roll(-8, -1)
    assert (rolled[0] - winter).abs().max() > 1e-4


def test_an_untrained_denoiser_is_the_wiener_filter() -> None:
    spec = UNetSpec(width=8, deep_width=8, blocks=1, deep_blocks=1)
    network = DenoiserNetwork(spec, 3, torch.zeros(2, 16, 32), torch.linspace(80, -80, 16), torch.arange(32.0), 4)
    gaussian = ZonalGaussian(torch.eye(4).expand(3, 5, 4, 4) * 0.7)
    root = torch.eye(3).expand(4, 3, 3)
    denoiser = PriorDenoiser(network, LevelPrior(0.1, root, root, gaussian), torch.zeros(1, 3, 4, 8), 0.2)
    x, level = noise(1, 5, 3, 4, 8), Level(0.4)
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x, level), gaussian.denoise(x, level))
    assert denoiser.evaluations == 1


def test_geography_tells_every_place_apart() -> None:
    known = geography(STATIC, LATITUDES, LONGITUDES).numpy()[2:]
    assert len(np.unique(known.reshape(4, -1).round(5), axis=1).T) == ROWS * COLUMNS
