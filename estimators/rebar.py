"""REBAR and RELAX: the score function with a reparameterised relaxation as its control variate.

Two soft codes share the law of the sample: σ_τ(z), whose argmax is the sample D, and σ_τ(z̃), where z̃ is drawn from
the law of z given D. The first has a pathwise gradient, the second a score-function and a pathwise one. Their
difference has mean zero, whatever function is evaluated on them.
"""

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.base import (
    Cost,
    Estimate,
    Estimator,
    add_score,
    check_count,
    check_number,
    learned_weight,
    replace_gradient,
)
from estimators.gumbel import LOWEST, argmax, one_hot, perturb, perturb_given, wide, wide_dtype
from estimators.simplex import log_softmax, softmax
from estimators.transforms import needs_gradient, refuse_learning, refuse_preparing, value_and_slope

WIDEST = 20.0
"""The network of RELAX sees z clipped to ±WIDEST: beyond that, it does not matter how improbable a class is."""


def relaxation_given(log_probs_BLK: Tensor, class_SBL: Tensor) -> tuple[Tensor, Tensor]:
    """Return z̃_SBLK, distributed as log_probs + G given that its argmax is `class_SBL`, and its slope ∂z̃/∂log_probs.

    The noise held fixed, z̃_j = −log(E_j/p_j + E_i) depends on log p_j alone, so the slope has the shape of z̃:
    1 − exp(z̃_j − z̃_i) with i the class, and 0 at i.
    """
    z_SBLK = perturb_given(log_probs_BLK, class_SBL, 1).squeeze(0)
    top_SBL1 = z_SBLK.gather(-1, class_SBL.unsqueeze(-1))
    return z_SBLK, -torch.expm1(z_SBLK - top_SBL1)


class RelaxedControl(Estimator):
    """The score function with a control variate c(z) of the relaxed sample. A subclass defines `control` alone.

    Its own parameters, and a temperature that requires grad, are trained through `control_loss`: the mean over examples
    of ‖ĝ‖². The mean of ĝ does not depend on them, hence E‖ĝ‖² falls exactly as the variance does.
    """

    relaxes = False
    unbiased = True
    evaluates_soft = True
    tau: float

    def __init__(self, *, tau: float, eta: float, n_samples: int, control_lr: float) -> None:
        super().__init__()
        self.tau = tau
        self.eta = learned_weight(self.name, "eta", eta)
        self.n_samples = check_count(self.name, "n_samples", n_samples)
        self.control_lr = check_number(self.name, "control_lr", control_lr, above=0.0)

    @abstractmethod
    def control(self, cost_TB: Tensor, z_TBLK: Tensor) -> Tensor:
        """Return c (T, B), given f(σ_τ(z)) and z = log π + Gumbel noise itself; differentiable in both."""

    @final
    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return three for each sample: the one-hot code and two relaxations of it."""
        return 3 * self.n_samples

    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Average the cost over the samples; the gradient is put together from values and slopes in the codes.

        With ∇ log q(D) = D − π and z, z̃ functions of log π, all terms are h·∂log π/∂θ for some h: h − π Σ_k h_k.
        """
        self.prepare(*logits_BLK.shape[1:])
        n = self.n_samples
        dtype = wide_dtype(logits_BLK)
        log_probs_BLK = log_softmax(wide(logits_BLK.detach())).clamp(min=LOWEST)
        z_SBLK = perturb(log_probs_BLK, n)
        class_SBL = argmax(z_SBLK)
        one_hot_SBLK = one_hot(class_SBL, like=logits_BLK)
        cost_SB = self.evaluate(cost, one_hot_SBLK)
        cost_B = cost_SB.mean(0)
        if not needs_gradient(logits_BLK):
            return Estimate(cost_B, z_SBLK=one_hot_SBLK)

        given_SBLK, slope_SBLK = relaxation_given(log_probs_BLK, class_SBL)
        learned = self._learned()
        refuse_learning(self.name, bool(learned))

        def control(z_TBLK: Tensor) -> Tensor:
            soft_TBLK = softmax(z_TBLK / self.tau).to(logits_BLK.dtype)
            return self.control(self.evaluate(cost, soft_TBLK).to(dtype), z_TBLK)

        # Slopes in the code alone: the decoder receives nothing from the relaxations.
        control_TB, path_TBLK = value_and_slope(control, torch.cat([z_SBLK, given_SBLK]), create_graph=bool(learned))
        weight_SB = cost_SB.detach() - control_TB[n:]
        score_SBLK = weight_SB[..., None, None] * one_hot(class_SBL, like=log_probs_BLK)
        h_BLK = (score_SBLK + path_TBLK[:n] - slope_SBLK * path_TBLK[n:]).mean(0)
        gradient_BLK = h_BLK - log_probs_BLK.exp() * h_BLK.sum(-1, keepdim=True)

        control_loss = _trains_only(learned, gradient_BLK.square().sum() / max(1, len(logits_BLK))) if learned else None
        linear_B = (logits_BLK * gradient_BLK.detach().to(logits_BLK.dtype)).sum((-2, -1))
        return Estimate(add_score(cost_B, linear_B, logits_BLK, name=self.name), control_loss, one_hot_SBLK)

    def _learned(self) -> list[Tensor]:
        """Return what `control_loss` trains: own parameters and a learned temperature, in training mode only."""
        candidates = [*self.parameters(), self.tau] if self.training else []
        return [each for each in candidates if isinstance(each, Tensor) and each.requires_grad]


