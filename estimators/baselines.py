"""Score functions with baselines learned from previous batches: a running mean, and a network on the data."""

from typing import cast, final

import torch
from torch import Tensor, nn

from estimators.arguments import check_decay
from estimators.base import Estimate, add_score, check_count, check_number
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import log_prob, one_hot, sample_classes
from estimators.score_function import ScoreFunction
from estimators.transforms import refuse_learning, refuse_preparing


class RunningMean(nn.Module):
    """An exponential moving average of a scalar, corrected for its start at 0; part of the state, not trained."""

    total: Tensor
    weight: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def value(self) -> Tensor:
        """Return the average of what was added, 0 if nothing was. Later updates do not change the tensor."""
        return _average(self.total, self.weight)

    def add(self, values_SB: Tensor) -> None:
        """Add the mean of a batch; an empty one, and one that is not finite, change nothing."""
        self._move(values_SB, self.total, self.weight)

    def use(self, values_SB: Tensor, *, add: bool) -> Tensor:
        """Return the value, and then add the batch if `add`."""
        if not add:
            return self.value()
        if not torch.compiler.is_compiling():
            average = self.value()
            self.add(values_SB)
            return average
        read = cast(tuple[Tensor, Tensor, Tensor], _opaque_read(self.total, self.weight))
        average, total, weight = read
        self._move(values_SB, total, weight)
        return average

    @torch.no_grad()
    def _move(self, values_SB: Tensor, total: Tensor, weight: Tensor) -> None:
        if not values_SB.numel():
            return
        mean = values_SB.mean().to(total.dtype)
        is_finite = mean.isfinite()  # stays on the device: to read it would stall a GPU
        self.total.copy_(torch.where(is_finite, torch.lerp(total, mean, 1 - self.decay), total))
        self.weight.copy_(torch.where(is_finite, torch.lerp(weight, torch.ones_like(weight), 1 - self.decay), weight))


def _average(total: Tensor, weight: Tensor) -> Tensor:
    return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)


