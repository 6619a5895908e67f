"""The minimal-variance estimator: a Jacobian for each code, chosen by an optimisation problem in closed form."""

from typing import final

import torch
from torch import Tensor

from estimators.arguments import Temperature, check_between
from estimators.base import Pathwise, check_count, replace_gradient
from estimators.gumbel import one_hot, sample_classes
from estimators.simplex import softmax, softmax_slope

LARGEST_T = 1e9
"""The limit is reached long before, and the solves are accurate in float64 up to here."""


@final
class MVE(Pathwise):
    """Minimal-variance estimator (MVE).

    Of all Jacobians S(D) that are right on the mean for linear costs, the one of least size plus t times its bias on
    quadratic costs: t = 0 is straight-through, a large t the least variance without bias on quadratics.

    Approximates  ∇ E[f(D)]  with  S(D)ᵀ ∇f(D),  D ~ Cat(π),  π = softmax(θ),  S the minimum of
                  E‖S(D)‖² + (t/2) Σ_k ‖M_k + M_kᵀ − diag(J_·k)‖²,  (M_k)_ix = π_x S(x)_ik,  given E[S(D)] = J(π),
                  J(p) = diag(p) − p pᵀ. In closed form S(x)_ik = [(1 + tπ_i) V_ik − tπ_i V_xk + t[i = x] J_xk] / d_ix,
                  d_ij = 1 + t(π_i + π_j),  A V = diag((1 + tπ_i)/(1 + 2tπ_i)) J,  A = diag(r) + the Laplacian of W,
                  W_ij = tπ_iπ_j/d_ij,  r_i = Σ_j π_j/d_ij.
    Requires      f differentiable at one-hot codes; n_samples >= 1; 0 <= t <= 1e9.
    Bias          none on linear f, at any t. On f that is quadratic in each latent it falls as 1/t, about as
                  1/(t π_k) for a class k; f's third derivatives remain. Two classes: the limit of t is zgr.
    Cost          one Cholesky factor of a K×K matrix in float64 for each latent of each example, shared by the samples,
                  and two triangular solves in each direction: K³/3 operations and some 30 K² bytes a latent.
                  A step of the VAE with 20 latents of 10 classes takes 1.3 times that with straight_through.
    Reference     Hooper, Shekhovtsov (2026), "Generalized and Optimal Straight-Through Estimators", AISTATS 2026,
                  PMLR 300:3187–3195. The paper raises t geometrically from 1 to 1e6 over the epochs: the schedule
                  `growing`.
    Departures    none known: the optimisation problem was read off the authors' code, whose Jacobian this is. There the
                  system is solved in float32 for all K columns by least squares; here in float64 (float32 on MPS, which
                  has no float64) for the one vector that is needed.
    """

    name = "mve"
    reference = "Hooper, Shekhovtsov (2026), AISTATS"
    use_when = "as reinmax, with t to trade bias for variance; on quadratics both are exact and vary about as much"
    relaxes = False
    t = Temperature("t", lambda name, key, value: check_between(name, key, value, 0.0, LARGEST_T), is_learnable=False)

    def __init__(self, *, t: float = 1e6, n_samples: int = 1) -> None:
        """Raise ValueError for an impossible argument."""
        super().__init__()
        self.t = t
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with the gradient of S(D) · logits."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)
        precise_BLK = logits_BLK.to(torch.float32 if logits_BLK.device.type == "mps" else torch.float64)
        surrogate_SBLK = self._surrogate(precise_BLK, class_SBL.unsqueeze(-1))
        return replace_gradient(z_SBLK, surrogate_SBLK.to(logits_BLK.dtype), logits_BLK, name=self.name)

    def _surrogate(self, logits_BLK: Tensor, class_SBL1: Tensor) -> Tensor:
        """Return S(D) · logits, linear in the logits. V · logits takes one solve, whatever the number of samples."""
        probs_BLK = softmax(logits_BLK.detach())
        weights_BLK = self.t * probs_BLK
        slope_BLK = softmax_slope(probs_BLK, logits_BLK)
        v_BLK = _solve(probs_BLK, weights_BLK, (1 + weights_BLK) / (1 + 2 * weights_BLK) * slope_BLK)
        own_weight_SBL1, own_v_SBL1, own_slope_SBL1 = (
            each_BLK.expand(*class_SBL1.shape[:-1], -1).gather(-1, class_SBL1)
            for each_BLK in (weights_BLK, v_BLK, slope_BLK)
        )
        numerator_SBLK = (1 + weights_BLK) * v_BLK - weights_BLK * own_v_SBL1
        numerator_SBLK = numerator_SBLK.scatter_add(-1, class_SBL1, self.t * own_slope_SBL1)
        surrogate_SBLK: Tensor = numerator_SBLK / (1 + weights_BLK + own_weight_SBL1)
        return surrogate_SBLK


def _solve(probs_BLK: Tensor, weights_BLK: Tensor, right_BLK: Tensor) -> Tensor:
    """Return A⁻¹ · right, given π and t π.

    A is an M-matrix with row sums r > 0, hence positive definite whatever π and t. Its diagonal is summed from terms of
    one sign, so that classes whose probability underflows lose no digits.
    """
    matrix_BLKK = (1 + weights_BLK).unsqueeze(-1) + weights_BLK.unsqueeze(-2)
    matrix_BLKK.reciprocal_().mul_(probs_BLK.unsqueeze(-2))  # in place: a K×K matrix per latent is what takes memory
    rest_BLK = matrix_BLKK.sum(-1)
    matrix_BLKK.mul_(weights_BLK.unsqueeze(-1))
    diagonal_BLK = matrix_BLKK.diagonal(dim1=-2, dim2=-1)
    diagonal_BLK.zero_()
    rest_BLK += matrix_BLKK.sum(-1)
    matrix_BLKK.neg_()
    diagonal_BLK.copy_(rest_BLK)
    factor_BLKK = torch.linalg.cholesky_ex(matrix_BLKK).L  # no check of errors: it would stall a GPU
    return torch.cholesky_solve(right_BLK.unsqueeze(-1), factor_BLKK).squeeze(-1)
