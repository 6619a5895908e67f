"""A share of the uniform law in the codes of any estimator: the option `unimix`."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from numbers import Real
from types import new_class
from typing import Any, cast

import torch
from torch import Tensor

from estimators.base import Cost, Estimate, Estimator, Pathwise, parameters
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import wide
from estimators.simplex import softmax

UNIMIX = "unimix"
"""The name of the option, which every estimator has besides its own parameters."""
_FACTS = (
    "name", "title", "reference", "use_when", "unbiased", "relaxes", "objective", "black_box", "evaluates_soft",
    "shift_invariant", "min_samples", "examples",
)  # fmt: skip


def mixed_logits(logits_xK: Tensor, unimix: float) -> Tensor:
    """Return log((1 − ε)π + ε/K), π = softmax(logits), ε = `unimix`: (…, K), in the dtype of the logits.

    Differentiable. A class whose logit is −inf keeps it and gets no gradient; ε is shared by the others.
    """
    if unimix == 0:
        return logits_xK
    forbidden_xK = logits_xK == -torch.inf
    probs_xK = softmax(wide(logits_xK))
    share_x1 = unimix / (~forbidden_xK).sum(-1, keepdim=True).to(probs_xK.dtype)
    mixed_xK = (share_x1 + (1 - unimix) * probs_xK).clamp(min=torch.finfo(probs_xK.dtype).tiny).log()
    return mixed_xK.masked_fill(forbidden_xK, -torch.inf).to(logits_xK.dtype)


def with_unimix(estimator: Estimator, unimix: float) -> Estimator:
    """Return an estimator whose codes follow (1 − ε)π + ε/K, ε = `unimix`; the given one itself where ε is 0.

    It is the given estimator at the logits of that law, with the gradient through the mixing: the exact chain rule, so
    that an unbiased estimator is one of the mixed law. `class_logits`, hence the KL, has that law too. Its parameters
    and temperatures are those of `inner`, the given estimator.

    Raises ValueError unless 0 <= unimix < 1, and for an estimator whose codes do not follow softmax(logits).
    """
    if _checked(estimator.name, unimix) == 0:
        return estimator
    if UNIMIX in parameters(type(estimator)):
        rule = "expected no unimix, since it has a parameter of that name"
        raise ValueError(f"{estimator.name}: {rule}, got {unimix!r}.")
    made = _class_of(type(estimator))
    mixed = made.__new__(made)
    mixed.wrap(estimator, unimix)
    return mixed


def _checked(name: str, unimix: object) -> float:
    if isinstance(unimix, bool) or not isinstance(unimix, Real) or not 0 <= float(unimix) < 1:
        raise ValueError(f"{name}: expected 0 <= unimix < 1, got {unimix!r}.")
    return float(unimix)


class Mixed(Estimator):
    """An estimator at the logits of (1 − ε)π + ε/K. `with_unimix` makes a class of it for each class of estimators."""

    inner: Estimator
    unimix: float

    @staticmethod
    @abstractmethod
    def construct(**params: Any) -> Estimator:
        """Return the estimator without unimix."""

    def __init__(self, *, unimix: float = 0.0, **params: Any) -> None:
        inner = self.construct(**params)
        self.wrap(inner, unimix)

    def wrap(self, inner: Estimator, unimix: float) -> None:
        """Set the estimator and ε. Raises ValueError for another law than softmax, and for an impossible ε."""
        super().__init__()
        cls = type(inner)
        if cls.class_logits is not Estimator.class_logits or cls.n_outputs is not Estimator.n_outputs:
            raise ValueError(
                f"{inner.name}: expected no unimix, since its codes do not follow softmax(logits), got {unimix!r}."
            )
        self.unimix = _checked(inner.name, unimix)
        self.inner = inner
        self.unbiased = inner.unbiased

    def mixed(self, logits_BLK: Tensor) -> Tensor:
        """Return the logits of the mixed law."""
        return mixed_logits(logits_BLK, self.unimix)

    def forward(self, logits_BLK: Tensor, cost: Cost, context_BX: Tensor | None = None) -> Estimate:
        """Return the estimate at the mixed logits."""
        return self.inner(self.mixed(logits_BLK), cost, context_BX)

    def class_logits(self, logits_BLK: Tensor) -> Tensor:
        """Return the mixed logits."""
        return self.mixed(logits_BLK)

    def kl(self, logits_BLK: Tensor) -> Tensor | None:
        """Return the KL of the estimator at the mixed logits; None where it has none of its own."""
        return self.inner.kl(self.mixed(logits_BLK))

    def prepare(self, n_latents: int, n_categories: int, n_context: int = 0) -> None:
        """Prepare the estimator."""
        self.inner.prepare(n_latents, n_categories, n_context)

    def control_optimizer(self) -> torch.optim.Optimizer | None:
        """Return the optimiser of the estimator."""
        return self.inner.control_optimizer()

    def check_shape(self, n_latents: int, n_categories: int) -> None:
        """Raise ValueError where the estimator does."""
        self.inner.check_shape(n_latents, n_categories)

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the evaluations of the estimator."""
        return self.inner.n_cost_evals(n_latents, n_categories)

    def extra_repr(self) -> str:
        """Return ε; the estimator shows its own arguments."""
        return f"unimix={self.unimix!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, (type(self.inner),), self.__dict__


