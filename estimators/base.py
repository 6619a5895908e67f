"""The contract that every estimator keeps.

Letters: S samples, B examples, L latents, K classes. Costs are nats per example.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from estimators.arguments import (
    Temperature,
    check_costs,
    check_count,
    check_number,
    learned_weight,
    more_codes,
    samples_per_call,
    temperature,
)
from estimators.declarations import check_constructor, check_name, is_abstract, parameters, title_of
from estimators.gumbel import one_hot
from estimators.replaced import add_score, replace_gradient
from estimators.transforms import under_transform

__all__ = [
    "CODES_IN_GRAPH",
    "CODES_PER_CALL",
    "TEMPERATURES",
    "Cost",
    "Estimate",
    "Estimator",
    "Pathwise",
    "add_score",
    "check_costs",
    "check_count",
    "check_number",
    "learned_weight",
    "more_codes",
    "parameters",
    "replace_gradient",
    "samples_per_call",
    "temperature",
]

CODES_PER_CALL = 16_384
"""Without a gradient, a cost sees at most so many codes (samples × examples) at once, which bounds the memory."""
CODES_IN_GRAPH = 65_536
"""With a gradient, autograd keeps the activations of at most so many codes, and evaluates the others a second time."""
TEMPERATURES = ("tau", "tau_forward", "tau_backward")
"""Constructor arguments with these names are state that a schedule sets each step, and so is every `Temperature`."""

Cost = Callable[[Tensor], Tensor]
"""z_SBLK -> (S, B): the cost of every code of every example, and all that an estimator may evaluate."""


@final
@dataclass(frozen=True, eq=False)
class Estimate:
    """What an estimator returns: a cost whose gradient w.r.t. the logits is the estimator's.

    cost_B        value: Monte Carlo cost in nats, one per example. Gradient w.r.t. the logits: the estimator's;
                  w.r.t. everything else that the cost depends on (the decoder): ordinary backpropagation.
    control_loss  a scalar that trains the estimator's own parameters; None where it has none.
    z_SBLK        the codes that were drawn; None where the estimator enumerates all of them.
    """

    cost_B: Tensor  # the suffix is the tensor's shape
    control_loss: Tensor | None = None
    z_SBLK: Tensor | None = None


def tensor_version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; 0 where torch does not count, as in a compiled step."""
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version


def _check_declaration(cls: type[Estimator]) -> None:
    name = check_name(cls, "my_estimator")
    if not isinstance(getattr(cls, "relaxes", None), bool):
        raise TypeError(f"{name}: expected a class attribute relaxes (True: soft codes; False: one-hot), got none.")
    check_constructor(cls, name)
    cls.title = title_of(cls, name)


def _temperatures_of(cls: type[Estimator]) -> tuple[str, ...]:
    known = parameters(cls)
    named = [key for key in TEMPERATURES if key in known]
    return (*named, *(key for key in known if key not in named and isinstance(getattr(cls, key, None), Temperature)))


