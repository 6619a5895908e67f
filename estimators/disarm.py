"""DisARM: antithetic pairs of codes, for two classes and, by stick-breaking, for any number of them."""

from typing import final

import torch
from torch import Tensor

from estimators.base import Estimate, add_score, check_count
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import LOWEST, exponential, one_hot, wide_dtype


@final
class DisARM(DrawsFirst):
    """DisARM for binary variables, also known as U2G.

    Two codes from the uniforms u and 1 − u, each a sample of the law, differ as much as possible. Where a variable
    differs between them, the difference of their costs estimates its gradient.

    Approximates  ∇ E[f(D)]  with  mean over n pairs of  ½ (f(b) − f(b̃)) 1[b ≠ b̃] (−1)^b̃ σ(|φ|)  for each variable,
                  φ = θ_1 − θ_0,  b = 1[1 − u < σ(φ)],  b̃ = 1[u < σ(φ)];  it is ∂/∂θ_1 = −∂/∂θ_0.
    Requires      K = 2 classes and nothing of f but its value; n_samples >= 1 counts the pairs, of two codes each.
    Bias          none: it is the mean, given b and b̃, of the ARM estimator ½ (f(b) − f(b̃)) (2u − 1).
    Reference     Dong, Mnih, Tucker (2020), "DisARM: An Antithetic Gradient Estimator for Binary Latent Variables",
                  arXiv:2006.10680, section 3; Yin, Ho, Yan, Qian, Zhou (2020), "Probabilistic Best Subset
                  Selection via Gradient-Based Optimization", arXiv:2006.06448 (U2G).
    Departures    none. The uniforms are drawn as logistic noise log u − log(1 − u), exact where the logits are large.
    """

    name = "disarm"
    reference = "Dong, Mnih, Tucker (2020), arXiv:2006.10680; Yin, Ho, Yan, Qian, Zhou (2020), arXiv:2006.06448"
    use_when = "the latents are binary: no bias, and where they are few, less variance than rloo with two samples"
    unbiased = True

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def check_shape(self, n_latents: int, n_categories: int) -> None:
        """Raise ValueError unless there are two classes."""
        if n_categories != 2:
            remedy = " Use disarm_sb." if n_categories > 2 else ""  # nothing is random with one class
            raise ValueError(f"{self.name}: expected n_categories = 2, got {n_categories}.{remedy}")

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return two codes for each pair."""
        return 2 * self.n_samples

    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw pairs, their first codes and then their second ones; the estimate is the mean cost of all."""
        self.check_shape(*logits_BLK.shape[1:])
        dtype = wide_dtype(logits_BLK)
        phi_BL = logits_BLK.detach().to(dtype).diff(dim=-1).squeeze(-1)
        noise_SBL = _logistic(phi_BL, self.n_samples)
        class_PSBL = (torch.stack([noise_SBL, -noise_SBL]) > -phi_BL).long()
        z_SBLK = one_hot(class_PSBL.flatten(0, 1), like=logits_BLK)

        def estimate(cost_SB: Tensor) -> Estimate:
            difference_SBL = (class_PSBL[0] - class_PSBL[1]).to(dtype)  # 1[b ≠ b̃] (−1)^b̃
            half_SB1 = _half_difference(cost_SB.detach().to(dtype))
            gradient_BL = (half_SB1 * difference_SBL * phi_BL.abs().sigmoid()).mean(0)
            gradient_BLK = torch.stack([-gradient_BL, gradient_BL], -1).to(logits_BLK.dtype)
            cost_B = cost_SB.mean(0)
            linear_B = (logits_BLK * gradient_BLK).sum((-2, -1))
            return Estimate(add_score(cost_B, linear_B, logits_BLK, name=self.name), z_SBLK=z_SBLK)

        return Draw(z_SBLK, estimate)


