"""The unordered-set estimator: codes drawn without replacement, none evaluated twice."""

from typing import final

import torch
from torch import Tensor

from estimators.base import Estimate, add_score, check_count, more_codes
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import LOWEST, log_prob, one_hot, perturb, wide
from estimators.simplex import log_softmax

MAX_SAMPLES = 12
"""The probability of a set is a sum over all its subsets: 2^12 numbers for each example."""


@final
class UnorderedSet(DrawsFirst):
    """Unordered-set estimator: REINFORCE on codes drawn without replacement, with a built-in baseline.

    The k codes of a set S differ, so that none is evaluated twice. Each is weighted by the probability that it came
    first, given the set S, and compared with an estimate of the mean cost from the others.

    Approximates  ∇ E[f(D)]  with  Σ_{s∈S} q(s) R(S, s) [f(s) − Σ_{t∈S} q(t) R_s(S, t) f(t)] ∇ log q(s),
                  R(S, s) = P_s(S∖s) / P(S),  R_s(S, t) = P_st(S∖{s,t}) / P_s(S∖s),  R_s(S, s) = 1,
                  P(S) the probability that the first k codes drawn without replacement are S, in any order; P_s and
                  P_st the same for smaller sets after s, or s and t, have been taken away.
    Requires      nothing of f but its value; 2 <= n_samples = k <= 12, and k <= K^L, the number of codes.
    Bias          none. The reported cost, Σ_s q(s) R(S, s) f(s), has the mean E[f(D)].
    Reference     Kool, van Hoof, Welling (2020), "Estimating Gradients for Discrete Random Variables by Sampling
                  without Replacement", ICLR 2020, arXiv:2002.06043, sections 3 and 4; the set by stochastic beam
                  search: Kool, van Hoof, Welling (2019), arXiv:1903.06059, section 4.
    Departures    P is computed exactly, by a recursion over subsets that adds positive terms only, where the paper
                  integrates numerically. The decoder is trained through the reported cost, its weights held fixed.
    """

    name = "unordered_set"
    reference = "Kool, van Hoof, Welling (2020), ICLR, arXiv:2002.06043"
    use_when = "few codes have most of the probability, so that independent samples repeat themselves"
    unbiased = True
    min_samples = 2

    def __init__(self, *, n_samples: int = 4) -> None:
        """Raise ValueError for an impossible argument."""
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=self.min_samples)
        if self.n_samples > MAX_SAMPLES:
            raise ValueError(f"{self.name}: expected n_samples <= {MAX_SAMPLES}, got {n_samples}.")

    def check_shape(self, n_latents: int, n_categories: int) -> None:
        """Raise ValueError if there are fewer than `n_samples` codes to draw."""
        if not more_codes(self.n_samples - 1, n_latents, n_categories):
            raise ValueError(
                f"{self.name}: expected n_samples <= n_categories^n_latents, got {self.n_samples} samples of"
                f" {n_categories}^{n_latents} = {n_categories**n_latents} codes."
            )

    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw a set of codes; the estimate is the mean of their costs, each with its weight."""
        self.check_shape(*logits_BLK.shape[1:])
        class_SBL, log_q_SB, log_rest_B = draw_set(logits_BLK, self.n_samples)
        weight_SB, share_SSB = leave_one_out(log_q_SB, log_rest_B)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)

        def estimate(cost_SB: Tensor) -> Estimate:
            cost_B = (weight_SB * cost_SB).sum(0).to(cost_SB.dtype)
            fixed_SB = cost_SB.detach().to(weight_SB.dtype)
            advantage_SB = (share_SSB * (fixed_SB.unsqueeze(1) - fixed_SB)).sum(1)  # the shares of each s sum to 1
            score_B = (weight_SB * advantage_SB * log_prob(logits_BLK, class_SBL)).sum(0)
            return Estimate(add_score(cost_B, score_B, logits_BLK, name=self.name), z_SBLK=z_SBLK)

        return Draw(z_SBLK, estimate)


def draw_set(logits_BLK: Tensor, n_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the classes (S, B, L) of S different codes, their log-probabilities (S, B), and that of all others (B,).

    Stochastic beam search, one latent after the other: every prefix carries the largest of the perturbed
    log-probabilities of its codes, and those of its K continuations are drawn given that theirs has that maximum. The
    codes are in the order in which they would be drawn one by one: the first is a sample of the law. A code of
    probability 0, which enters only where there are fewer than S others, is replaced by the first.
    """
    n_latents, n_categories = logits_BLK.shape[1:]
    log_probs_BLK = log_softmax(wide(logits_BLK.detach()))
    log_q_BS = log_probs_BLK.new_zeros((len(logits_BLK), 1))
    log_rest_B = log_probs_BLK.new_full((len(logits_BLK),), -torch.inf)
    class_BSL = torch.zeros((len(logits_BLK), 1, 0), dtype=torch.long, device=logits_BLK.device)
    perturbed_BS = perturb(log_q_BS, 1)[0]
    for latent in range(n_latents):
        log_q_BSK = log_q_BS.unsqueeze(-1) + log_probs_BLK[:, latent].unsqueeze(1)
        perturbed_BSK = perturb(log_q_BSK.clamp(min=LOWEST), 1)[0]
        perturbed_BC = given_maximum(perturbed_BSK, perturbed_BS.unsqueeze(-1)).flatten(1)
        perturbed_BS, kept_BS = perturbed_BC.topk(min(n_samples, perturbed_BC.shape[-1]))
        log_q_BC = log_q_BSK.flatten(1)
        log_q_BS = log_q_BC.gather(-1, kept_BS)
        left_BC = log_q_BC.scatter(-1, kept_BS, -torch.inf)
        log_rest_B = torch.logaddexp(log_rest_B, left_BC.logsumexp(-1))
        parent_BSL = (kept_BS // n_categories).unsqueeze(-1).expand(-1, -1, latent)
        class_BSL = torch.cat([class_BSL.gather(1, parent_BSL), (kept_BS % n_categories).unsqueeze(-1)], -1)
    class_BSL = torch.where(log_q_BS.isfinite().unsqueeze(-1), class_BSL, class_BSL[:, :1])
    return class_BSL.movedim(1, 0), log_q_BS.T, log_rest_B


def given_maximum(perturbed_BSK: Tensor, maximum_BS1: Tensor) -> Tensor:
    """Shift Gumbel variables, by a monotone map, to what they are given that the largest of them is `maximum`.

    −log(e^−M − e^−Z + e^−g), Z the largest g, in the stable form of Kool, van Hoof, Welling (2019), appendix B.3.
    """
    largest_BS1 = perturbed_BSK.amax(-1, keepdim=True)
    gap_BSK = perturbed_BSK - largest_BS1
    log_complement_BSK = torch.where(gap_BSK > -0.7, (-gap_BSK.expm1()).log(), (-gap_BSK.exp()).log1p())
    v_BSK = maximum_BS1 - perturbed_BSK + log_complement_BSK
    return maximum_BS1 - v_BSK.clamp(min=0) - (-v_BSK.abs()).exp().log1p()


def leave_one_out(log_q_SB: Tensor, log_rest_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return q(s) R(S, s) as weight_SB, and q(t) R_s(S, t) as share_SSB, row s and column t; q(s) where s = t.

    P(U) is the probability that, once the codes S∖U are taken away, the next ones drawn are U: it is
    Σ_{s∈U} q(s) P(U∖s) / (q(U) + q(all codes outside S)). Row u of the table of log P belongs to the set of the binary
    digits of u; pass m over the table completes the sets of m codes. Codes of probability 0 count for nothing.
    """
    n_samples = len(log_q_SB)
    digit_S = torch.arange(n_samples, device=log_q_SB.device)
    set_U = torch.arange(2**n_samples, device=log_q_SB.device)
    holds_SU1 = (set_U >> digit_S[:, None] & 1).bool().unsqueeze(-1)
    smaller_SU = set_U & ~(1 << digit_S)[:, None]
    log_q_SUB = torch.where(holds_SU1, log_q_SB.unsqueeze(1), -torch.inf)
    log_q_UB = log_q_SUB.logsumexp(0)
    is_empty_UB = log_q_UB == -torch.inf
    log_set_UB = torch.where(is_empty_UB, 0.0, -torch.inf)
    for _ in range(n_samples):
        drawn_UB = (log_q_SUB + log_set_UB[smaller_SU]).logsumexp(0) - torch.logaddexp(log_q_UB, log_rest_B)
        log_set_UB = torch.where(is_empty_UB, 0.0, drawn_UB)
    without_S = smaller_SU[:, -1]
    without_SS = without_S[:, None] & without_S
    weight_SB = (log_q_SB + log_set_UB[without_S] - log_set_UB[-1]).exp()
    share_SSB = (log_q_SB + log_set_UB[without_SS] - log_set_UB[without_S].unsqueeze(1)).exp()
    return weight_SB, share_SSB