class Estimator(nn.Module, ABC):
    """A gradient of E[cost(z)], z one-hot and z_l ~ Cat(softmax(logits_l)), with respect to the logits.

    A concrete class states the facts below as class attributes and takes keyword-only constructor arguments, each with
    a default. Its constructor refuses impossible values, so building the object is the validation.
    """

    name: ClassVar[str]
    """Key in the registry, in grids and in reports: lower-case letters, digits and underscores."""
    title: ClassVar[str]
    """One line for people; by default the first line of the class docstring."""
    reference: ClassVar[str] = "–"
    """Authors (year), "Title", arXiv number, section or equation."""
    use_when: ClassVar[str] = "–"
    """One line of advice for somebody who is choosing."""
    unbiased: bool = False
    """True if the gradient's mean is the gradient of E[cost] for every cost. Of a class: with the default arguments. A
    constructor may set it for others."""
    relaxes: ClassVar[bool]
    """True if the cost sees soft codes, so that its value is not a cost of the discrete model."""
    objective: ClassVar[Literal["mean", "bound"]] = "mean"
    """"mean": the gradient is one of E[cost]. "bound": of the importance-weighted bound over n_samples codes, which
    holds the KL to the uniform prior too."""
    black_box: ClassVar[bool] = False
    """True if values of the cost are enough, so that it need not be differentiable in the code."""
    evaluates_soft: ClassVar[bool] = False
    """True if the cost also sees soft codes, for a control variate; the reported cost remains discrete."""
    shift_invariant: ClassVar[bool] = True
    """True if adding a constant to all logits of a latent changes nothing: the gradient then sums to 0 over classes."""
    min_samples: ClassVar[int] = 1
    """The smallest `n_samples` at which the estimator is defined."""
    examples: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Values for the arguments that have no fitting default: it is None, and the constructor refuses it and says how to
    choose. Tests and tables build with these values (`declarations.example`)."""
    temperatures: ClassVar[tuple[str, ...]] = ()
    """The constructor's arguments that a schedule sets. Filled in, never written by hand."""
    uses_tau: ClassVar[bool] = False
    """True exactly if `tau` is among them. Filled in."""
    uses_context: ClassVar[bool] = False
    """True exactly if `forward` takes a third argument, the data behind the logits. Filled in."""

    n_samples: int = 1
    control_lr: float = 1e-3
    """Learning rate of the estimator's own parameters, where it has any."""
    tau = temperature("tau")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raise TypeError for an incomplete class, and fill in what its author need not write."""
        super().__init_subclass__(**kwargs)
        if not is_abstract(cls):
            _check_declaration(cls)
            cls.temperatures = _temperatures_of(cls)
            cls.uses_tau = "tau" in cls.temperatures
            cls.uses_context = len(inspect.signature(cls.forward).parameters) > 3  # self, logits, cost, context

    def __init__(self) -> None:
        super().__init__()

    def __call__(self, logits_BLK: Tensor, cost: Cost, context_BX: Tensor | None = None) -> Estimate:
        """Run `forward`. The context, the data behind the logits, goes only to estimators whose `forward` takes it."""
        if logits_BLK.ndim != 3 or not logits_BLK.is_floating_point():
            got = f"{logits_BLK.dtype} {tuple(logits_BLK.shape)}"
            raise ValueError(f"{self.name}: expected floating-point logits of shape (B, L, K), got {got}.")
        context = (context_BX,) if self.uses_context else ()
        version = tensor_version(logits_BLK)
        estimate = cast(Estimate, super().__call__(logits_BLK, cost, *context))
        if tensor_version(logits_BLK) != version:
            raise ValueError(
                f"{self.name}: expected the logits unchanged, got them changed in place: the KL is computed from them"
                " too. Write logits = logits + x in place of logits += x or logits.add_(x)."
            )
        return estimate

    @abstractmethod
    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Evaluate the cost on codes of these logits; noise comes from torch's default generator of their device.

        A third argument, `context_BX: Tensor | None = None`, is optional: it receives the data behind the logits.
        """

    def prepare(self, n_latents: int, n_categories: int, n_context: int = 0) -> None:
        """Make the parameters whose shape depends on the model. Call it once, before the optimiser is made.

        `n_context` is the width X of the context, 0 if there will be none. Estimators without such parameters do
        nothing; the others also prepare on their first call.
        """

    def control_optimizer(self) -> torch.optim.Optimizer | None:
        """Return the optimiser of `control_loss`: Adam at `control_lr`, or None without parameters."""
        own = list(self.parameters())
        return torch.optim.Adam(own, lr=self.control_lr) if own else None

    def n_outputs(self, n_categories: int) -> int:
        """Return how many numbers an encoder must return for each latent: H = K, unless the law has another form."""
        return n_categories

    def class_logits(self, logits_BLK: Tensor) -> Tensor:
        """Return the logits of the law of the one-hot codes, which the KL and every discrete evaluation use."""
        return logits_BLK

    def kl(self, logits_BLK: Tensor) -> Tensor | None:
        """Return the KL to the prior for training, nats (B,); None: that of `class_logits` to the uniform law."""
        return None

    def check_shape(self, n_latents: int, n_categories: int) -> None:
        """Raise ValueError if the estimator cannot work with that many latents and classes."""

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the number of codes, per example and step, on which `forward` evaluates the cost, at most."""
        return self.n_samples

    @final
    def evaluate(self, cost: Cost, z_SBLK: Tensor) -> Tensor:
        """Return cost_SB. Raises ValueError if the cost does not return one number per sample and example.

        More than CODES_IN_GRAPH codes are evaluated in parts, whose activations are recomputed in the backward pass.
        """
        most = samples_per_call(CODES_IN_GRAPH, z_SBLK.shape[1])
        if len(z_SBLK) <= most:
            return self._evaluate(cost, z_SBLK)
        return torch.cat([self.evaluate_again(cost, part_SBLK) for part_SBLK in torch.split(z_SBLK, most)])

    @final
    def evaluate_again(self, cost: Cost, z_SBLK: Tensor) -> Tensor:
        """Return cost_SB without keeping activations: the cost is evaluated again in the backward pass."""
        if under_transform() or not torch.is_grad_enabled():  # checkpoints know no transforms
            return self._evaluate(cost, z_SBLK)
        return checkpoint(self._evaluate, cost, z_SBLK, use_reentrant=False)

    def _evaluate(self, cost: Cost, z_SBLK: Tensor) -> Tensor:
        cost_SB = check_costs(self.name, cost(z_SBLK), z_SBLK.shape[:2])
        if z_SBLK.requires_grad and not cost_SB.requires_grad and torch.is_grad_enabled() and not under_transform():
            raise ValueError(
                f"{self.name}: expected a cost that is differentiable in the code, got one without a derivative."
                " Use an estimator for black boxes, such as rloo."
            )
        return cost_SB

    @final
    def evaluate_classes(self, cost: Cost, class_SBL: Tensor, like: Tensor) -> Tensor:
        """Return cost_SB of one-hot codes given as class numbers: values only, CODES_PER_CALL codes at a time."""
        with torch.no_grad():
            parts = torch.split(class_SBL, samples_per_call(CODES_PER_CALL, class_SBL.shape[1]))
            return torch.cat([self.evaluate(cost, one_hot(part_SBL, like)) for part_SBL in parts])

    def extra_repr(self) -> str:
        """Return the constructor's arguments with their present values, learned ones as numbers."""
        values = {key: getattr(self, key) for key in parameters(type(self)) if hasattr(self, key)}
        return ", ".join(
            f"{key}={value.item():g}" if isinstance(value, Tensor) else f"{key}={value!r}"
            for key, value in values.items()
        )


