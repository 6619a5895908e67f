"""The contract of a task: what one run trains, on which data, and what it is judged by.

Letters: S samples, B examples, L latents, K classes, H numbers that an estimator asks for each latent (K for most).
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from estimators.declarations import check_constructor, check_name, is_abstract, title_of
from harness.measures import LOSS, RESERVED, Measure
from harness.tasks.latents import LatentUse
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
    """The loss of a batch, as terms by name: each (B,), a number for each example, or a scalar for the whole batch.

    What is trained on is the sum of their means, which are logged as `train/<term>`. `control_loss` is the sum of those
    of the estimators; None if no estimator has one.
    """

    terms: Mapping[str, Tensor]
    control_loss: Tensor | None = None


def total(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of the means of the terms, which is what is trained on."""
    return reduce(operator.add, terms)


class LayerProblem(NamedTuple):
    """What the estimator of one layer sees: logits, with their graph, and a cost.

    `is_noisy`: equal codes may cost different amounts, because deeper layers are drawn. `code_costs`: a faster way to
    the costs (N, B) of every code (N, L, K) for every example, if there is one.
    """

    logits_BLH: Tensor
    n_categories: int
    cost: Cost
    context_BX: Tensor | None = None
    is_noisy: bool = False
    code_costs: Callable[[Tensor], Tensor] | None = None


