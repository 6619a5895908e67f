"""The backbones of the categorical VAE: shapes, what a latent sees, settings and their part in the run key."""

import pytest
import torch
from pydantic import ValidationError

from harness.config import EstimatorConfig, ModelConfig, RunConfig
from harness.tasks.backbones import encoder_and_decoder
from harness.tasks.linear import LinearLayer
from harness.tasks.vae import CategoricalVAE


def make(backbone: str, image_shape: tuple[int, ...] = (28, 28), n_latents: int = 49, **changes: object):
    settings = {"n_categories": 5, "hidden": (8,), "channels": (4, 6), "backbone": backbone, "n_latents": n_latents}
    return CategoricalVAE(image_shape=image_shape, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", ["mlp", "linear", "conv"])
@pytest.mark.parametrize("image_shape", [(28, 28), (3, 28, 28)])
def test_shapes(backbone: str, image_shape: tuple[int, ...]) -> None:
    n_pixels = 28 * 28 * (3 if len(image_shape) == 3 else 1)
    vae = make(backbone, image_shape, n_outputs=8)
    assert vae.encode(torch.rand(2, n_pixels)).shape == (2, 49, 8)
    assert vae.decode(torch.rand(2, 49, 5)).shape == (2, n_pixels)
    assert vae.decode(torch.rand(3, 1, 2, 49, 5)).shape == (3, 1, 2, n_pixels)


@pytest.mark.parametrize("backbone", ["mlp", "linear", "conv"])
def test_codes_are_decoded_one_by_one(backbone: str) -> None:
    vae, codes = make(backbone).double(), torch.rand(3, 2, 49, 5, dtype=torch.float64)
    together = vae.decode(codes)
    for s in range(3):
        torch.testing.assert_close(vae.decode(codes[s, :1])[0], together[s, 0])


def test_the_mlp_starts_from_the_same_numbers_as_ever() -> None:
    torch.manual_seed(3)
    vae = make("mlp", n_latents=2)
    torch.manual_seed(3)
    layers = [LinearLayer(784, 8, relu=True), LinearLayer(8, 10), LinearLayer(10, 8, relu=True), LinearLayer(8, 784)]
    expected = [parameter for layer in layers for parameter in layer.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(vae.parameters(), expected, strict=True))
    assert list(vae.state_dict())[:2] == ["encoder.0.weight", "encoder.0.bias"]
    x = torch.rand(3, 784)
    assert torch.equal(vae.encode(x).flatten(1), layers[1](layers[0](x)))


def test_linear_is_one_layer_each_way() -> None:
    vae = make("linear", n_latents=20)
    assert [tuple(one.shape) for one in vae.parameters()] == [(100, 784), (100,), (784, 100), (784,)]


def test_a_latent_of_conv_sees_its_own_place_of_the_image_and_draws_there() -> None:
    vae = make("conv").double()
    x = torch.rand(1, 784, dtype=torch.float64, requires_grad=True)
    place = 3 * 7 + 2  # row 3, column 2 of the grid
    (slope,) = torch.autograd.grad(vae.encode(x)[0, place].sum(), x)
    rows, columns = slope.view(28, 28).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 18, 5, 14)  # 10 × 10 around 12–15, 8–11
    z = torch.zeros(2, 49, 5, dtype=torch.float64)
    z[:, :, 0] = 1
    z[1, place] = z[1, place].roll(1)
    one, other = vae.decode(z).view(2, 28, 28)
    rows, columns = (one - other).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 18, 5, 14)


def test_activations_are_options_of_conv_too() -> None:
    encoder, _ = encoder_and_decoder(
        "conv",
        image_shape=(8, 8),
        n_latents=4,
        n_categories=3,
        n_outputs=3,
        hidden=(),
        channels=(4, 4),
        activation="gelu",
        logits_activation="tanh",
        precision="float32",
    )
    found = encoder(torch.randn(5, 64) * 100)
    assert found.abs().max() <= 1
    assert sum(isinstance(layer, torch.nn.GELU) for layer in encoder.layers) == 2


def run_of(**model: object) -> RunConfig:
    return RunConfig(model=ModelConfig(**model), estimator=EstimatorConfig(name="rloo"))  # type: ignore[arg-type]


def test_the_default_backbone_is_no_setting() -> None:
    assert run_of().key == run_of(backbone="mlp").key
    assert set(ModelConfig().model_dump()) == {
        "n_latents",
        "n_categories",
        "hidden",
        "activation",
        "logits_activation",
        "precision",
    }
    assert "backbone" not in run_of(backbone="mlp").to_json()


def test_other_backbones_are_settings_without_those_of_the_mlp() -> None:
    conv, linear = run_of(backbone="conv", n_latents=49), run_of(backbone="linear")
    assert len({conv.key, linear.key, run_of().key, run_of(backbone="conv", n_latents=49, channels=(8, 8)).key}) == 4
    assert {"model.backbone", "model.channels"} <= conv.flat().keys()
    assert "model.hidden" not in conv.flat()
    assert "model.channels" not in linear.flat()
    for run in (conv, linear):
        assert RunConfig.from_json(run.to_json()) == run
        assert RunConfig.from_json(run.to_json()).key == run.key


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"backbone": "linear", "hidden": (3,)}, r"hidden: expected none with backbone linear, got \[3\]"),
        ({"channels": (3,)}, r"channels: expected none with backbone mlp, got \[3\]"),
        ({"backbone": "conv", "n_latents": 20}, r"model.n_latents: expected 49 = 7 × 7 with .+ 28 × 28, got 20"),
        (
            {"backbone": "conv", "n_latents": 9, "channels": (2, 2, 2)},
            "model.channels: expected images whose sides can be halved 3 times, got 28 × 28",
        ),
        ({"backbone": "conv", "n_latents": 49, "precision": "bfloat16"}, "precision: expected float32 with backbone"),
        ({"hidden": ()}, "hidden"),
    ],
)
def test_settings_that_do_not_fit_are_refused(model: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        run_of(**model)