def _trains_only(learned: list[Tensor], loss: Tensor) -> Tensor:
    """Return the loss with its gradient w.r.t. `learned` alone: the graph of the cost's slopes ends here."""
    slopes = torch.autograd.grad(loss, learned, materialize_grads=True)
    linear = torch.stack([(each * slope).sum().to(loss.dtype) for each, slope in zip(learned, slopes, strict=True)])
    return replace_gradient(loss.detach(), linear.sum())


@final
class Rebar(RelaxedControl):
    """REBAR.

    The cost of a relaxed sample is subtracted from that of the sample; its own gradient, which reparameterisation gives
    with little variance, is added back. Its weight eta is learned.

    Approximates  ∇ E[f(D)]  with  mean over n of  [f(D) − η f(σ_τ(z̃))] ∇ log q(D) + η ∇ f(σ_τ(z)) − η ∇ f(σ_τ(z̃)),
                  z = θ + G,  D = onehot(argmax z),  z̃ ~ z | D with noise of its own,  σ_τ(z) = softmax(z/τ).
    Requires      f twice differentiable and meaningful on soft codes; tau > 0; eta >= 0; n_samples >= 1.
    Bias          none, whatever tau and eta.
    Reference     Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein (2017), "REBAR: Low-variance, unbiased gradient
                  estimates for discrete latent variable models", arXiv:1703.07370, section 3.
    Departures    the plain Concrete relaxation, not the rescaled one of section 3.1; z̃ has noise of its own, where the
                  authors' code couples it with that of z (then z̃ = z in value); one eta and no baseline; eta, and tau
                  if its schedule learns it, minimise ‖ĝ‖² of each example's logits, not of the encoder's weights.
    """

    name = "rebar"
    reference = "Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein (2017), arXiv:1703.07370"
    use_when = "no bias is allowed, the cost is twice differentiable and latents are few; with many, rloo varies less"

    def __init__(self, *, tau: float = 0.5, eta: float = 1.0, n_samples: int = 1, control_lr: float = 1e-3) -> None:
        super().__init__(tau=tau, eta=eta, n_samples=n_samples, control_lr=control_lr)

    def control(self, cost_TB: Tensor, z_TBLK: Tensor) -> Tensor:
        """Return η f(σ_τ(z))."""
        return self.eta * cost_TB


@final
class Relax(RelaxedControl):
    """RELAX.

    REBAR with a small network added to its control variate, for what the relaxed cost does not predict; network and
    weight are learned together.

    Approximates  ∇ E[f(D)]  with  mean over n of  [f(D) − c(z̃)] ∇ log q(D) + ∇ c(z) − ∇ c(z̃),
                  c(z) = η f(σ_τ(z)) + r(z),  z, z̃, D and σ_τ as in REBAR,  r(z) = v·tanh(W z + a) + b.
    Requires      f twice differentiable and meaningful on soft codes; tau > 0; eta >= 0; hidden, n_samples >= 1.
    Bias          none, whatever tau, eta and r.
    Reference     Grathwohl, Choi, Wu, Roeder, Duvenaud (2018), "Backpropagation through the Void: Optimizing control
                  variates for black-box gradient estimation", arXiv:1711.00123, section 3.
    Departures    the relaxed cost has a learned weight eta, as in REBAR (1 in the paper); r sees z = log π + G, which
                  knows no shift of the logits, clipped to ±20, and starts at 0; r does not see the data; the variance
                  that is minimised is that of each example's logits, not of the encoder's weights.
    """

    name = "relax"
    reference = "Grathwohl, Choi, Wu, Roeder, Duvenaud (2018), arXiv:1711.00123"
    use_when = (
        "as rebar, if the relaxed cost predicts the discrete one badly and the run is long enough to learn the rest"
    )

    def __init__(
        self, *, tau: float = 0.5, eta: float = 1.0, hidden: int = 50, n_samples: int = 1, control_lr: float = 1e-3
    ) -> None:
        super().__init__(tau=tau, eta=eta, n_samples=n_samples, control_lr=control_lr)
        self.hidden = check_count(self.name, "hidden", hidden)
        self.first: nn.Linear | None = None
        self.last: nn.Linear | None = None
        self.shape: tuple[int, int] | None = None

    def prepare(self, n_latents: int, n_categories: int, n_context: int = 0) -> None:
        """Make the network r, on the device and in the dtype of eta; its last layer starts at 0.

        Raises ValueError if there is one for another shape.
        """
        shape = n_latents, n_categories
        if self.shape is not None and self.shape != shape:
            raise ValueError(
                f"{self.name}: expected logits of (L, K) = {self.shape}, as it was prepared for, got {shape}."
                " Build one object for each layer."
            )
        if self.first is None:
            refuse_preparing(self.name)
            self.shape = shape
            self.first = nn.Linear(n_latents * n_categories, self.hidden).to(self.eta)
            self.last = nn.Linear(self.hidden, 1).to(self.eta)
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def control(self, cost_TB: Tensor, z_TBLK: Tensor) -> Tensor:
        """Return η f(σ_τ(z)) + r(z)."""
        return self.eta * cost_TB + self.residual(z_TBLK)

    def residual(self, z_TBLK: Tensor) -> Tensor:
        """Return r(z) (T, B), computed in the dtype of z. Raises RuntimeError before `prepare`."""
        if self.first is None or self.last is None:
            raise RuntimeError(f"{self.name}: expected prepare(n_latents, n_categories) to have been called.")
        hidden_TBH = _linear(self.first, z_TBLK.clamp(-WIDEST, WIDEST).flatten(-2)).tanh()
        return _linear(self.last, hidden_TBH).squeeze(-1)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
