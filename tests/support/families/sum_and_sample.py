"""Sum and sample: its formula as loops, deliberate mistakes in it, and refusals."""

import torch
from naive_formulas import onehot, sampled_code, softmax, value_and_slope, with_gumbel

from estimators import Estimate, Estimator, replace_gradient
from estimators.gumbel import one_hot, perturb

# The formula.


def sum_and_sample(estimator, logits_BLK, gumbel_SBLK, cost):
    """Σ_{k∈C} (f(k) − b) ∇π_k + π(R) (f(v) − b) ∇log π_v for each latent, v the best of the perturbed rest."""
    result_BLK = torch.zeros_like(logits_BLK)
    for b, theta_LK in enumerate(logits_BLK):
        for noise_BLK in gumbel_SBLK:
            z_LK = sampled_code(theta_LK, noise_BLK[b])
            for latent, theta_K in enumerate(theta_LK):
                perturbed = (theta_K + noise_BLK[b, latent]).tolist()
                gradient_K = one_latent(estimator.n_summed, theta_K, perturbed, values(cost, z_LK, latent))
                result_BLK[b, latent] += gradient_K / len(gumbel_SBLK)
    return result_BLK


def values(cost, z_LK, latent):
    """f(k, D_{−l}) for each class k."""
    found = []
    for k in range(z_LK.shape[1]):
        other_LK = z_LK.clone()
        other_LK[latent] = onehot(k, z_LK.shape[1])
        found.append(value_and_slope(cost, other_LK)[0])
    return found


def one_latent(n_summed, theta_K, perturbed, f):
    probs_K, n_categories = softmax(theta_K), len(theta_K)
    order = sorted(range(n_categories), key=lambda k: -theta_K[k].item())
    summed, rest = order[:n_summed], order[n_summed:]
    baseline = sum(probs_K[k] * f[k] for k in summed) / sum(probs_K[k] for k in summed) if summed else 0.0
    gradient_K = torch.zeros_like(theta_K)
    for k in summed:
        gradient_K += (f[k] - baseline) * probs_K[k] * (onehot(k, n_categories) - probs_K)
    if rest:
        v = max(rest, key=lambda k: perturbed[k])
        share = sum(probs_K[k] for k in rest)
        gradient_K += share * (f[v] - baseline) * (onehot(v, n_categories) - probs_K)
    return gradient_K


NAIVE = {"sum_and_sample": with_gumbel(sum_and_sample)}
SETTINGS = {"sum_and_sample": [{"n_summed": 0}, {"n_summed": 1}, {"n_summed": 1, "n_samples": 3}, {"n_summed": 2}]}
REFUSED = [
    ("sum_and_sample", {"n_summed": -1}, "sum_and_sample: expected a whole number n_summed >= 0, got -1."),
    ("sum_and_sample", {"n_summed": True}, "sum_and_sample: expected a whole number n_summed >= 0, got True."),
    ("sum_and_sample", {"n_summed": 1.0}, "sum_and_sample: expected a whole number n_summed >= 0, got 1.0."),
    ("sum_and_sample", {"n_samples": 0}, "sum_and_sample: expected a whole number n_samples >= 1, got 0."),
]

# Mutants: one deliberate mistake each.


