"""The loop that benchmarks time: epochs of the harness, by its own `train_epoch`, on any device."""

import time
from collections.abc import Callable
from typing import Any

import torch

from estimators import REGISTRY
from harness.config import DataConfig, EstimatorConfig, ModelConfig, RunConfig, TrainingConfig
from harness.devices import flushed_denormals, keep_freed_memory, synchronize
from harness.schedules import Constant, NoSchedule
from harness.tasks import Splits
from harness.train import train_epoch
from harness.training.compiled import compile_if_wanted
from harness.training.state import start

BATCH = 128
SHAPES = ((20, 10), (8, 4), (10, 30))
"""Latents × classes: the seed recipe, and the two ends of ReinMax's protocol."""
N_IMAGES = 3600
"""Images for training in mnist-mini."""
Loop = Callable[[int], float]
"""A number of steps -> the seconds that they took."""


def harness_loop(
    n_steps: int, shape: tuple[int, int], *, estimator: str = "gumbel_softmax", params: dict[str, Any] | None = None,
    compiled: bool = False, cuda_graphs: bool = True, precision: str = "float32", hidden: tuple[int, ...] = (512, 256),
    batch: int = BATCH, device: str = "cpu",
) -> Loop:  # fmt: skip
    """Return a loop over epochs of `n_steps` steps, which must be called with that number of steps.

    More images than mnist-mini has are uniform noise.
    Raises CompileError if it is to be compiled and cannot be.
    """
    run = RunConfig(
        device=device,
        estimator=EstimatorConfig(name=estimator, params=params or {}),
        schedule=Constant() if REGISTRY[estimator].uses_tau else NoSchedule(),
        data=DataConfig(train_size=min(N_IMAGES, n_steps * batch)),
        model=ModelConfig(n_latents=shape[0], n_categories=shape[1], hidden=hidden, precision=precision),
        training=TrainingConfig(compile="on" if compiled else "off", batch_size=batch, epochs=10**6),
    )
    keep_freed_memory()  # as a sweep's worker does
    place = torch.device(device)
    noise = torch.rand(n_steps * batch, 784)  # the time of a step does not depend on what is in the images
    state = start(run, REGISTRY, place, Splits(noise, noise[:batch]) if len(noise) > N_IMAGES else None)
    compile_if_wanted(run, state, cuda_graphs=cuda_graphs)

    def loop(steps: int) -> float:
        synchronize(place)
        begun = time.perf_counter()
        with flushed_denormals():
            done = len(train_epoch(run, state, 1).steps)
        synchronize(place)
        assert done == steps, (done, steps)  # noqa: S101 a benchmark that counts wrongly must stop
        return time.perf_counter() - begun

    return loop
