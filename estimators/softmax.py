"""Softmax without noise."""

from typing import final

from torch import Tensor

from estimators.base import Pathwise
from estimators.gumbel import wide
from estimators.simplex import softmax


@final
class Softmax(Pathwise):
    """Deterministic softmax relaxation (soft-argmax).

    The code is the vector of probabilities itself, sharpened by tau: no noise, hence no variance.

    Approximates  ∇ E[f(D)]  with  (1/τ) J(π_τ) ∇f(π_τ),  π_τ = softmax(θ/τ),  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable and meaningful on soft codes; tau > 0.
    Bias          the exact gradient of f(π_τ), not of E[f(D)]; none if f is linear in each latent and tau = 1.
    Reference     folklore.
    Departures    none.
    """

    name = "softmax"
    reference = "folklore"
    use_when = "as the noise-free baseline, or where the model may stay soft; the gap to one-hot codes can be large"
    relaxes = True
    tau: float

    def __init__(self, *, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return the probabilities, as one soft code."""
        return softmax(wide(logits_BLK) / self.tau).to(logits_BLK.dtype).unsqueeze(0)
