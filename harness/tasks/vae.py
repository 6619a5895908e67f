"""The network of the categorical variational auto-encoder. It knows nothing of estimators.

    x_BD --encode--> logits_BLK --(an estimator draws z_SBLK)--> decode --> pixel logits --> Bernoulli likelihood

Letters: S samples, B examples, L latents, K classes, D pixels. Costs and divergences are in nats per example.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from harness.tasks.linear import LinearLayer, Precision

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


def _mlp(sizes: Sequence[int], activation: str, last_activation: str, precision: Precision) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        name = activation if i < len(sizes) - 2 else last_activation
        layers.append(LinearLayer(n_in, n_out, relu=name == "relu", precision=precision))
        if name in _ACTIVATIONS:
            layers.append(_ACTIVATIONS[name]())
    return nn.Sequential(*layers)


class CategoricalVAE(nn.Module):
    """Encoder D → hidden → L·K logits, mirrored decoder L·K → hidden → D pixel logits.

    Weights start as torch starts a `Linear`: uniform in ±1/√fan_in. `precision` is that of the matrix products alone.
    """

    def __init__(
        self,
        *,
        n_pixels: int,
        n_latents: int,
        n_categories: int,
        hidden: Sequence[int],
        activation: str = "relu",
        logits_activation: str = "identity",
        precision: Precision = "float32",
        n_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.n_latents, self.n_categories = n_latents, n_categories
        self.n_outputs = n_outputs or n_categories
        code = n_latents * n_categories
        self.encoder = _mlp([n_pixels, *hidden, n_latents * self.n_outputs], activation, logits_activation, precision)
        self.decoder = _mlp([code, *reversed(hidden), n_pixels], activation, "identity", precision)

    def encode(self, x_BD: Tensor) -> Tensor:
        """Return logits_BLK of the factorised posterior q(z|x), or `n_outputs` numbers in the place of the K."""
        logits_BLK: Tensor = self.encoder(x_BD).unflatten(-1, (self.n_latents, self.n_outputs))
        return logits_BLK

    def decode(self, z_xLK: Tensor) -> Tensor:
        """Return the pixel logits of codes with any leading dimensions: (…, L, K) → (…, D)."""
        pixels: Tensor = self.decoder(z_xLK.flatten(-2))
        return pixels

    def reconstruction_cost(self, x_BD: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the cost an estimator may evaluate: z_SBLK → −log p(x|z), shape (S, B), in nats."""

        def cost(z_SBLK: Tensor) -> Tensor:
            return bernoulli_nll(self.decode(z_SBLK), x_BD)

        return cost


def bernoulli_nll(pixels_xBD: Tensor, x_BD: Tensor) -> Tensor:
    """Return −log p(x) summed over pixels for logits (…, B, D) and targets (B, D) in [0, 1]: shape (…, B).

    For grey targets this is the cross-entropy that the literature reports; it is a likelihood only for binary ones.
    """
    nll_xB: Tensor = _BernoulliNLL.apply(pixels_xBD, x_BD)
    return nll_xB


class _BernoulliNLL(torch.autograd.Function):
    """Σ_d softplus(l) − l·x with softplus(l) = relu(l) − log m, m = max(σ(l), 1 − σ(l)), and Σ log m = log Π m.

    That form needs one sigmoid and an eighth of a logarithm a pixel, both vectorised on every CPU, where torch's
    softplus and log-sigmoid are scalar. It is a fifth of the time of `binary_cross_entropy_with_logits`, and equally
    stable: m ≥ ½, so a product of eight is at least 2⁻⁸. The backward pass is plain differentiable torch, so second
    derivatives (REBAR, RELAX) are right.
    """

    @staticmethod
    def forward(ctx: Any, pixels_xBD: Tensor, x_BD: Tensor) -> Tensor:
        ctx.save_for_backward(pixels_xBD, x_BD)
        sigmoid = torch.sigmoid(pixels_xBD)
        likelier = torch.maximum(sigmoid, 1 - sigmoid)
        for _ in range(3):
            half = likelier.shape[-1] // 2
            if likelier.shape[-1] % 2 == 0:
                likelier = likelier[..., :half] * likelier[..., half:]
        linear_xBD = torch.addcmul(pixels_xBD.clamp_min(0), pixels_xBD, x_BD, value=-1)
        nll_xB: Tensor = linear_xBD.sum(-1) - likelier.log().sum(-1)
        return nll_xB

    @staticmethod
    def backward(ctx: Any, grad_xB: Tensor) -> tuple[Tensor | None, None]:
        pixels_xBD, x_BD = ctx.saved_tensors
        return (torch.sigmoid(pixels_xBD) - x_BD) * grad_xB.unsqueeze(-1), None
