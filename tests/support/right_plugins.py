"""Estimators of a user that are right, each unusual in one way."""

import torch

from estimators import Estimate, Estimator, Pathwise, replace_gradient
from estimators.gumbel import one_hot, sample_classes
from estimators.score_function import ScoreFunction


def scored(estimator, logits_BLK, cost, baseline=0.0):
    z_SBLK = one_hot(sample_classes(logits_BLK, estimator.n_samples), logits_BLK)
    cost_SB = estimator.evaluate(cost, z_SBLK).detach()
    log_prob_SB = (z_SBLK * logits_BLK.log_softmax(-1)).sum((-1, -2))
    return cost_SB, replace_gradient(cost_SB, (cost_SB - baseline) * log_prob_SB).mean(0)


class ManySamples(ScoreFunction):
    name, relaxes, black_box, min_samples = "many_samples", False, True, 2

    def __init__(self, *, n_samples: int = 2) -> None:
        super().__init__()
        self.n_samples = n_samples

    def advantage(self, cost_SB):
        return cost_SB - cost_SB.mean(0)


class RunningMean(ScoreFunction):
    name, relaxes, black_box = "running_mean", False, True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def advantage(self, cost_SB):
        advantage_SB = cost_SB - self.mean
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * cost_SB.mean())
        return advantage_SB


class LearnedBaseline(Estimator):
    name, relaxes = "learned_baseline", False

    def __init__(self) -> None:
        super().__init__()
        self.baseline = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, logits_BLK, cost):
        cost_SB, cost_B = scored(self, logits_BLK, cost, self.baseline.detach())
        return Estimate(cost_B, (cost_SB - self.baseline).square().mean())


class WithContext(Estimator):
    name, relaxes = "with_context", False

    def forward(self, logits_BLK, cost, context_BX=None):
        return Estimate(scored(self, logits_BLK, cost)[1])


class BatchBaseline(Estimator):
    name, relaxes = "batch_baseline", False

    def forward(self, logits_BLK, cost):
        z_SBLK = one_hot(sample_classes(logits_BLK, 1), logits_BLK)
        cost_SB = self.evaluate(cost, z_SBLK).detach()
        log_prob_SB = (z_SBLK * logits_BLK.log_softmax(-1)).sum((-1, -2))
        return Estimate(replace_gradient(cost_SB, (cost_SB - cost_SB.mean()) * log_prob_SB).mean(0))


class WideOnly(Pathwise):
    name, relaxes = "wide_only", True

    def check_shape(self, n_latents, n_categories):
        if n_latents < 4:
            raise ValueError("wide_only: expected at least 4 latents.")

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)


class SingleOnly(Pathwise):
    name, relaxes = "single_only", True

    def __init__(self, *, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau

    def sample(self, logits_BLK):
        eye_KK = torch.eye(logits_BLK.shape[-1])  # float32, whatever the logits are
        return (logits_BLK / self.tau @ eye_KK).softmax(-1).unsqueeze(0)


class Rejects(Pathwise):
    name, relaxes = "rejects", True

    def sample(self, logits_BLK):
        noise_BLK = torch.randn_like(logits_BLK)
        while (far_BLK := noise_BLK.abs() > 1 + logits_BLK.detach().abs()).any():
            noise_BLK = torch.where(far_BLK, torch.randn_like(noise_BLK), noise_BLK)
        return (logits_BLK + noise_BLK).softmax(-1).unsqueeze(0)


class ManyClassesOnly(Pathwise):
    name, relaxes = "many_classes_only", True

    def check_shape(self, n_latents, n_categories):
        if n_categories < 100:
            raise ValueError("many_classes_only: expected at least 100 classes.")

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)


class Prepared(Pathwise):
    name, relaxes, shift_invariant = "prepared", True, False

    def prepare(self, n_latents, n_categories, n_context=0):
        self.scale = torch.nn.Parameter(1 + torch.rand(n_latents, n_categories))

    def sample(self, logits_BLK):
        return (logits_BLK * self.scale).softmax(-1).unsqueeze(0)


class TemperatureOfAllLatents(Pathwise):
    name, relaxes = "temperature_of_all_latents", True

    def sample(self, logits_BLK):
        entropy_BL1 = torch.distributions.Categorical(logits=logits_BLK).entropy().unsqueeze(-1)
        return (logits_BLK / (0.1 + entropy_BL1.mean(1, keepdim=True))).softmax(-1).unsqueeze(0)


class WarmUp(Pathwise):
    name, relaxes = "warm_up", True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros(()))

    def sample(self, logits_BLK):
        soft_BLK, weight = logits_BLK.softmax(-1), (self.step / 100).clamp(max=1)
        if self.training:
            self.step += 1
        return replace_gradient(soft_BLK.detach(), weight * soft_BLK).unsqueeze(0)


class OneLatentACall(Pathwise):
    name, relaxes = "one_latent_a_call", True

    def sample(self, logits_BLK):
        soft_BLK, n_latents = logits_BLK.softmax(-1), logits_BLK.shape[1]
        chosen_L1 = (torch.arange(n_latents) == torch.randint(n_latents, ())).unsqueeze(-1)
        return replace_gradient(soft_BLK.detach(), n_latents * chosen_L1 * soft_BLK).unsqueeze(0)


class MeanAndWidth(Pathwise):
    """Two numbers for each latent, however many classes there are."""

    name, relaxes, shift_invariant = "mean_and_width", True, False

    def n_outputs(self, n_categories):
        return 2

    def prepare(self, n_latents, n_categories, n_context=0):
        self.register_buffer("places", torch.linspace(-1, 1, n_categories))

    def class_logits(self, logits_BLK):
        mean_BL1, width_BL1 = logits_BLK.split(1, -1)
        return -((self.places - mean_BL1) ** 2) * width_BL1.exp()

    def sample(self, logits_BLK):
        return self.class_logits(logits_BLK).softmax(-1).unsqueeze(0)


class DropsLatents(Pathwise):
    name, relaxes = "drops_latents", True

    def sample(self, logits_BLK):
        soft_BLK = logits_BLK.softmax(-1)
        kept_L1 = 2 * (torch.rand(logits_BLK.shape[1], 1) < 0.5)
        return replace_gradient(soft_BLK.detach(), kept_L1 * soft_BLK).unsqueeze(0)