class Draw(Protocol):
    """Draws one-hot codes for an evaluation, and counts how the latents are used."""

    n_samples: int
    bound_samples: int
    """Samples of a bound over several codes, `evaluation.bound_samples`."""

    def law(self, logits_BLH: Tensor, layer: str = LAYER) -> Tensor:
        """Return the logits (B, L, K) of the law of the one-hot codes."""

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
    evaluation_settings: ClassVar[tuple[str, ...]] = ()
    """Those of `n_images` and `bound_samples`, settings of a grid's section `evaluation`, that the task uses."""
    loss_name: ClassVar[str] = "loss"
    """The name of the loss with one-hot codes among the final metrics, `test/<name>`."""
    sums_biases: ClassVar[bool] = False
    """True if every gradient that flows reaches a parameter of one dimension, so that looking at those for NaN is
    enough."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raise TypeError for an incomplete class, and fill in the title."""
        super().__init_subclass__(**kwargs)
        if not is_abstract(cls):
            _check_declaration(cls)

    @abstractmethod
    def layers(self) -> Mapping[str, tuple[int, int]]:
        """Return (L, K) of each stochastic layer by its name. One estimator is built for each."""

    @abstractmethod
    def data(self, config: DataConfig | None) -> Splits | NoData:
        """Return the data. It depends on the parameters and on `config`, the `data` section of a grid (`uses_images`).

        It is called once for equal settings, with the generators of torch, numpy and Python seeded alike, so it may
        draw synthetic data. It is called on another object than the one that is trained, with other initial weights: it
        can leave nothing in `self`. What the data decide is for `build`.
        """

    def build(self, splits: Splits, n_outputs: Mapping[str, int]) -> None:
        """Make the parameters whose sizes depend on the data. It is called once, before the optimiser is made.

        `n_outputs` has, for each layer, how many numbers its estimator asks for in the place of the K.
        """

    def context(self, batch: Batch) -> Tensor | None:
        """Return the data behind the logits, (B, X), for estimators that use it; by default the first float tensor."""
        first = batch if isinstance(batch, Tensor) else batch[0]
        return first.flatten(1) if first.is_floating_point() and first.ndim > 1 else None

    @abstractmethod
    def loss(self, batch: Batch, estimators: Estimators) -> Loss:
        """Return the loss of a batch, with one call of an estimator for each layer."""

    @abstractmethod
    def evaluate(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Return the terms of the loss, with one-hot codes, and the measures, by name: (B,) each, or a scalar."""

    @abstractmethod
    def term_names(self) -> tuple[str, ...]:
        """Return the names of the terms of the loss, in their order."""

    def test_measures(self, test: Batch, draw: Draw) -> dict[str, float]:
        """Return measures of the whole test split that cost too much for validation, such as a bound."""
        return {}

    def gradient_problems(self, batch: Batch, estimators: Estimators) -> Mapping[str, LayerProblem]:
        """Return what the estimator of each layer sees on a batch, for diagnostics; empty if the task has none.

        The estimators are copies, in evaluation mode: a cost may call those of deeper layers.
        """
        return {}

    def pictures(self, test: Batch, draw: Draw, use: LatentUse | None) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, images (R, C, pixels) in [0, 1], in R rows and C columns) of some test examples.

        `use` says how the latents are used on the test examples, at the end of a run; it is None during training.
        """
        yield from ()

    def network(self) -> nn.Module:
        """Return the module whose weights are saved and loaded."""
        return self

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are trained: those that require a gradient."""
        return [one for one in self.parameters() if one.requires_grad]


class OneLayerTask(Task):
    """A task with one layer of categorical variables: L of K classes each, `n_latents` and `n_categories`.

    The constructor sets both. The loss is E[cost] + penalty; its terms are `cost` and, if there is one, `penalty`.
    """

    n_latents: int
    n_categories: int
    terms: ClassVar[tuple[str, str]] = ("cost", "penalty")
    """The names of the two terms of the loss."""
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
        """Return the measures, by name, of one-hot codes: (B,) each, or a scalar."""
        return {}

    def code_costs(self, batch: Batch, z_NLK: Tensor) -> Tensor | None:
        """Return the costs (N, B) of every code for every example, if there is a faster way than to call `cost`."""
        return None

    def layers(self) -> Mapping[str, tuple[int, int]]:
        """Return the one layer. Raises ValueError if the constructor set no sizes."""
        sizes = getattr(self, "n_latents", None), getattr(self, "n_categories", None)
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(
                f"{self.name}: expected self.n_latents and self.n_categories, whole numbers, set in __init__, got"
                f" {sizes[0]} and {sizes[1]}."
            )
        return {LAYER: (self.n_latents, self.n_categories)}

    def term_names(self) -> tuple[str, ...]:
        """Return `terms`, without the penalty if the class defines none."""
        return self.terms if type(self).penalty is not OneLayerTask.penalty else self.terms[:1]

    def loss(self, batch: Batch, estimators: Estimators) -> Loss:
        """Return E[cost] by the estimator, and the penalty."""
        estimator = estimators[LAYER]
        logits_BLH = self.logits(batch)
        estimate = estimator(logits_BLH, self.cost(batch), self.context(batch))  # where estimators differ
        penalty = estimator.kl(logits_BLH) if self.has_bound else None
        if penalty is None:
            penalty = self.penalty(batch, estimator.class_logits(logits_BLH))
        return Loss(self._named(estimate.cost_B, penalty), estimate.control_loss)

    def evaluate(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Return the terms of the loss with one-hot samples, and the measures, means over the samples.

        Raises ValueError if a measure has the name of the loss or of one of its terms, which it would replace.
        """
        logits_BLH = self.logits(batch)
        z_SBLK = draw(logits_BLH)
        found = self._named(self.cost(batch)(z_SBLK).mean(0), self.penalty(batch, draw.law(logits_BLH)))
        codes_SBLK = draw.mode(logits_BLH) if self.measured_on == "mode" else z_SBLK
        measured = [self.measure(batch, z_BLK) for z_BLK in codes_SBLK]
        if taken := measured[0].keys() & {*found, LOSS.name, self.loss_name, *RESERVED}:
            raise ValueError(
                f"{self.name}: expected measure() to return other names than those of the loss and its terms, got"
                f" {min(taken)}. Rename it, or leave it out: the harness measures the loss and its terms."
            )
        return found | {name: torch.stack([each[name] for each in measured]).float().mean(0) for name in measured[0]}

    def gradient_problems(self, batch: Batch, estimators: Estimators) -> Mapping[str, LayerProblem]:
        """Return logits and cost of the one layer."""
        logits_BLH = self.logits(batch)
        some_code = logits_BLH.new_zeros(1, self.n_latents, self.n_categories)
        is_fast = self.code_costs(batch, some_code) is not None
        code_costs = cast(Callable[[Tensor], Tensor], partial(self.code_costs, batch)) if is_fast else None
        problem = LayerProblem(
            logits_BLH, self.n_categories, self.cost(batch), self.context(batch), code_costs=code_costs
        )
        return {LAYER: problem}

    def _named(self, cost_B: Tensor, penalty: Tensor | None) -> dict[str, Tensor]:
        values = (cost_B, cost_B.new_zeros(()) if penalty is None else penalty)
        return dict(zip(self.term_names(), values, strict=False))


def _check_declaration(cls: type[Task]) -> None:
    name = check_name(cls, "my_task")
    if not (isinstance(cls.measures, tuple) and cls.measures and all(isinstance(m, Measure) for m in cls.measures)):
        raise TypeError(f"{name}: expected measures = (Measure(…), …), at least one, got {cls.measures!r}.")
    names = [measure.name for measure in cls.measures]
    if again := [one for one in names if names.count(one) > 1]:
        raise TypeError(f"{name}: expected different names of measures, got {again[0]} more than once.")
    check_constructor(cls, name)
    cls.title = title_of(cls, name)
