"""The optimiser of a run and its learning rate."""

import math

import torch

from harness.config import TrainingConfig
from harness.training.radam import FusedRAdam


def make_optimizer(training: TrainingConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser of a run. All of them use torch's fused kernels."""
    lr, weight_decay = training.lr, training.weight_decay
    match training.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        case "radam":
            return FusedRAdam(parameters, lr=lr, weight_decay=weight_decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=training.momentum, fused=True)


def set_learning_rate(
    optimizers: list[torch.optim.Optimizer], training: TrainingConfig, step: int, n_steps: int
) -> None:
    """Set the learning rates of update `step` (from 0): the initial ones times a factor that depends on it alone."""
    if training.lr_schedule == "constant" and not training.lr_warmup:
        return
    factor = learning_rate_factor(training, step, n_steps)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def learning_rate_factor(training: TrainingConfig, step: int, n_steps: int) -> float:
    """Return the factor of update `step` (from 0) of a run of `n_steps` updates.

    A warm-up of W updates has (step + 1) / W: the last of them has the whole rate. What is left of the run has the
    schedule, from its begin to its end.
    """
    n_warmup = n_steps // training.epochs * training.lr_warmup
    if step < n_warmup:
        return (step + 1) / n_warmup
    progress = (step - n_warmup) / (n_steps - n_warmup)
    match training.lr_schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - progress
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
