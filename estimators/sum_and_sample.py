"""Sum and sample: per latent, the most probable classes are summed, and one of the others is sampled."""

from typing import NamedTuple, final

import torch
from torch import Tensor

from estimators import base
from estimators.base import Cost, Estimate, add_score, check_count, samples_per_call
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import argmax, one_hot, perturb, put, wide
from estimators.simplex import softmax
from estimators.transforms import needs_gradient


@final
class SumAndSample(DrawsFirst):
    """Sum and sample: the most probable classes summed, one of the rest sampled, per variable.

    With the other latents held as sampled, the expectation over one latent is a sum over K classes. Its largest terms
    are computed; the rest, which has little probability, is represented by one sample of it.

    Approximates  ∂ E[f(D)]/∂θ_l  with  mean over n of  Σ_{k∈C} (f(k) − b) ∂π_k/∂θ_l  +  π(R) (f(v) − b) ∂ log π_v/∂θ_l,
                  π = π_l,  C the m = n_summed classes of largest π,  R the others,  v ~ π given R,
                  f(k) = f(k, D_{−l}),  b = Σ_{k∈C} π_k f(k)/π(C),  D ~ Cat(softmax(θ)).
    Requires      nothing of f but its value; n_summed >= 0; n_samples >= 1; n_samples (L min(m, K−1) + 1) evaluations.
    Bias          none: v and b are independent given D_{−l}. Exact for L = 1 where m >= K − 1.
    Reference     Liu, Regier, Tripuraneni, Jordan, McAuliffe (2019), "Rao-Blackwellized Stochastic Gradients for
                  Discrete Distributions", ICML 2019, arXiv:1810.04777, section 3.
    Departures    the paper treats one variable; here the other latents are held as sampled, as in indecater, since the
                  most probable joint codes cannot be summed. Of the estimators that it may be applied to, it is the
                  score function with a baseline b of its own, which costs nothing. v is D_l where D_l is in R, which
                  saves an evaluation a latent. m = 0 is reinforce, m >= K − 1 indecater.
    """

    name = "sum_and_sample"
    reference = "Liu, Regier, Tripuraneni, Jordan, McAuliffe (2019), ICML, arXiv:1810.04777"
    use_when = "as indecater, if K is large and few classes of each latent have most of its probability"
    unbiased = True

    def __init__(self, *, n_summed: int = 3, n_samples: int = 1) -> None:
        super().__init__()
        self.n_summed = check_count(self.name, "n_summed", n_summed, at_least=0)
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the number of sampled codes and of those that differ from one of them in one latent."""
        return self.n_samples * (n_latents * min(self.n_summed, n_categories - 1) + 1)

    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw codes, and after them the codes with a summed or a second sampled class in one latent."""
        classes = _draw_classes(logits_BLK, self.n_summed, self.n_samples)
        all_L = torch.arange(logits_BLK.shape[1], device=logits_BLK.device)
        codes_LSMBL = _codes(all_L, classes)
        z_RBLK = one_hot(torch.cat([classes.drawn_SBL, codes_LSMBL.flatten(0, 2)]), like=logits_BLK)

        def estimate(cost_RB: Tensor) -> Estimate:
            n = self.n_samples
            other_LSMB = cost_RB[n:].detach().view(codes_LSMBL.shape[:-1])
            return _estimate(logits_BLK, classes, cost_RB[:n], other_LSMB, z_RBLK[:n])

        return Draw(z_RBLK, estimate)

    def forward(self, logits_BLK: Tensor, cost: Cost, context_BX: Tensor | None = None) -> Estimate:
        """Average the cost over the samples; the codes that differ in one latent give values only, some at a time."""
        classes = _draw_classes(logits_BLK, self.n_summed, self.n_samples)
        z_SBLK = one_hot(classes.drawn_SBL, like=logits_BLK)
        cost_SB = self.evaluate(cost, z_SBLK)
        if not needs_gradient(logits_BLK):
            return Estimate(cost_SB.mean(0), z_SBLK=z_SBLK)
        other_LSMB = self._other_costs(cost, classes, logits_BLK)
        return _estimate(logits_BLK, classes, cost_SB, other_LSMB.to(cost_SB.dtype), z_SBLK)

    def _other_costs(self, cost: Cost, classes: "_Classes", like: Tensor) -> Tensor:
        """Return the costs (L, S, M, B) of the codes that differ from a sampled one in one latent."""
        n_samples, n_examples, n_latents, n_slots = classes.slot_SBLM.shape
        if n_slots == 0:
            return like.new_zeros((n_latents, n_samples, 0, n_examples))
        at_once = samples_per_call(base.CODES_PER_CALL, max(1, n_samples * n_examples * n_slots))
        costs = []
        for some_N in torch.split(torch.arange(n_latents, device=like.device), at_once):
            codes_NSMBL = _codes(some_N, classes)
            cost_RB = self.evaluate_classes(cost, codes_NSMBL.flatten(0, 2), like=like)
            costs.append(cost_RB.view(codes_NSMBL.shape[:-1]))
        return torch.cat(costs)


