"""What a run has by name: its estimator, its task, and the basket of its diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_serializer, field_validator, model_validator

from harness.bounded_names import metric_names
from harness.measures import Measure
from harness.schedules import Label, PositiveInt, Settings, short

Scalar = bool | int | float | str | None


class EstimatorConfig(Settings):
    """An estimator by name, with all parameters except τ, which belongs to the schedule.

    `source` is the SHA-256 of a plug-in's file, so that an edited plug-in makes new runs. It is None for a built-in.
    """

    reserved: ClassVar[frozenset[str]] = frozenset({"name", "label", "source", "tau"})

    name: Annotated[str, Field(min_length=1)]
    params: Mapping[str, Scalar | tuple[Scalar, ...]] = {}
    source: str | None = None
    custom_label: Label | None = Field(default=None, alias="label")

    @field_validator("params")
    @classmethod
    def _sorted_and_not_reserved(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := cls.reserved & params.keys():
            raise ValueError(f"expected no parameter called {min(taken)}, which means something else in a grid.")
        return dict(sorted(params.items()))

    @field_serializer("params")
    def _as_plain_dict(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return dict(params)

    @property
    def label(self) -> str:
        return self.custom_label or estimator_label(self.name, self.params)


class TaskConfig(EstimatorConfig):
    """A task other than the categorical VAE by name, with all its parameters, and facts that follow from them.

    `source` is the SHA-256 of a plug-in's code, None for a built-in task. The facts are no part of the key, but for the
    first digits of `fingerprint`, the numbers that tell a plug-in's data (`harness.training.fingerprint`). `layers` has
    (L, K) of each stochastic layer; `n_examples` the sizes of training, validation and test data, if the task takes no
    images; `steps_per_epoch` is that of a task without data; the others are those of the class. The label is the name,
    with the parameters that differ within the grid.
    """

    reserved: ClassVar[frozenset[str]] = frozenset({"name", "label", "source"})
    facts: ClassVar[frozenset[str]] = frozenset(
        {"layers", "measures", "uses_images", "evaluation_settings", "n_examples", "steps_per_epoch", "fingerprint"}
    )

    layers: Mapping[str, tuple[int, int]] = {}
    measures: tuple[Measure, ...] = ()
    uses_images: bool = False
    evaluation_settings: tuple[str, ...] = ()
    n_examples: tuple[int, int, int] = (0, 0, 0)
    steps_per_epoch: int | None = None
    fingerprint: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        return self.custom_label or self.name

    @property
    def unused(self) -> set[str]:
        """The settings of evaluation that the task does not use."""
        return {"n_images", "bound_samples"} - set(self.evaluation_settings)

    @field_serializer("layers")
    def _layers_as_plain_dict(self, layers: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        return dict(layers)

    @cached_property
    def canonical(self) -> str:
        """Name, parameters, source and, of a plug-in, the data as text for the run key: other data make new runs."""
        text = self.canonical_without(self.facts)
        return f"{text}{[f'{number:.3g}' for number in self.fingerprint]}" if self.fingerprint else text


class BasketConfig(EstimatorConfig):
    """An estimator of the diagnostics' basket. A temperature that is not a parameter is that of the run."""

    reserved: ClassVar[frozenset[str]] = EstimatorConfig.reserved - {"tau"}


class DiagnosticsConfig(Settings):
    """Gradient quality during training: how often, with how many draws, on how many examples, for which estimators."""

    every: PositiveInt = 1
    resamples: Annotated[int, Field(ge=64, le=10**9)] = 1024
    probe: PositiveInt = 100
    max_codes: PositiveInt = 16384
    basket: tuple[BasketConfig, ...] = ()

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        labels = [entry.label for entry in self.basket]
        if again := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"basket: expected different names, got {again[0]} more than once. Give labels.")
        return self

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the basket's estimators in `gradient/<name>/<metric>`, in its order."""
        return metric_names(entry.label for entry in self.basket)


def estimator_label(name: str, params: Mapping[str, Any]) -> str:
    """Return a label such as `rloo(n_samples=4)`, or only the name if there are no parameters."""
    shown = ", ".join(f"{key}={short(value)}" for key, value in sorted(params.items()))
    return f"{name}({shown})" if shown else name
