"""The backbone's linear layer: the same numbers as torch's, by whichever library multiplies."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.tasks import linear
from harness.tasks.linear import LinearLayer
from harness.tasks.vae import CategoricalVAE

needs_onednn = pytest.mark.skipif(not linear.ONEDNN_IS_FASTER, reason="oneDNN is used on AMD processors with AVX-512")


def torch_linear(x, layer):
    y = F.linear(x, layer.weight, layer.bias)
    return y.relu() if layer.relu else y


def first_and_second_derivatives(forward, layer, x):
    """Gradients of a cubic, and of their own sum of squares: what REBAR and RELAX need."""
    leaf = x.clone().requires_grad_()
    value = forward(leaf).tanh().pow(3).sum()
    slopes = torch.autograd.grad(value, [leaf, *layer.parameters()], create_graph=True)
    return [*slopes, *torch.autograd.grad(slopes[0].pow(2).sum(), [leaf, layer.weight])]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (128, 7), (3, 5, 7), (0, 7)])
def test_equals_torch_in_value_and_in_both_derivatives(shape, relu):
    torch.manual_seed(0)
    layer, x = LinearLayer(7, 4, relu=relu), torch.randn(shape)
    torch.testing.assert_close(layer(x), torch_linear(x, layer))
    ours = first_and_second_derivatives(layer, layer, x)
    theirs = first_and_second_derivatives(lambda leaf: torch_linear(leaf, layer), layer, x)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


@needs_onednn
def test_products_have_the_full_precision_of_float32():
    """No bfloat16 or TF32 inside: the error against float64 is that of float32, 500 times less than bfloat16's."""
    torch.manual_seed(0)
    layer, x = LinearLayer(784, 512), torch.rand(128, 784)
    exact = torch_linear(x.double(), layer.double())
    assert (layer.float()(x) - exact).abs().max() < 1e-5 * exact.abs().max()


@needs_onednn
def test_the_layer_uses_onednn(monkeypatch):
    used = []
    monkeypatch.setattr(linear._Product, "apply", lambda *operands: used.append(operands) or operands[0][:, :4])
    LinearLayer(7, 4)(torch.randn(3, 7))
    assert len(used) == 1


def test_other_dtypes_and_processors_go_to_torch(monkeypatch):
    layer, x = LinearLayer(7, 4), torch.randn(3, 7)
    wide = layer.double()(x.double())
    assert wide.dtype == torch.float64
    monkeypatch.setattr(linear, "ONEDNN_IS_FASTER", False)
    torch.testing.assert_close(layer.float()(x), torch_linear(x, layer), rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nan_stays_nan_through_the_relu(precision):
    """A kernel that takes it for 0 would hide a divergence."""
    layer, x = LinearLayer(7, 4, relu=True, precision=precision), torch.full((3, 7), torch.nan)
    assert layer(x).isnan().all()


def test_bfloat16_rounds_the_products_and_nothing_else():
    torch.manual_seed(0)
    layer, x = LinearLayer(784, 64, relu=True, precision="bfloat16"), torch.rand(16, 784, requires_grad=True)
    y, exact = layer(x), torch_linear(x, layer)
    error = (y - exact).norm() / exact.norm()
    assert 1e-4 < error < 1e-2
    y.sum().backward()
    assert {t.dtype for t in (y, x.grad, layer.weight, layer.weight.grad, layer.bias.grad)} == {torch.float32}


def test_the_backbone_uses_the_layer_with_torchs_initial_weights():
    torch.manual_seed(0)
    vae = CategoricalVAE(n_pixels=9, n_latents=2, n_categories=3, hidden=[5])
    layers = [module for module in vae.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 4
    assert all(type(layer) is LinearLayer for layer in layers)
    torch.manual_seed(0)
    torch.testing.assert_close(layers[0].weight, nn.Linear(9, 5).weight, rtol=0, atol=0)