class _Classes(NamedTuple):
    """What is drawn for each latent.

    summed_BLM    the M most probable classes.
    drawn_SBL     the class of the sampled code.
    rest_SBL      a sample of the other K − M classes.
    slot_SBLM     the summed classes, with that of the rest in the place of the drawn one, whose cost is known.
    """

    summed_BLM: Tensor
    drawn_SBL: Tensor
    rest_SBL: Tensor
    slot_SBLM: Tensor


def _draw_classes(logits_BLK: Tensor, n_summed: int, n_samples: int) -> _Classes:
    """Draw all classes from one set of perturbed logits.

    Among the perturbed logits of the rest, which one is the largest does not depend on whether it is the largest of
    all. So their argmax is a sample of the rest, and it is the sampled class where that is one of the rest.
    """
    logits_BLK = logits_BLK.detach()
    perturbed_SBLK = perturb(logits_BLK, n_samples)
    drawn_SBL = argmax(perturbed_SBLK)
    top = logits_BLK.topk(min(n_summed, logits_BLK.shape[-1] - 1), dim=-1)
    summed_SBLM = top.indices.expand(n_samples, -1, -1, -1)
    largest_SBL, rest_SBL = perturbed_SBLK.scatter(-1, summed_SBLM, -torch.inf).max(-1)
    rest_SBL = torch.where(largest_SBL == -torch.inf, drawn_SBL, rest_SBL)  # nothing is left that has a probability
    slot_SBLM = torch.where(summed_SBLM == drawn_SBL.unsqueeze(-1), rest_SBL.unsqueeze(-1), summed_SBLM)
    slot_SBLM = torch.where(top.values == -torch.inf, drawn_SBL.unsqueeze(-1), slot_SBLM)  # no impossible codes
    return _Classes(top.indices, drawn_SBL, rest_SBL, slot_SBLM)


def _codes(latents_N: Tensor, classes: _Classes) -> Tensor:
    """Return the codes (N, S, M, B, L) in which one of some latents has the class of a slot."""
    slot_NSMB = classes.slot_SBLM[:, :, latents_N].permute(2, 0, 3, 1)
    codes_NSMBL = classes.drawn_SBL.unsqueeze(1).expand(*slot_NSMB.shape, -1).clone()
    place_NSMB1 = latents_N.view(-1, 1, 1, 1, 1).expand(*slot_NSMB.shape, 1)
    return put(codes_NSMBL, place_NSMB1, slot_NSMB.unsqueeze(-1))


def _estimate(logits_BLK: Tensor, classes: _Classes, cost_SB: Tensor, other_LSMB: Tensor, z_SBLK: Tensor) -> Estimate:
    """Put the estimate together. With ∂π_k = π_k (e_k − π) and ∂ log π_v = e_v − π it is w − π Σ_k w_k for some w."""
    summed_BLM, drawn_SBL, rest_SBL, _ = classes
    probs_BLK = softmax(wide(logits_BLK.detach()))
    drawn_SBL1 = cost_SB.detach().to(probs_BLK.dtype)[..., None, None].expand(*drawn_SBL.shape, 1)
    other_SBLM = other_LSMB.permute(1, 3, 0, 2).to(probs_BLK.dtype)
    is_drawn_SBLM = summed_BLM == drawn_SBL.unsqueeze(-1)
    summed_SBLM = torch.where(is_drawn_SBLM, drawn_SBL1, other_SBLM)
    is_summed_SBL1 = is_drawn_SBLM.any(-1, keepdim=True)
    second_SBL1 = torch.where(is_drawn_SBLM, other_SBLM, 0.0).sum(-1, keepdim=True)
    rest_SBL1 = torch.where(is_summed_SBL1, second_SBL1, drawn_SBL1)

    prob_BLM = probs_BLK.gather(-1, summed_BLM)
    rest_prob_BL1 = probs_BLK.scatter(-1, summed_BLM, 0.0).sum(-1, keepdim=True)
    share_BLM = prob_BLM / prob_BLM.sum(-1, keepdim=True)
    baseline_SBL1 = (share_BLM * summed_SBLM).sum(-1, keepdim=True)
    weight_SBLK = torch.zeros_like(z_SBLK, dtype=probs_BLK.dtype)
    weight_SBLK = put(weight_SBLK, rest_SBL.unsqueeze(-1), rest_prob_BL1 * (rest_SBL1 - baseline_SBL1))
    index_SBLM = summed_BLM.expand_as(summed_SBLM)
    weight_SBLK.scatter_add_(-1, index_SBLM, prob_BLM * (summed_SBLM - baseline_SBL1))
    weight_BLK = weight_SBLK.mean(0)
    gradient_BLK = weight_BLK - probs_BLK * weight_BLK.sum(-1, keepdim=True)

    cost_B = cost_SB.mean(0)
    linear_B = (logits_BLK * gradient_BLK.to(logits_BLK.dtype)).sum((-2, -1))
    return Estimate(add_score(cost_B, linear_B, logits_BLK, name=SumAndSample.name), z_SBLK=z_SBLK)
