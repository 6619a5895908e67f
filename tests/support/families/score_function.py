"""Moving-average REINFORCE, NVIL, VIMCO and IndeCateR: their formulas as loops, deliberate mistakes, and refusals."""

import math

import torch
from naive_formulas import jacobian, onehot, sampled_code, score, softmax, value_and_slope, with_gumbel

from estimators import Estimate, Estimator, replace_gradient
from estimators.base import check_count
from estimators.baselines import NVIL, RunningMean
from estimators.gumbel import log_prob, one_hot, sample_classes
from estimators.score_function import ScoreFunction


def per_sample(estimator, logits_BLK, gumbel_SBLK, cost, weight):
    """Mean over samples of weight(f) · ∇ log q, example by example."""
    result_BLK = torch.zeros_like(logits_BLK)
    for b, theta_LK in enumerate(logits_BLK):
        for noise_BLK in gumbel_SBLK:
            z_LK = sampled_code(theta_LK, noise_BLK[b])
            result_BLK[b] += weight(value_and_slope(cost, z_LK)[0], b) * score(theta_LK, z_LK) / len(gumbel_SBLK)
    return result_BLK


def average(running):
    """The bias-corrected moving average, from what is stored."""
    return running.total.item() / running.weight.item() if running.weight.item() else 0.0


def reinforce_ema(estimator, logits_BLK, gumbel_SBLK, cost):
    return per_sample(estimator, logits_BLK, gumbel_SBLK, cost, lambda f, _: f - average(estimator.mean))


def nvil(estimator, logits_BLK, gumbel_SBLK, cost):
    """Without a context b(x) = 0."""
    mean, square = average(estimator.mean), average(estimator.square)
    scale = max(1.0, math.sqrt(max(0.0, square - mean**2))) if estimator.normalize else 1.0
    return per_sample(estimator, logits_BLK, gumbel_SBLK, cost, lambda f, _: (f - mean) / scale)


def vimco(estimator, logits_BLK, gumbel_SBLK, cost):
    """−Σ_i (L̂ − L̂_{−i}) ∇ log q_i + Σ_i w̃_i ∇ log q_i, w̃ the normalised weights: ∂L̂/∂θ = −Σ w̃_i ∇ log q_i."""
    result_BLK = torch.zeros_like(logits_BLK)
    n, (_, n_latents, n_categories) = len(gumbel_SBLK), logits_BLK.shape
    for b, theta_LK in enumerate(logits_BLK):
        codes = [sampled_code(theta_LK, noise_BLK[b]) for noise_BLK in gumbel_SBLK]
        log_weights = []
        for z_LK in codes:
            log_q = sum(math.log(float(softmax(x_K) @ z_K)) for x_K, z_K in zip(theta_LK, z_LK, strict=True))
            log_weights.append(-value_and_slope(cost, z_LK)[0] - n_latents * math.log(n_categories) - log_q)
        bound = math.log(sum(math.exp(w) for w in log_weights) / n)
        for i, z_LK in enumerate(codes):
            others = [w for j, w in enumerate(log_weights) if j != i]
            replaced = [*others, sum(others) / (n - 1)]
            signal = bound - math.log(sum(math.exp(w) for w in replaced) / n)
            share = math.exp(log_weights[i]) / sum(math.exp(w) for w in log_weights)
            result_BLK[b] += (share - signal) * score(theta_LK, z_LK)
    return result_BLK


def indecater(_, logits_BLK, gumbel_SBLK, cost):
    """Σ_k f(k, D_{−l}) ∇π_lk = J(π_l) f(·, D_{−l}), latent by latent."""
    result_BLK = torch.zeros_like(logits_BLK)
    for b, theta_LK in enumerate(logits_BLK):
        for noise_BLK in gumbel_SBLK:
            z_LK = sampled_code(theta_LK, noise_BLK[b])
            for latent, theta_K in enumerate(theta_LK):
                values = []
                for k in range(len(theta_K)):
                    other_LK = z_LK.clone()
                    other_LK[latent] = onehot(k, len(theta_K))
                    values.append(value_and_slope(cost, other_LK)[0])
                value_K = torch.tensor(values, dtype=torch.float64)
                result_BLK[b, latent] += jacobian(softmax(theta_K)) @ value_K / len(gumbel_SBLK)
    return result_BLK


