"""A categorical distribution of torch whose `rsample` carries an estimator's gradient."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import OneHotCategorical

from estimators.base import Estimator, Pathwise
from estimators.functional import sample
from estimators.resolve import resolve
from estimators.unimix import Mixed


class OneHotCategoricalPathwise(OneHotCategorical):
    """`torch.distributions.OneHotCategorical` with `rsample` by a pathwise estimator.

    `sample`, `log_prob` and `entropy` are torch's. Where the estimator relaxes, `rsample` returns soft codes, which
    `log_prob` refuses unless the distribution has `validate_args=False`.
    """

    has_rsample = True

    def __init__(
        self,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        *,
        estimator: str | Estimator,
        validate_args: bool | None = None,
        **params: Any,
    ) -> None:
        """Take probabilities or logits (…, K), the estimator's name or object, and its parameters (`tau=1.1`).

        With `unimix`, the whole distribution is that of the mixed law.

        Raises ValueError, in one line, for an estimator that is not pathwise, that draws several samples, or whose
        logits are not those of classes (`igr`), and for impossible parameters.
        """
        built = resolve("OneHotCategoricalPathwise", estimator, params, _check_kind)
        if isinstance(built, Mixed):  # the law is the mixed one, and `inner` the estimator at its logits
            given = OneHotCategorical(probs, logits, validate_args)
            probs, logits, built = None, built.class_logits(given.logits), built.inner
        self._estimator = built
        super().__init__(probs, logits, validate_args)

    def expand(
        self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: Any = None
    ) -> OneHotCategoricalPathwise:
        """Return the distribution with another shape of independent copies."""
        new = self.__new__(type(self)) if _instance is None else _instance
        new._estimator = self._estimator
        expanded = super().expand(torch.Size(batch_shape), new)  # type: ignore[no-untyped-call]
        return cast(OneHotCategoricalPathwise, expanded)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()) -> Tensor:  # noqa: B008
        """Return codes (*sample_shape, *batch_shape, K) with the estimator's gradient."""
        return sample(self.logits.expand(self._extended_shape(torch.Size(sample_shape))), self._estimator)


def _check_kind(built: Estimator, _: str) -> None:
    if not isinstance(built, Pathwise) or built.n_samples != 1 or built.n_outputs(3) != 3:
        raise ValueError(
            "OneHotCategoricalPathwise: expected a pathwise estimator of one sample whose logits are those of"
            f" classes, such as straight_through or gumbel_softmax, got {built.name}"
            f" with n_samples = {built.n_samples}."
        )
