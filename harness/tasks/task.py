"""The contract of a task: what one run trains, on which data, and what it is judged by.

Letters: S samples, B examples, L latents, K classes, H numbers that an estimator asks for each latent (K for most).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from harness.measures import LOSS, Measure
from harness.tasks.splits import Batch, NoData, Splits

if TYPE_CHECKING:
    from estimators import Estimator
    from harness.config import DataConfig

Cost = Callable[[Tensor], Tensor]
"""z_SBLK -> (S, B): the cost of every code of every example."""
Estimators = Mapping[str, "Estimator"]
"""The estimator of each stochastic layer, by its name."""
LAYER = "z"
"""The name of the layer of a task that has one."""


class Loss(NamedTuple):
    """The loss of a batch: the sum of its terms, which are scalars. They are logged as `train/<term>`.

    `control_loss` is the sum of those of the estimators; None if no estimator has one.
    """

    terms: Mapping[str, Tensor]
    control_loss: Tensor | None = None


class Draw(Protocol):
    """Draws one-hot codes for an evaluation, and counts how the latents are used."""

    n_samples: int
    bound_samples: int
    """Samples of a bound over several codes (`evaluation.bound_samples`) at the end of a run, else 1."""

    def __call__(self, logits_BLH: Tensor, layer: str = LAYER, n_samples: int | None = None) -> Tensor:
        """Return z_SBLK; S = `n_samples`, by default that of the evaluation."""

    def mode(self, logits_BLH: Tensor, layer: str = LAYER) -> Tensor:
        """Return the most probable code of each example, z_1BLK."""


class Task(nn.Module, ABC):
    """A model with categorical variables, its data, its objective and its measures.

    A concrete class states the facts below as class attributes. Its constructor takes keyword-only arguments with
    defaults, which are the parameters of the task in a grid, and raises ValueError for impossible ones. It makes the
    trained parameters, or `build` does, where their sizes depend on the data.
    """

    name: ClassVar[str]
    """Key in grids and in reports: lower-case letters, digits and underscores."""
    title: ClassVar[str]
    """One line for people; by default the first line of the class docstring."""
    reference: ClassVar[str] = "–"
    """Authors (year), "Title", arXiv number, section or equation."""
    measures: ClassVar[tuple[Measure, ...]] = (LOSS,)
    """What settings are compared by; the first ranks them."""
    needs_one_hot: ClassVar[bool] = False
    """True if the cost means nothing on soft codes: estimators that evaluate it there are skipped."""
    black_box: ClassVar[bool] = False
    """True if the cost has no derivative in the code: estimators that need one are skipped."""
    uses_images: ClassVar[bool] = False
    """True if `data` takes the `data` section of a grid."""
    has_bound: ClassVar[bool] = False
    """True if the loss is a negative ELBO with a uniform prior, which estimators with objective "bound" need."""
    takes_outputs: ClassVar[bool] = False
    """True if `build` makes a layer return as many numbers for a latent as its estimator asks for (H)."""
    sums_biases: ClassVar[bool] = False
    """True if every gradient that flows reaches a parameter of one dimension, so that looking at those for NaN is
    enough."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raise TypeError for an incomplete class, and fill in the title."""
        super().__init_subclass__(**kwargs)
        if not any(getattr(getattr(cls, key, None), "__isabstractmethod__", False) for key in dir(cls)):
            _check_declaration(cls)

    @abstractmethod
    def layers(self) -> Mapping[str, tuple[int, int]]:
        """Return (L, K) of each stochastic layer by its name. One estimator is built for each."""

    @abstractmethod
    def data(self, config: DataConfig | None) -> Splits | NoData:
        """Return the data. It depends on the parameters and on `config`, the `data` section of a grid (`uses_images`).

        It is called once for equal settings, with torch's generator seeded alike, so it may draw synthetic data.
        """

    def build(self, splits: Splits, n_outputs: Mapping[str, int]) -> None:
        """Make the parameters whose sizes depend on the data. It is called once, before the optimiser is made.

        `n_outputs` has, for each layer, how many numbers its estimator asks for in the place of the K.
        """

    @abstractmethod
    def loss(self, batch: Batch, estimators: Estimators) -> Loss:
        """Return the loss of a batch, with one call of an estimator for each layer."""

    @abstractmethod
    def evaluate(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Return numbers (B,) for each example, by name, from one-hot codes: `loss`, and every measure."""

    def pictures(self, batch: Batch, draw: Draw) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, images of R rows and C columns (R, C, *image_shape) in [0, 1]) of some test examples."""
        yield from ()

    def n_parameters(self) -> int:
        """Return the number of trained numbers."""
        return sum(one.numel() for one in self.parameters())


class OneLayerTask(Task):
    """A task with one layer of categorical variables: L of K classes each, `n_latents` and `n_categories`.

    The constructor sets both. The loss is E[cost] + penalty; its terms are `cost` and, if there is one, `penalty`.
    """

    n_latents: int
    n_categories: int
    measured_on: ClassVar[Literal["samples", "mode"]] = "samples"
    """The codes that `measure` gets: samples, or the most probable code of each example."""

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return logits (B, L, K) of the codes of a batch, or H numbers in the place of the K (`takes_outputs`)."""

    @abstractmethod
    def cost(self, batch: Batch) -> Cost:
        """Return the cost of codes, z_SBLK -> (S, B). The cost of an example depends on its own code alone."""

    def penalty(self, batch: Batch, logits_BLK: Tensor) -> Tensor | None:
        """Return a further part of the loss, (B,), that no code is drawn for, such as a KL; None if there is none."""
        return None

    def measure(self, batch: Batch, z_BLK: Tensor) -> dict[str, Tensor]:
        """Return measures (B,) of one-hot codes, by name, beside `loss`."""
        return {}

    def context(self, batch: Batch) -> Tensor | None:
        """Return the data behind the logits, (B, X), for estimators that use it; by default the first float tensor."""
        first = batch if isinstance(batch, Tensor) else batch[0]
        return first.flatten(1) if first.is_floating_point() and first.ndim > 1 else None

    def layers(self) -> Mapping[str, tuple[int, int]]:
        """Return the one layer. Raises ValueError if the constructor set no sizes."""
        sizes = getattr(self, "n_latents", None), getattr(self, "n_categories", None)
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(
                f"{self.name}: expected self.n_latents and self.n_categories, whole numbers, set in __init__, got"
                f" {sizes[0]} and {sizes[1]}."
            )
        return {LAYER: (self.n_latents, self.n_categories)}

    def loss(self, batch: Batch, estimators: Estimators) -> Loss:
        """Return E[cost] by the estimator, and the penalty."""
        estimator = estimators[LAYER]
        logits_BLH = self.logits(batch)
        estimate = estimator(logits_BLH, self.cost(batch), self.context(batch))
        penalty_B = self.penalty(batch, estimator.class_logits(logits_BLH))
        terms = {"cost": estimate.cost_B.mean()}
        if penalty_B is not None:
            terms["penalty"] = penalty_B.mean()
        return Loss(terms, estimate.control_loss)

    def evaluate(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Return `loss` with one-hot samples, and the measures, means over the samples."""
        logits_BLH = self.logits(batch)
        z_SBLK = draw(logits_BLH)
        loss_B = self.cost(batch)(z_SBLK).mean(0)
        penalty_B = self.penalty(batch, logits_BLH)
        values = {"loss": loss_B if penalty_B is None else loss_B + penalty_B}
        codes_SBLK = draw.mode(logits_BLH) if self.measured_on == "mode" else z_SBLK
        found = [self.measure(batch, z_BLK) for z_BLK in codes_SBLK]
        return values | {name: torch.stack([each[name] for each in found]).float().mean(0) for name in found[0]}


def parameters_of(cls: type[Task]) -> dict[str, Any]:
    """Return the keyword-only constructor arguments of a task and their defaults, in order."""
    return {argument.name: argument.default for argument in inspect.signature(cls).parameters.values()}


def _check_declaration(cls: type[Task]) -> None:
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name.isascii() or not name.isidentifier() or name != name.lower():
        raise TypeError(f"{cls.__name__}: expected a class attribute name such as 'my_task', got {name!r}.")
    if not (isinstance(cls.measures, tuple) and cls.measures and all(isinstance(m, Measure) for m in cls.measures)):
        raise TypeError(f"{name}: expected measures = (Measure(…), …), at least one, got {cls.measures!r}.")
    names = [measure.name for measure in cls.measures]
    if again := [one for one in names if names.count(one) > 1]:
        raise TypeError(f"{name}: expected different names of measures, got {again[0]} more than once.")
    for argument in inspect.signature(cls).parameters.values():
        if argument.kind is not argument.KEYWORD_ONLY or argument.default is argument.empty:
            raise TypeError(
                f"{name}: expected keyword-only constructor arguments with defaults, got '{argument}'."
                f" Write __init__(self, *, {argument.name}=...)."
            )
    if "title" not in vars(cls):
        cls.title = (inspect.getdoc(cls) or name).partition("\n")[0].rstrip(".")