NAIVE = {
    "reinforce_ema": with_gumbel(reinforce_ema),
    "nvil": with_gumbel(nvil),
    "vimco": with_gumbel(vimco),
    "indecater": with_gumbel(indecater),
}
SETTINGS = {
    "reinforce_ema": [{"decay": 0.0}],
    "nvil": [{"normalize": True}, {"hidden": 3, "decay": 0.5}],
    "vimco": [{"n_samples": 2}],
}
REFUSED = [
    ("reinforce_ema", {"decay": 1.0}, "reinforce_ema: expected 0 <= decay < 1, got 1.0."),
    ("reinforce_ema", {"decay": -0.1}, "reinforce_ema: expected 0 <= decay < 1, got -0.1."),
    ("reinforce_ema", {"decay": "0.9"}, "reinforce_ema: expected 0 <= decay < 1, got '0.9'."),
    ("nvil", {"decay": 2}, "nvil: expected 0 <= decay < 1, got 2."),
    ("nvil", {"hidden": 0}, "nvil: expected a whole number hidden >= 1, got 0."),
    ("nvil", {"normalize": 1}, "nvil: expected normalize true or false, got 1."),
    ("nvil", {"control_lr": 0.0}, "nvil: expected control_lr > 0, got 0.0."),
    ("vimco", {"n_samples": 1}, "vimco: expected a whole number n_samples >= 2, got 1."),
]


# Mutants. Each keeps the name of the estimator that it imitates.


class EmaWithState(ScoreFunction):
    """The average has seen a batch of mean 3 already, so that a first call shows what it does with it."""

    name, unbiased = "reinforce_ema", True

    def __init__(self, *, decay=0.9, n_samples=1):
        super().__init__()
        self.decay, self.n_samples = decay, n_samples
        self.mean = RunningMean(decay)
        self.mean.add(torch.tensor([3.0]))

    def advantage(self, cost_SB):
        baseline = self.mean.value().to(cost_SB.dtype)
        if self.training:
            self.mean.add(cost_SB)
        return cost_SB - baseline


class EmaUpdatedBeforeUse(EmaWithState):
    """Trap 8: the baseline has seen the cost that it is subtracted from."""

    def advantage(self, cost_SB):
        self.mean.add(cost_SB)
        return cost_SB - self.mean.value().to(cost_SB.dtype)


class EmaAdded(EmaWithState):
    def advantage(self, cost_SB):
        return cost_SB + self.mean.value().to(cost_SB.dtype)


class EmaWithoutCorrection(EmaWithState):
    """The average starts at 0 and is not corrected for it."""

    def advantage(self, cost_SB):
        return cost_SB - self.mean.total.to(cost_SB.dtype)


class NvilWithState(NVIL):
    """Moments that are not at their start."""

    def __init__(self, *, normalize=True, n_samples=1):
        super().__init__(normalize=normalize, n_samples=n_samples)
        for value in (-9.0, 15.0):
            self.mean.add(torch.tensor([value]))
            self.square.add(torch.tensor([value**2]))


class NvilScaledByTheVariance(NvilWithState):
    def _moments(self, signal_SB):
        mean = self.mean.value()
        return mean, (self.square.value() - mean.square()).clamp(min=1)


class NvilScaledUpToo(NvilWithState):
    """Divides by σ where it is below 1 as well."""

    def __init__(self):
        super().__init__()
        self.mean, self.square = RunningMean(0.9), RunningMean(0.9)
        for value in (2.9, 3.1):
            self.mean.add(torch.tensor([value]))
            self.square.add(torch.tensor([value**2]))

    def _moments(self, signal_SB):
        mean = self.mean.value()
        return mean, (self.square.value() - mean.square()).clamp(min=1e-9).sqrt()


class NvilNotCentred(NvilWithState):
    def _moments(self, signal_SB):
        return torch.zeros(()), super()._moments(signal_SB)[1]


class BoundTemplate(Estimator):
    """VIMCO with places to break."""

    name, unbiased, relaxes, objective, black_box, min_samples = "vimco", True, False, "bound", True, 2

    def __init__(self, *, n_samples=4):
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=2)

    def kl(self, logits_BLK):
        return logits_BLK.new_zeros(len(logits_BLK))

    def without_each(self, log_weight_SB):
        rows = []
        for i in range(self.n_samples):
            others_SB = torch.cat([log_weight_SB[:i], log_weight_SB[i + 1 :]])
            rows.append(torch.cat([others_SB, others_SB.mean(0, keepdim=True)]).logsumexp(0))
        return torch.stack(rows) - math.log(self.n_samples)

    def surrogate(self, bound_B, signal_SB, log_q_SB):
        return -bound_B - (signal_SB * log_q_SB).sum(0)

    def log_weight(self, cost_SB, log_q_SB, log_prior):
        return log_prior - cost_SB - log_q_SB

    def forward(self, logits_BLK, cost):
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        log_q_SB = log_prob(logits_BLK, class_SBL)
        log_prior = -logits_BLK.shape[1] * math.log(logits_BLK.shape[2])
        log_weight_SB = self.log_weight(cost_SB.to(log_q_SB.dtype), log_q_SB, log_prior)
        bound_B = log_weight_SB.logsumexp(0) - math.log(self.n_samples)
        signal_SB = bound_B.detach() - self.without_each(log_weight_SB.detach())
        surrogate_B = self.surrogate(bound_B, signal_SB, log_q_SB)
        return Estimate(replace_gradient(-bound_B, surrogate_B).to(cost_SB.dtype))


