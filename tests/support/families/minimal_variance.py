"""The minimal-variance estimator: its optimisation problem solved as such, and deliberate mistakes in the closed form.

`tests/estimators/test_minimal_variance.py` has its identities.
"""

import math

import torch
from naive_formulas import jacobian, per_latent, sampled_code, softmax, value_and_slope

from estimators import Estimator, Pathwise, replace_gradient
from estimators.base import Temperature
from estimators.gumbel import one_hot, sample_classes
from families.straight_through import with_noise


def optimal_jacobians(p_K, t):
    """S (X, I, K), of the code x, the slope's entry i and the logit k: the minimum itself, from its Lagrangian.

    Unknowns s_ix for each k: minimise Σ π_x s_ix² + (t/2) Σ (π_x s_ix + π_i s_xi − [i = x] J_ik)², given
    Σ_x π_x s_ix = J_ik.
    """
    n = len(p_K)
    size_I, eye_NN = torch.arange(n * n).view(n, n), torch.eye(n * n, dtype=p_K.dtype)
    law_N = p_K.repeat(n)  # π_x at i·n + x
    bias_NN = law_N[:, None] * eye_NN + law_N.view(n, n).T.reshape(-1)[:, None] * eye_NN[size_I.T.reshape(-1)]
    mean_IN = torch.kron(torch.eye(n, dtype=p_K.dtype), p_K[None])
    wanted_NK = torch.zeros(n * n, n, dtype=p_K.dtype)
    wanted_NK[size_I.diagonal()] = jacobian(p_K)
    top = torch.cat([2 * torch.diag(law_N) + t * bias_NN.T @ bias_NN, mean_IN.T], 1)
    bottom = torch.cat([mean_IN, torch.zeros(n, n, dtype=p_K.dtype)], 1)
    right = torch.cat([t * bias_NN.T @ wanted_NK, jacobian(p_K)])
    return torch.linalg.solve(torch.cat([top, bottom]), right)[: n * n].view(n, n, n).transpose(0, 1)


def mve(estimator, theta_LK, gumbel_LK, _, cost):
    z_LK = sampled_code(theta_LK, gumbel_LK)
    pairs = zip(theta_LK, z_LK, strict=True)
    matrices = [optimal_jacobians(softmax(theta_K), estimator.t)[z_K.argmax()].T for theta_K, z_K in pairs]
    return per_latent(matrices, value_and_slope(cost, z_LK)[1])


NAIVE = {"mve": with_noise(mve)}
SETTINGS = {"mve": [{"t": 0.0}, {"t": 1.0}, {"t": 30.0, "n_samples": 2}]}
REFUSED = [
    ("mve", {"t": bad}, f"mve: expected 0 <= t <= 1e+09, got {bad!r}.")
    for bad in (-1.0, 1e10, math.nan, math.inf, True, "1", None)
] + [("mve", {"tau": 1.0}, "mve: expected parameters among t, n_samples, got 'tau'.")]


# Mutants, each under the name of the estimator that it imitates.


class ClosedForm(Pathwise):
    """S for every code as dense matrices; a mutant changes a part."""

    name, relaxes = "mve", False
    t = Temperature("t")
    ratio_of = staticmethod(lambda weights_BLK: (1 + weights_BLK) / (1 + 2 * weights_BLK))
    own_row = 1.0
    contraction = "sblik,blk->sbli"

    def __init__(self, *, t=3.0):
        super().__init__()
        self.t = t

    def penalty(self):
        return self.t

    def solve(self, laplacian_BLKK, rest_BLK, right_BLKK):
        return torch.linalg.solve(laplacian_BLKK + torch.diag_embed(rest_BLK), right_BLKK)

    def factor(self, weights_BLK, own_SBL1):
        return weights_BLK.expand(*own_SBL1.shape[:-1], -1)

    def sample(self, logits_BLK):
        class_SBL, t = sample_classes(logits_BLK, 1), self.penalty()
        z_SBLK = one_hot(class_SBL, like=logits_BLK)
        p_BLK = logits_BLK.detach().double().softmax(-1)
        w_BLK, slope_BLKK = t * p_BLK, torch.diag_embed(p_BLK) - p_BLK[..., None] * p_BLK[..., None, :]
        share_BLKK = p_BLK[..., None, :] / (1 + w_BLK[..., None] + w_BLK[..., None, :])
        laplacian_BLKK = -w_BLK[..., None] * share_BLKK
        laplacian_BLKK = laplacian_BLKK - torch.diag_embed(laplacian_BLKK.sum(-1))
        v_BLKK = self.solve(laplacian_BLKK, share_BLKK.sum(-1), self.ratio_of(w_BLK)[..., None] * slope_BLKK)
        one_SBLK = z_SBLK.double()
        own_SBL1 = (one_SBLK * w_BLK).sum(-1, keepdim=True)
        factor_SBLK1 = self.factor(w_BLK, own_SBL1)[..., None]
        rows = [torch.einsum("sbli,blik->sblk", one_SBLK, each)[..., None, :] for each in (v_BLKK, slope_BLKK)]
        s_SBLKK = (1 + factor_SBLK1) * v_BLKK - factor_SBLK1 * rows[0]
        s_SBLKK = (s_SBLKK + self.own_row * t * one_SBLK[..., None] * rows[1]) / (1 + w_BLK + own_SBL1)[..., None]
        surrogate_SBLK = torch.einsum(self.contraction, s_SBLKK.detach(), logits_BLK.double())
        return replace_gradient(z_SBLK, surrogate_SBLK.to(logits_BLK.dtype))


class WithoutTheRowOfTheCode(ClosedForm):
    """The term t [i = x] J_xk is forgotten."""

    own_row = 0.0


class WithoutTheRatio(ClosedForm):
    """The right-hand side is J itself."""

    ratio_of = staticmethod(torch.ones_like)


class LimitAtEveryT(ClosedForm):
    """The pseudo-inverse of the Laplacian, as if 1/t were 0."""

    def solve(self, laplacian_BLKK, rest_BLK, right_BLKK):
        return torch.linalg.pinv(laplacian_BLKK, hermitian=True) @ right_BLKK


class WeightOfTheCode(ClosedForm):
    """π_x where π_i belongs."""

    def factor(self, weights_BLK, own_SBL1):
        return own_SBL1.expand(*own_SBL1.shape[:-1], weights_BLK.shape[-1])


class Transposed(ClosedForm):
    """The Jacobian is applied from the wrong side: it is not symmetric."""

    contraction = "sblki,blk->sbli"


class HalfThePenalty(ClosedForm):
    """Each pair of classes is counted once."""

    def penalty(self):
        return self.t / 2


MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == __name__ and cls is not ClosedForm
]
RIGHT = [ClosedForm]
