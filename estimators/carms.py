"""CARMS: any number of codes that avoid each other, by a copula, and importance weights that undo the bias."""

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from estimators.base import Estimate, add_score, check_count
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import LOWEST, exponential, one_hot, wide
from estimators.simplex import log_softmax


@final
class CARMS(DrawsFirst):
    """CARMS: REINFORCE with n mutually antithetic codes.

    Independent codes often repeat each other, and an equal pair says nothing about the gradient. Here the n codes are
    coupled by a Dirichlet copula so that they differ more often, each still a sample of the law. Every pair is weighted
    by how much rarer it is among independent codes.

    Approximates  ∇ E[f(D)]  with  1/(2n(n−1)) Σ_{i≠j} (f(D_i) − f(D_j)) w_l(D_i, D_j) (D_il − D_jl)  for latent l,
                  w_l(c, c') = π_c π_c' / P(D_il = c, D_jl = c').  Each class is found by asking, from the least to the
                  most probable, whether it is this one, of probability p of those left; n uniforms answer a question,
                  yes where u_i < p,  u_i = (1 − ϖ_i)^{n−1},  ϖ ~ Dirichlet(1_n),
                  P(u_1 < p, u_2 < p) = max(0, 2p^{1/(n−1)} − 1)^{n−1}.
    Requires      nothing of f but its value; n_samples >= 2.
    Bias          none: any two classes of positive probability can meet, since p <= 1/3 as long as three are left, and
                  p <= 1/2 at the last question. For two classes and n = 2 it is DisARM.
    Reference     Dimitriev, Zhou (2021), "CARMS: Categorical-Antithetic-REINFORCE Multi-Sample Gradient Estimator",
                  NeurIPS 2021, arXiv:2110.14002, the stick-breaking construction; binary: Dimitriev, Zhou (2021),
                  "ARMS", arXiv:2105.14141.
    Departures    the stick-breaking form, where the paper's main forms are CARMS-I and CARMS-G; the ratio w is computed
                  as a product of the ratios of the questions, without small constants added to it.
    """

    name = "carms"
    reference = "Dimitriev, Zhou (2021), NeurIPS, arXiv:2110.14002"
    use_when = "as rloo: the cost may be a black box, as many evaluations, and less variance where latents are few"
    unbiased = True
    min_samples = 2

    def __init__(self, *, n_samples: int = 4) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=self.min_samples)

    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw coupled codes, each of which is a sample of the law; the estimate is their mean cost."""
        log_yes_BLI, order_BLK = _questions(logits_BLK)
        place_SBL = _places(log_yes_BLI, self.n_samples)
        class_SBL = order_BLK.expand(self.n_samples, -1, -1, -1).gather(-1, place_SBL[..., None])[..., 0]
        z_SBLK = one_hot(class_SBL, like=logits_BLK)

        def estimate(cost_SB: Tensor) -> Estimate:
            weight_SSBL = _pair_weights(log_yes_BLI, place_SBL, self.n_samples)
            advantage_SBL = self._advantages(cost_SB, weight_SSBL)
            chosen_SBL = logits_BLK.expand(self.n_samples, -1, -1, -1).gather(-1, class_SBL[..., None])[..., 0]
            linear_B = (advantage_SBL * chosen_SBL).sum((0, -1))
            cost_B = cost_SB.mean(0)
            return Estimate(add_score(cost_B, linear_B, logits_BLK, name=self.name), z_SBLK=z_SBLK)

        return Draw(z_SBLK, estimate)

    def _advantages(self, cost_SB: Tensor, weight_SSBL: Tensor) -> Tensor:
        """Return the weight (S, B, L) of each code's chosen logits: weighted differences to the other costs."""
        fixed_SB = cost_SB.detach().to(weight_SSBL.dtype)
        difference_SSB = fixed_SB.unsqueeze(1) - fixed_SB
        n_pairs = self.n_samples * (self.n_samples - 1)
        return (difference_SSB[..., None] * weight_SSBL).sum(1) / n_pairs


def _questions(logits_BLK: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p of the K − 1 questions, the least probable class first, and the classes in that order."""
    log_probs_BLK = log_softmax(wide(logits_BLK.detach())).clamp(min=LOWEST)
    sorted_BLK, order_BLK = log_probs_BLK.sort(dim=-1)
    log_left_BLK = sorted_BLK.flip(-1).logcumsumexp(-1).flip(-1)
    return (sorted_BLK - log_left_BLK)[..., :-1], order_BLK


def _places(log_yes_BLI: Tensor, n_samples: int) -> Tensor:
    """Return the place (S, B, L), in the order of the questions, of the class of each of n coupled codes."""
    noise_SBLI = exponential((n_samples, *log_yes_BLI.shape), like=log_yes_BLI)
    is_other_SS = 1 - torch.eye(n_samples, dtype=noise_SBLI.dtype, device=noise_SBLI.device)
    others_SBLI = (is_other_SS @ noise_SBLI.flatten(1)).view_as(noise_SBLI)  # 1 − ϖ, times the sum: nothing cancels
    log_u_SBLI = (n_samples - 1) * (others_SBLI.log() - noise_SBLI.sum(0).log())
    return (log_u_SBLI >= log_yes_BLI).cumprod(-1).sum(-1)


def _pair_weights(log_yes_BLI: Tensor, place_SBL: Tensor, n_samples: int) -> Tensor:
    """Return w (S, S, B, L) of every pair of codes; 0 where they have the same class.

    The two answer alike, "no", up to the question at which the first of them ends, and differ there; what the other
    one answers afterwards does not depend on it. So w is a product of π(no)²/P(no, no) and one π(yes) π(no)/P(yes, no).
    """
    yes_BLI = log_yes_BLI.exp()
    both_BLI = (2 * (log_yes_BLI / (n_samples - 1)).exp() - 1).clamp(min=0) ** (n_samples - 1)
    share_BLI = torch.where(both_BLI > 0, both_BLI / yes_BLI, 0.0)  # P(other yes | yes)
    log_differ_BLI = torch.log1p(-yes_BLI) - torch.log1p(-share_BLI)
    log_no_BLI = 2 * torch.log1p(-yes_BLI[..., :-1]) - torch.log(1 - 2 * yes_BLI[..., :-1] + both_BLI[..., :-1])
    before_BLI = F.pad(log_no_BLI.cumsum(-1), (1, 0)) if yes_BLI.shape[-1] else log_differ_BLI
    weight_BLK = F.pad((before_BLI + log_differ_BLI).exp(), (0, 1))
    first_SSBL = torch.minimum(place_SBL.unsqueeze(1), place_SBL)
    weight_SSBL = weight_BLK.expand(*first_SSBL.shape, -1).gather(-1, first_SSBL[..., None])[..., 0]
    return weight_SSBL * (place_SBL.unsqueeze(1) != place_SBL)
