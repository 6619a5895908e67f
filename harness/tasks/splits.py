"""The data of a task: its training, validation and test examples, in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

Batch = Tensor | tuple[Tensor, ...]
"""Examples along the first dimension: one tensor, or several of the same length, such as images and labels."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Three splits of examples, each a tensor or a tuple of tensors, alike in all of them.

    validation   None if there is none; a grid then sets `evaluation.validation_split: train` or `test`
    resample     makes a training batch anew in every step, such as a Bernoulli draw of grey images; it draws from the
                 generator that it is given
    image_shape  (height, width) or (channels, height, width), if the first tensor has flattened images

    Raises ValueError for splits that are empty or of another form.
    """

    train: Batch
    test: Batch
    validation: Batch | None = None
    resample: Callable[[Batch, torch.Generator | None], Batch] | None = None
    image_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        kinds = {name: _kind(name, getattr(self, name)) for name in ("train", "test", "validation") if name in self}
        for name, kind in kinds.items():
            if kind != kinds["train"]:
                raise ValueError(f"data: expected {name} of the form of train, {kinds['train']}, got {kind}.")

    def __contains__(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def n_train(self) -> int:
        """Training examples."""
        return n_examples(self.train)

    def split(self, name: Literal["train", "validation", "test"]) -> Batch:
        """Return one split, training examples as they are in memory. Raises ValueError if there is no validation."""
        found: Batch | None = getattr(self, name)
        if found is None:
            raise ValueError(
                "evaluation.validation_split: expected train or test, as this task has no validation data, got"
                " validation."
            )
        return found

    def train_batch(self, index_B: Tensor, generator: torch.Generator | None = None) -> Batch:
        """Return the training examples at `index_B`, on the device of the data, as the task trains on them."""
        batch = _each(self.train, lambda one: one.index_select(0, index_B))
        return batch if self.resample is None else self.resample(batch, generator)

    def to(self, device: torch.device | str) -> Splits:
        """Return the same data on a device."""
        moved: dict[str, Any] = {
            field.name: _each(value, lambda one: one.to(device))
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor | tuple) and field.name != "image_shape"
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class NoData:
    """The data of a task that is optimised without any: an epoch is `steps_per_epoch` updates.

    A batch is then the numbers 0, …, B − 1, and stands for B draws of the same variables. Raises ValueError for counts
    that are no whole numbers from 1.
    """

    steps_per_epoch: int
    n_test: int = 1
    """Draws at an evaluation."""

    def __post_init__(self) -> None:
        for name in ("steps_per_epoch", "n_test"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"data: expected {name}, a whole number from 1, got {value!r}.")

    def splits(self, batch_size: int) -> Splits:
        """Return the numbers as splits."""
        test, train = torch.arange(self.n_test), torch.zeros(self.steps_per_epoch * batch_size, dtype=torch.int64)
        return Splits(train=train, validation=test, test=test, resample=_numbered)


def _numbered(batch: Batch, generator: torch.Generator | None) -> Batch:
    """Return the numbers from 0 on, whichever examples were drawn: they are all alike."""
    one = batch if isinstance(batch, Tensor) else batch[0]
    return torch.arange(len(one), device=one.device)


def parts(batch: Batch) -> tuple[Tensor, ...]:
    """Return the tensors of a batch."""
    return (batch,) if isinstance(batch, Tensor) else batch


def n_examples(batch: Batch) -> int:
    """Return the length of a batch."""
    return len(batch if isinstance(batch, Tensor) else batch[0])


def take(batch: Batch, n: int) -> Batch:
    """Return the first n examples."""
    return _each(batch, lambda one: one[:n])


def split_batch(batch: Batch, batch_size: int) -> list[Batch]:
    """Return a split as batches, in order."""
    if isinstance(batch, Tensor):
        return list(torch.split(batch, batch_size))
    return list(zip(*(torch.split(one, batch_size) for one in batch), strict=True))


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    return change(batch) if isinstance(batch, Tensor) else tuple(change(one) for one in batch)


def _kind(name: str, batch: Any) -> str:
    """Return the form of a split in words, without its length. Raises ValueError if it is none."""
    parts = batch if isinstance(batch, tuple) else (batch,)
    if not parts or not all(isinstance(one, Tensor) and one.ndim for one in parts):
        got = type(batch).__name__
        raise ValueError(f"data: expected {name} to be a tensor or a tuple of tensors, examples first, got {got}.")
    lengths = [len(one) for one in parts]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(f"data: expected {name} to have as many of each, at least one, got {lengths}.")
    return ", ".join(f"{str(one.dtype).removeprefix('torch.')} {('N', *one.shape[1:])}" for one in parts)