class VimcoArithmeticMean(BoundTemplate):
    """The mean of the weights in place of the mean of their logarithms: unbiased, but not VIMCO."""

    def without_each(self, log_weight_SB):
        rows = []
        for i in range(self.n_samples):
            others_SB = torch.cat([log_weight_SB[:i], log_weight_SB[i + 1 :]])
            rows.append(others_SB.logsumexp(0) - math.log(self.n_samples - 1))
        return torch.stack(rows)


class VimcoOwnWeightLeftIn(BoundTemplate):
    """The baseline of sample i depends on sample i."""

    def without_each(self, log_weight_SB):
        return (super().without_each(log_weight_SB) + log_weight_SB.logsumexp(0) - math.log(self.n_samples)) / 2


class VimcoWithoutPath(BoundTemplate):
    """The derivative through log q in the weights is forgotten."""

    def log_weight(self, cost_SB, log_q_SB, log_prior):
        return log_prior - cost_SB - log_q_SB.detach()


class VimcoMeanOfSignals(BoundTemplate):
    """Averages over samples where it should sum."""

    def surrogate(self, bound_B, signal_SB, log_q_SB):
        return -bound_B - (signal_SB * log_q_SB).mean(0)


class VimcoKlTwice(BoundTemplate):
    """No KL of its own, so that the KL would be counted twice."""

    def kl(self, logits_BLK):
        return None

    def log_weight(self, cost_SB, log_q_SB, log_prior):
        return -cost_SB - log_q_SB  # and the prior is forgotten too


class LocalTemplate(Estimator):
    """IndeCateR, latent by latent, with places to break."""

    name, unbiased, relaxes, black_box = "indecater", True, False, True

    def n_cost_evals(self, n_latents, n_categories):
        return n_latents * (n_categories - 1) + 1

    def class_of(self, class_BL, latent, j, n_categories):
        moved_BL = class_BL.clone()
        moved_BL[:, latent] = (moved_BL[:, latent] + j) % n_categories
        return moved_BL

    def weigh(self, probs_BK):
        return probs_BK

    def forward(self, logits_BLK, cost):
        class_BL = sample_classes(logits_BLK, 1)[0]
        cost_B = self.evaluate(cost, one_hot(class_BL.unsqueeze(0), like=logits_BLK))[0]
        n_latents, n_categories = logits_BLK.shape[1:]
        expected_B = 0 * logits_BLK.sum((-1, -2))
        for latent in range(n_latents):
            probs_BK = self.weigh(logits_BLK[:, latent].softmax(-1))
            for j in range(1, n_categories):
                moved_BL = self.class_of(class_BL, latent, j, n_categories)
                other_B = self.evaluate_classes(cost, moved_BL.unsqueeze(0), like=logits_BLK)[0]
                at_BL1 = moved_BL[:, latent : latent + 1]
                expected_B = expected_B + probs_BK.gather(-1, at_BL1)[:, 0] * (other_B - cost_B.detach())
        return Estimate(replace_gradient(cost_B, cost_B + expected_B))


class LocalFirstLatentOnly(LocalTemplate):
    """All latents but the first keep their first alternative."""

    def class_of(self, class_BL, latent, j, n_categories):
        return super().class_of(class_BL, latent, j if latent == 0 else 1, n_categories)


class LocalOthersMoveToo(LocalTemplate):
    """The other latents are moved with the one that is summed out."""

    def class_of(self, class_BL, latent, j, n_categories):
        return (class_BL + j) % n_categories


class LocalLogProbabilities(LocalTemplate):
    """∇ log π in place of ∇ π."""

    def weigh(self, probs_BK):
        return probs_BK.log()


MUTANTS = [
    EmaUpdatedBeforeUse,
    EmaAdded,
    EmaWithoutCorrection,
    NvilScaledByTheVariance,
    NvilScaledUpToo,
    NvilNotCentred,
    VimcoArithmeticMean,
    VimcoOwnWeightLeftIn,
    VimcoWithoutPath,
    VimcoMeanOfSignals,
    VimcoKlTwice,
    LocalFirstLatentOnly,
    LocalOthersMoveToo,
    LocalLogProbabilities,
]
RIGHT = [EmaWithState, BoundTemplate, LocalTemplate]
