"""A categorical distribution of torch whose `rsample` carries an estimator's gradient."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import OneHotCategorical

from estimators.base import Estimator
from estimators.functional import sample


class OneHotCategoricalPathwise(OneHotCategorical):
    """`torch.distributions.OneHotCategorical` with `rsample` by a pathwise estimator.

    `sample`, `log_prob` and `entropy` are torch's. Where the estimator relaxes, `rsample` returns soft codes.
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
        """Take probabilities or logits (…, K), the estimator's name or object, and its parameters (`tau=1.1`)."""
        self._estimator, self._params = estimator, params
        super().__init__(probs, logits, validate_args)

    def expand(
        self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: Any = None
    ) -> OneHotCategoricalPathwise:
        """Return the distribution with another shape of independent copies."""
        new = self.__new__(type(self)) if _instance is None else _instance
        new._estimator, new._params = self._estimator, self._params
        expanded = super().expand(torch.Size(batch_shape), new)  # type: ignore[no-untyped-call]
        return cast(OneHotCategoricalPathwise, expanded)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()) -> Tensor:  # noqa: B008
        """Return codes (*sample_shape, *batch_shape, K) with the estimator's gradient.

        Raises ValueError for an estimator that is not pathwise, and for parameters that are impossible.
        """
        logits = self.logits.expand(self._extended_shape(torch.Size(sample_shape)))
        return sample(logits, self._estimator, **self._params)
