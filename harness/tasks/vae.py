"""The network of the categorical variational auto-encoder. It uses no estimators.

    x_BD --encode--> logits_BLK --(an estimator draws z_SBLK)--> decode --> pixel logits --> Bernoulli likelihood

Letters: S samples, B examples, L latents, K classes, D pixels. Costs and divergences are in nats per example.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.tasks.backbones import Backbone, encoder_and_decoder
from harness.tasks.linear import Precision


class CategoricalVAE(nn.Module):
    """Encoder D → hidden → L·K logits, mirrored decoder L·K → hidden → D pixel logits, or those of another backbone.

    The sizes of the images are `n_pixels`, or `image_shape` where the backbone needs it (`conv`).
    Weights start as torch starts a `Linear`: uniform in ±1/√fan_in. `precision` is that of the matrix products alone.
    """

    def __init__(
        self,
        *,
        n_latents: int,
        n_categories: int,
        hidden: Sequence[int] = (),
        n_pixels: int = 0,
        image_shape: tuple[int, ...] = (),
        backbone: Backbone = "mlp",
        channels: Sequence[int] = (),
        activation: str = "relu",
        logits_activation: str = "identity",
        precision: Precision = "float32",
        n_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.n_latents, self.n_categories = n_latents, n_categories
        self.n_outputs = n_outputs or n_categories
        self.encoder, self.decoder = encoder_and_decoder(
            backbone,
            image_shape=image_shape or (n_pixels,),
            n_latents=n_latents,
            n_categories=n_categories,
            n_outputs=self.n_outputs,
            hidden=hidden,
            channels=channels,
            activation=activation,
            logits_activation=logits_activation,
            precision=precision,
        )

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