@torch.library.custom_op("argmax_grad::running_mean", mutates_args=())
def _opaque_read(total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the average and copies of its parts, as one operation of a compiled graph.

    The update needs the copies. So the operation is part of the forward pass, and its average is kept for the backward
    pass, which would otherwise divide the buffers after the update.
    """
    return _average(total, weight), total.clone(), weight.clone()


@_opaque_read.register_fake
def _(total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(total), torch.empty_like(total), torch.empty_like(weight)


@final
class ReinforceEMA(ScoreFunction):
    """REINFORCE with a moving-average baseline.

    The cost is compared with its recent average. That average holds past batches only, so it is independent of
    the samples that it is subtracted from; the present batch is added afterwards.

    Approximates  ∇ E[f(D)]  with  mean over n of  (f(D_i) − b) ∇ log q(D_i),  D_i ~ Cat(softmax(θ)), iid,
                  b ← decay · b + (1 − decay) · mean f  after it was used.
    Requires      nothing of f but its value; 0 <= decay < 1; n_samples >= 1.
    Bias          none.
    Reference     Williams (1992), "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
                  Learning", Machine Learning 8, the reinforcement baseline b.
    Departures    the average is corrected for its start at 0, where b = 0. It moves in training mode only, and leaves
                  out a batch whose mean is not finite.
    """

    name = "reinforce_ema"
    reference = "Williams (1992), Machine Learning 8:229–256"
    use_when = "one evaluation is all there is and the cost is a black box; nvil if costs differ between examples"
    unbiased = True

    def __init__(self, *, decay: float = 0.9, n_samples: int = 1) -> None:
        super().__init__()
        self.decay = check_decay(self.name, decay)
        self.n_samples = check_count(self.name, "n_samples", n_samples)
        self.mean = RunningMean(self.decay)

    def advantage(self, cost_SB: Tensor) -> Tensor:
        """Return the cost less the average of previous ones."""
        refuse_learning(self.name, self.training)
        return cost_SB - self.mean.use(cost_SB, add=self.training).to(cost_SB.dtype)


@final
class NVIL(DrawsFirst):
    """NVIL: REINFORCE with an input-dependent baseline.

    A small network predicts the cost of an example from its data; what it cannot predict is centred by a running mean,
    on request scaled by a running standard deviation, and weights the score.

    Approximates  ∇ E[f(D)]  with  mean over n of  (f(D_i) − b(x) − m)/s ∇ log q(D_i),  D_i ~ Cat(softmax(θ)),
                  s = 1, or max(1, σ) with normalize; m and σ the running mean and standard deviation of f − b(x).
    Requires      nothing of f but its value; the context x, without which b = 0; hidden >= 1; 0 <= decay < 1;
                  n_samples >= 1; control_lr > 0.
    Bias          none; with normalize the gradient is multiplied by 1/max(1, σ), a scale that changes as σ does.
    Reference     Mnih, Gregor (2014), "Neural Variational Inference and Learning in Belief Networks", arXiv:1402.0030,
                  section on variance reduction and algorithm 1.
    Departures    the paper always normalises, and its signal is the whole loss. Here the cost is a part of it: to
                  divide its gradient alone by σ makes that of the rest, such as a KL, σ times as strong. A VAE then
                  learns nothing (experiments/README.md, "Defaults on three tasks"), so normalize is False by default. m
                  and σ are updated after they were used, in training mode only, which keeps the signal independent of
                  the baseline; one layer of latents, hence no local signals.
    """

    name = "nvil"
    reference = "Mnih, Gregor (2014), arXiv:1402.0030"
    use_when = "one evaluation is all there is, the black-box cost differs between examples, and the run is long"
    unbiased = True

    def __init__(
        self,
        *,
        hidden: int = 100,
        decay: float = 0.9,
        normalize: bool = False,
        n_samples: int = 1,
        control_lr: float = 1e-3,
    ) -> None:
        """Raise ValueError for an impossible argument."""
        super().__init__()
        self.hidden = check_count(self.name, "hidden", hidden)
        self.decay = check_decay(self.name, decay)
        if not isinstance(normalize, bool):
            raise ValueError(f"{self.name}: expected normalize true or false, got {normalize!r}.")
        self.normalize = normalize
        self.unbiased = not normalize  # the class's is that of the default
        self.n_samples = check_count(self.name, "n_samples", n_samples)
        self.control_lr = check_number(self.name, "control_lr", control_lr, above=0.0)
        self.mean, self.square = RunningMean(self.decay), RunningMean(self.decay)
        self.baseline: nn.Sequential | None = None
        self.prepared = False

    def prepare(self, n_latents: int, n_categories: int, n_context: int = 0) -> None:
        """Make the network, unless there is one or there will be no context. It starts as b = 0."""
        self.prepared = True
        if self.baseline is None and n_context:
            refuse_preparing(self.name)
            last = nn.Linear(self.hidden, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.baseline = nn.Sequential(nn.Linear(n_context, self.hidden), nn.Tanh(), last).to(self.mean.total)

    def draw(self, logits_BLK: Tensor, context_BX: Tensor | None = None) -> Draw:
        """Draw codes; the estimate is their mean cost, `control_loss` the mean square of what the baseline leaves.

        Raises ValueError without a context if there is a network for one.
        """
        if context_BX is None and self.baseline is not None:
            raise ValueError(
                f"{self.name}: expected the context that it was prepared for, got none. Pass context=, the data behind"
                " the logits."
            )
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)

        def estimate(cost_SB: Tensor) -> Estimate:
            advantage_SB, control_loss = self._advantage(cost_SB, context_BX)
            score_SB = advantage_SB * log_prob(logits_BLK, class_SBL)
            cost_B = add_score(cost_SB, score_SB, logits_BLK, name=self.name).mean(0)
            return Estimate(cost_B, control_loss, z_SBLK)

        return Draw(z_SBLK, estimate)

    def _advantage(self, cost_SB: Tensor, context_BX: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the weight (S, B) of each score, and the control loss; update the moments."""
        refuse_learning(self.name, self.training)
        predicted_B = self._predict(context_BX)
        signal_SB = cost_SB.detach() - (0.0 if predicted_B is None else predicted_B.detach().to(cost_SB.dtype))
        mean, scale = self._moments(signal_SB)
        advantage_SB = (signal_SB - mean.to(cost_SB.dtype)) / scale.to(cost_SB.dtype)
        control_loss = None
        if self.training and predicted_B is not None and cost_SB.numel() and torch.is_grad_enabled():
            target_SB = cost_SB.detach().to(predicted_B.dtype) - mean
            control_loss = (target_SB - predicted_B).square().mean()
        return advantage_SB, control_loss

    def _predict(self, context_BX: Tensor | None) -> Tensor | None:
        if context_BX is None:
            return None
        if self.prepared and self.baseline is None:
            raise ValueError(f"{self.name}: expected no context after prepare(n_context=0), got one. Prepare with X.")
        self.prepare(0, 0, context_BX.shape[-1])
        network = cast(nn.Sequential, self.baseline)
        width = cast(nn.Linear, network[0]).in_features
        if context_BX.shape[-1] != width:
            rule = f"a context of width X = {width}, as it was prepared for"
            raise ValueError(f"{self.name}: expected {rule}, got {context_BX.shape[-1]}.")
        return cast(Tensor, network(context_BX.detach().to(self.mean.total.dtype))).squeeze(-1)

    def _moments(self, signal_SB: Tensor) -> tuple[Tensor, Tensor]:
        """Return the running mean of the signal and max(1, its running standard deviation); 1 without normalisation.

        In training mode, the signal is added after that.
        """
        mean = self.mean.use(signal_SB, add=self.training)
        deviation = (self.square.use(signal_SB.square(), add=self.training) - mean.square()).clamp(min=0).sqrt()
        return mean, deviation.clamp(min=1) if self.normalize else torch.ones_like(deviation)