@final
class DisARMStickBreaking(DrawsFirst):
    """Categorical DisARM by stick-breaking.

    A class is found by asking of one class after the other whether it is this one. Each question is a binary variable
    with an antithetic twin. Only answers that a code depends on enter the gradient.

    Approximates  ∇ E[f(D)]  with  mean over n pairs of  ½ (f(z) − f(z̃)) Σ_i δ_i ∇φ_i  for each latent,
                  φ_i = θ_i − log Σ_{j>i} exp θ_j,  b_i = 1[1 − u_i < σ(φ_i)],  b̃_i = 1[u_i < σ(φ_i)],  i = 1 … K − 1,
                  z the first i with b_i = 1, else K, and z̃ likewise. Where both z, z̃ >= i,
                  δ_i = 1[b_i ≠ b̃_i] (−1)^b̃_i σ(|φ_i|);  where z >= i only, b_i − σ(φ_i);  where z̃ >= i only,
                  σ(φ_i) − b̃_i;  elsewhere 0.
    Requires      nothing of f but its value; n_samples >= 1 counts the pairs, of two codes each.
    Bias          none: δ_i = E[2u_i − 1 | the answers on which z and z̃ depend], so that this is the mean, given those
                  answers, of the ARM estimator ½ (f(z) − f(z̃)) (2u_i − 1) for K − 1 independent binary variables.
    Reference     Dong, Mnih, Tucker (2021), "Coupled Gradient Estimators for Discrete Latent Variables",
                  arXiv:2106.08056, section on stick-breaking coupling.
    Departures    the classes are asked in the order of their numbers, not in that of their probabilities.
    """

    name = "disarm_sb"
    reference = "Dong, Mnih, Tucker (2021), arXiv:2106.08056"
    use_when = "no bias is wanted at two evaluations and the cost is a black box; with four, rloo or carms varies less"
    unbiased = True

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return two codes for each pair."""
        return 2 * self.n_samples

    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw pairs, their first codes and then their second ones; the estimate is the mean cost of all."""
        phi_BLI = _sticks(logits_BLK)
        fixed_BLI = phi_BLI.detach()
        noise_SBLI = _logistic(fixed_BLI, self.n_samples)
        yes_PSBLI = (torch.stack([noise_SBLI, -noise_SBLI]) > -fixed_BLI).to(fixed_BLI.dtype)
        failed_PSBLI = (1 - yes_PSBLI).cumprod(-1)
        class_PSBL = failed_PSBLI.sum(-1).long()
        z_SBLK = one_hot(class_PSBL.flatten(0, 1), like=logits_BLK)

        def estimate(cost_SB: Tensor) -> Estimate:
            reached_PSBLI = torch.cat([torch.ones_like(failed_PSBLI[..., :1]), failed_PSBLI[..., :-1]], -1)
            coupled_SBLI = (yes_PSBLI[0] - yes_PSBLI[1]) * fixed_BLI.abs().sigmoid()
            single_PSBLI = reached_PSBLI * (yes_PSBLI - fixed_BLI.sigmoid())
            delta_SBLI = torch.where(reached_PSBLI.prod(0) > 0, coupled_SBLI, single_PSBLI[0] - single_PSBLI[1])
            half_SB1 = _half_difference(cost_SB.detach().to(fixed_BLI.dtype))
            linear_B = (phi_BLI * (half_SB1[..., None] * delta_SBLI).mean(0)).sum((-2, -1))
            cost_B = cost_SB.mean(0)
            return Estimate(add_score(cost_B, linear_B, logits_BLK, name=self.name, once=True), z_SBLK=z_SBLK)

        return Draw(z_SBLK, estimate)


def _logistic(like: Tensor, n_samples: int) -> Tensor:
    """Return log u − log(1 − u), u uniform, (n_samples, *like.shape), as the log-ratio of two Exp(1) variables."""
    noise = exponential((2, n_samples, *like.shape), like=like)
    return noise[0].log() - noise[1].log()


def _half_difference(cost_SB: Tensor) -> Tensor:
    """Return half the difference of cost between the two codes of each pair, (n_samples, B, 1)."""
    first_SB, second_SB = cost_SB.chunk(2)
    return ((first_SB - second_SB) / 2)[..., None]


def _sticks(logits_BLK: Tensor) -> Tensor:
    """Return φ_BLI, I = K − 1: the log-odds of each class against all later ones; differentiable in the logits."""
    dtype = wide_dtype(logits_BLK)
    theta_BLK = logits_BLK.to(dtype).clamp(min=LOWEST)
    theta_BLK = theta_BLK - theta_BLK.detach().amax(-1, keepdim=True)
    later_BLK = theta_BLK.flip(-1).logcumsumexp(-1).flip(-1)
    return theta_BLK[..., :-1] - later_BLK[..., 1:]