class Pathwise(Estimator):
    """An estimator whose gradient flows through the code itself. A subclass defines `sample` and nothing else."""

    @abstractmethod
    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return z_SBLK, S = n_samples: one-hot or soft in value, with the gradient that the logits are to receive."""

    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Average the cost over the samples; backpropagation through them is the estimator."""
        z_SBLK = self.checked_sample(logits_BLK)
        return Estimate(self.evaluate(cost, z_SBLK.to(logits_BLK.dtype)).mean(0), z_SBLK=z_SBLK)

    @final
    def checked_sample(self, logits_BLK: Tensor) -> Tensor:
        """Return `sample`. Raises ValueError if it has a wrong shape, or no gradient."""
        z_SBLK = self.sample(logits_BLK)
        expected = (self.n_samples, *logits_BLK.shape[:2], z_SBLK.shape[-1])
        if z_SBLK.shape != expected:
            raise ValueError(
                f"{self.name}: expected sample of shape (S, B, L, K) = {expected}, got {tuple(z_SBLK.shape)}."
                " Return one code for each of n_samples, along the first dimension."
            )
        if logits_BLK.requires_grad and not (z_SBLK.requires_grad or under_transform()) and torch.is_grad_enabled():
            raise ValueError(
                f"{self.name}: expected a code with a gradient, got one that is detached from the logits."
                " Return replace_gradient(one_hot, soft): the value of the first and the gradient of the second."
            )
        return z_SBLK
