"""Gumbel-Softmax, relaxed and straight-through, with one temperature or two."""

from typing import final

import torch
from torch import Tensor

from estimators.base import Pathwise, check_count, replace_gradient, temperature
from estimators.gumbel import argmax, one_hot, perturb
from estimators.simplex import softmax


@final
class GumbelSoftmax(Pathwise):
    """Gumbel-Softmax relaxation (Concrete distribution).

    The argmax of logits + Gumbel noise is a categorical sample; a softmax at temperature tau replaces that argmax.

    Approximates  ∇ E[f(D)]  with  (1/τ) J(S) ∇f(S),  S = softmax((θ + G)/τ),  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable and meaningful on soft codes; n_samples >= 1; tau > 0.
    Bias          the exact gradient of E[f(S)], not of E[f(D)]; falls as τ → 0, while the variance grows.
    Reference     Jang, Gu, Poole (2017), "Categorical Reparameterization with Gumbel-Softmax", arXiv:1611.01144,
                  eq. (2); Maddison, Mnih, Teh (2017), "The Concrete Distribution", arXiv:1611.00712, section 3.
    Departures    none from Jang et al.; unlike in Maddison et al., no density of the relaxed code enters the objective.
    """

    name = "gumbel_softmax"
    reference = "Jang, Gu, Poole (2017), arXiv:1611.01144; Maddison, Mnih, Teh (2017), arXiv:1611.00712"
    use_when = "the cost accepts soft codes and low variance matters; anneal tau, and evaluate with one-hot codes"
    relaxes = True
    tau: float

    def __init__(self, *, tau: float = 1.0, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return soft codes."""
        return softmax(perturb(logits_BLK, self.n_samples) / self.tau)


@final
class STGumbelSoftmax(Pathwise):
    """Straight-through Gumbel-Softmax.

    The cost sees the one-hot argmax of the very sample whose softmax relaxation carries the gradient.

    Approximates  ∇ E[f(D)]  with  (1/τ) J(S) ∇f(D),  S = softmax((θ + G)/τ),  D = onehot(argmax S).
    Requires      f differentiable at one-hot codes; n_samples >= 1; tau > 0.
    Bias          yes: ∇f is taken at D, its Jacobian at S. It vanishes as τ → 0 for linear f only; the variance grows.
    Reference     Jang, Gu, Poole (2017), "Categorical Reparameterization with Gumbel-Softmax", arXiv:1611.01144,
                  section 2.2.
    Departures    none.
    """

    name = "st_gumbel_softmax"
    reference = "Jang, Gu, Poole (2017), arXiv:1611.01144"
    use_when = "the cost needs one-hot codes, and code and gradient are to share their noise"
    relaxes = False
    tau: float

    def __init__(self, *, tau: float = 1.0, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with the gradient of their relaxation."""
        perturbed_SBLK = perturb(logits_BLK, self.n_samples)
        soft_SBLK = softmax(perturbed_SBLK / self.tau).to(logits_BLK.dtype)
        return replace_gradient(one_hot(argmax(perturbed_SBLK), like=logits_BLK), soft_SBLK)


@final
class DecoupledSTGS(Pathwise):
    """Decoupled straight-through Gumbel-Softmax, a temperature for each direction.

    tau_forward sets how random the codes are, tau_backward how widely the gradient spreads; both share the noise.

    Approximates  ∇ E[f(D)]  with  (1/τ_b) J(S) ∇f(D),  S = softmax(θ/τ_b + G),  D = onehot(argmax(θ/τ_f + G)).
    Requires      f differentiable at one-hot codes; n_samples >= 1; tau_forward > 0; tau_backward > 0.
    Bias          yes: ∇f is taken at D, its Jacobian at S, and D ~ Cat(softmax(θ/τ_f)) has another slope in θ than S.
    Reference     Shah, Yan, Mozer, Liu (2024), "Improving Discrete Optimisation Via Decoupled Straight-Through
                  Gumbel-Softmax", arXiv:2410.13331v1, section on the method.
    Departures    the temperatures divide the logits but not the noise, so that τ_f changes the law of the codes: a τ_f
                  that divided both would leave the argmax as it is. `class_logits` is θ/τ_f. Version 2 of the paper,
                  "Improving Discrete Optimisation Via Decoupled Straight-Through Estimator", no longer shares the
                  noise between the two directions; that form is not offered.
    """

    name = "decoupled_st_gs"
    reference = "Shah, Yan, Mozer, Liu (2024), arXiv:2410.13331v1"
    use_when = "st_gumbel_softmax, with exploration and the spread of the gradient to be tuned apart"
    relaxes = False
    tau_forward = temperature("tau_forward")
    tau_backward = temperature("tau_backward")

    def __init__(self, *, tau_forward: float = 1.0, tau_backward: float = 1.0, n_samples: int = 1) -> None:
        super().__init__()
        self.tau_forward = tau_forward
        self.tau_backward = tau_backward
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def class_logits(self, logits_BLK: Tensor) -> Tensor:
        """Return the logits over tau_forward: softmax of these is the law of the codes."""
        scaled_BLK: Tensor = logits_BLK / self.tau_forward
        return scaled_BLK

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes at tau_forward with the gradient of a relaxation at tau_backward."""
        noise_SBLK = perturb(torch.zeros_like(logits_BLK), self.n_samples)
        wide_BLK = logits_BLK.to(noise_SBLK.dtype)
        class_SBL = argmax(wide_BLK.detach() / self.tau_forward + noise_SBLK)
        soft_SBLK = softmax(wide_BLK / self.tau_backward + noise_SBLK).to(logits_BLK.dtype)
        return replace_gradient(one_hot(class_SBL, like=logits_BLK), soft_SBLK)
