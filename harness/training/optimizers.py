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
    """Set the learning rates of the next update: the initial ones times a factor that depends on the step alone."""
    if training.lr_schedule == "constant":
        return
    progress = step / n_steps
    factor = 1 - progress if training.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