class SumTemplate(Estimator):
    """Sum and sample, latent by latent, every class evaluated, with places to break. Unbroken it is right."""

    name, unbiased, relaxes, black_box, n_summed = "sum_and_sample", True, False, True, 1

    def n_cost_evals(self, n_latents, n_categories):
        return n_latents * n_categories + 1

    def order(self, theta_BK):
        return theta_BK.argsort(-1, descending=True)

    def chosen(self, perturbed_BK, summed_BM):
        """The sample of the rest."""
        return perturbed_BK.scatter(-1, summed_BM, -torch.inf).argmax(-1, keepdim=True)

    def baseline(self, probs_BM, cost_BM, rest_B1):
        return (probs_BM * cost_BM).sum(-1, keepdim=True) / probs_BM.sum(-1, keepdim=True)

    def share(self, probs_BK, summed_BM, rest_B1):
        return probs_BK.scatter(-1, summed_BM, 0.0).sum(-1, keepdim=True)

    def others(self, class_BL, latent, k):
        moved_BL = class_BL.clone()
        moved_BL[:, latent] = k
        return moved_BL

    def tangent(self, weight_BK, probs_BK):
        return weight_BK - probs_BK * weight_BK.sum(-1, keepdim=True)

    def forward(self, logits_BLK, cost):
        perturbed_BLK = perturb(logits_BLK.detach(), 1)[0]
        class_BL = perturbed_BLK.argmax(-1)
        cost_B = self.evaluate(cost, one_hot(class_BL.unsqueeze(0), like=logits_BLK))[0]
        dtype, gradients = perturbed_BLK.dtype, []
        for latent in range(logits_BLK.shape[1]):
            theta_BK = logits_BLK[:, latent].detach().to(dtype)
            probs_BK, summed_BM = theta_BK.softmax(-1), self.order(theta_BK)[:, : self.n_summed]
            moved = [self.others(class_BL, latent, k) for k in range(theta_BK.shape[-1])]
            cost_BK = self.evaluate_classes(cost, torch.stack(moved), like=logits_BLK).T.to(dtype)
            rest_B1 = self.chosen(perturbed_BLK[:, latent], summed_BM)
            probs_BM, cost_BM, cost_B1 = (x.gather(-1, i) for x, i in (
                (probs_BK, summed_BM), (cost_BK, summed_BM), (cost_BK, rest_B1)
            ))  # fmt: skip
            baseline_B1 = self.baseline(probs_BM, cost_BM, cost_B1)
            weight_BK = torch.zeros_like(probs_BK)
            weight_BK.scatter_add_(-1, rest_B1, self.share(probs_BK, summed_BM, rest_B1) * (cost_B1 - baseline_B1))
            weight_BK.scatter_add_(-1, summed_BM, probs_BM * (cost_BM - baseline_B1))
            gradients.append(self.tangent(weight_BK, probs_BK))
        linear_B = (logits_BLK * torch.stack(gradients, 1).to(logits_BLK.dtype)).sum((-1, -2)).to(cost_B.dtype)
        return Estimate(replace_gradient(cost_B, cost_B + linear_B))


class SumLeastProbable(SumTemplate):
    """The classes of least mass are summed: unbiased, but it pays for the wrong ones."""

    def order(self, theta_BK):
        return theta_BK.argsort(-1)


class SumRestFromAll(SumTemplate):
    """The sample of the rest is one of all classes."""

    def chosen(self, perturbed_BK, summed_BM):
        return perturbed_BK.argmax(-1, keepdim=True)


class SumRestUniform(SumTemplate):
    """Every class of the rest is as likely."""

    def chosen(self, perturbed_BK, summed_BM):
        return torch.rand(perturbed_BK.shape).scatter(-1, summed_BM, -1.0).argmax(-1, keepdim=True)


class SumRestOnlyWhereDrawn(SumTemplate):
    """The sampled class again where it is not one of the rest: summed, and sampled too."""

    def chosen(self, perturbed_BK, summed_BM):
        rest_B1, drawn_B1 = super().chosen(perturbed_BK, summed_BM), perturbed_BK.argmax(-1, keepdim=True)
        return torch.where(drawn_B1 == summed_BM, summed_BM, rest_B1)


class SumRestNotWeighted(SumTemplate):
    """The sample of the rest counts as a sample of all, π(R) forgotten."""

    def share(self, probs_BK, summed_BM, rest_B1):
        return torch.ones_like(probs_BK[:, :1])


class SumRestWeightedByItsClass(SumTemplate):
    """π_v in the place of π(R)."""

    def share(self, probs_BK, summed_BM, rest_B1):
        return probs_BK.gather(-1, rest_B1)


class SumWithoutRest(SumTemplate):
    """The rest is left out: less variance, and a bias."""

    def share(self, probs_BK, summed_BM, rest_B1):
        return torch.zeros_like(probs_BK[:, :1])


class SumBaselineOfRest(SumTemplate):
    """The baseline has the sample of the rest in it: not independent, biased."""

    def baseline(self, probs_BM, cost_BM, rest_B1):
        return (super().baseline(probs_BM, cost_BM, rest_B1) + rest_B1) / 2


class SumNoBaseline(SumTemplate):
    """Unbiased, with the variance of an offset of the cost."""

    def baseline(self, probs_BM, cost_BM, rest_B1):
        return torch.zeros_like(rest_B1)


class SumOthersMoveToo(SumTemplate):
    def others(self, class_BL, latent, k):
        return torch.full_like(class_BL, k)


class SumNotTangent(SumTemplate):
    """e_k in the place of e_k − π."""

    def tangent(self, weight_BK, probs_BK):
        return weight_BK


RIGHT = [SumTemplate]
MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == __name__ and cls not in RIGHT
]