class MixedPathwise(Mixed, Pathwise):  # type: ignore[misc]  # the estimator's own forward, even of a subclass that has one
    """A pathwise estimator at mixed logits."""

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return the codes of the estimator at the mixed logits."""
        return cast(Pathwise, self.inner).checked_sample(self.mixed(logits_BLK))


class MixedDrawsFirst(Mixed, DrawsFirst):
    """An estimator that draws before it needs a cost, at mixed logits."""

    def draw(self, logits_BLK: Tensor, context_BX: Tensor | None = None) -> Draw:
        """Return the draw of the estimator at the mixed logits."""
        draw: Callable[..., Draw] = cast(DrawsFirst, self.inner).draw
        mixed_BLK = self.mixed(logits_BLK)
        return draw(mixed_BLK, context_BX) if self.uses_context else draw(mixed_BLK)


@cache
def _class_of(cls: type[Estimator]) -> type[Mixed]:
    """Return the subclass of Mixed that declares what `cls` does, with the option as one more argument."""
    base = next(
        mixed
        for kind, mixed in ((Pathwise, MixedPathwise), (DrawsFirst, MixedDrawsFirst), (Estimator, Mixed))
        if issubclass(cls, kind)
    )
    option = inspect.Parameter(UNIMIX, inspect.Parameter.KEYWORD_ONLY, default=0.0, annotation=float)
    arguments = [*inspect.signature(cls).parameters.values(), option]
    members: dict[str, Any] = {key: getattr(cls, key) for key in _FACTS}
    members |= {key: _of_inner(key) for key in ("n_samples", "control_lr", *parameters(cls))}
    members |= {"construct": staticmethod(cls), "__signature__": inspect.Signature(arguments), "__doc__": cls.__doc__}
    made = cast(type[Mixed], new_class(f"Unimix{cls.__name__}", (base,), exec_body=lambda body: body.update(members)))
    made.uses_context = cls.uses_context  # filled in by the signature of the forward of `base`
    made.temperatures, made.uses_tau = cls.temperatures, cls.uses_tau  # here they are properties of another kind
    return made


def _of_inner(key: str) -> property:
    """Return a property that reads and sets an attribute of the wrapped estimator."""

    def get(self: Mixed) -> Any:
        return getattr(self.inner, key)

    def put(self: Mixed, value: Any) -> None:
        setattr(self.inner, key, value)

    return property(get, put, doc=f"`{key}` of the estimator.")


def _empty(cls: type[Estimator]) -> Mixed:
    """Return an object of the mixed class of `cls` before its state is set, for copies and pickles."""
    made = _class_of(cls)
    return made.__new__(made)
