"""The settings of one run, and the key that identifies it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from harness.bounded_names import run_name
from harness.config.named import DiagnosticsConfig, EstimatorConfig, Scalar, TaskConfig
from harness.config.sections import DataConfig, EvaluationConfig, ModelConfig, TrainingConfig
from harness.datasets.descriptions import DataError
from harness.datasets.sizes import sizes as sizes_of_images
from harness.measures import VAE_MEASURES, VAE_NAME, Measure
from harness.schedules import Constant, NoSchedule, ScheduleConfig, Settings, short

if TYPE_CHECKING:
    from estimators import Estimator
    from reports.contract.settings import Setting

DEVICE = "cpu|mps|cuda(:[0-9]{1,3})?"


class RunConfig(Settings):
    """Everything that determines the numbers of one run.

    `varies` has the dotted names of other settings that differ within the grid. The label shows them; they are not part
    of the key. `quoted`: the label has its parts in quotes, because otherwise another run of the grid has the same one.
    `trial` is the number of a trial of a tuning: it is evaluated on validation data alone. `role` says what a run of a
    tuning is for, and `competitor` which of those that are tuned it belongs to; they are not part of the key.
    `task` is None for the categorical VAE, whose settings are `data` and `model`; of another task, these are not used,
    but `data` by one that takes images.
    """

    task: TaskConfig | None = None
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    diagnostics: DiagnosticsConfig | None = None
    estimator: EstimatorConfig
    schedule: ScheduleConfig = Constant()
    device: Annotated[str, Field(pattern=f"^({DEVICE})$")] = "cpu"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    trial: Annotated[int, Field(ge=0)] | None = None
    role: Literal["", "trial", "tuned", "default"] = ""
    competitor: str = ""
    varies: tuple[str, ...] = ()
    quoted: bool = False

    @model_validator(mode="after")
    def _images_exist(self) -> Self:
        check_splits(self.task, self.data, self.evaluation, self.model)
        return self

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections of settings that the task of the run uses."""
        return sections_of(self.task)

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return self.task.name if self.task else VAE_NAME

    @property
    def task_label(self) -> str:
        """The name of the task, with the parameters that differ within the grid. Runs of one label are compared."""
        return self.task.label if self.task else VAE_NAME

    @property
    def layers(self) -> Mapping[str, tuple[int, int]]:
        """(L, K) of each stochastic layer of the task."""
        return self.task.layers if self.task else {"z": (self.model.n_latents, self.model.n_categories)}

    @property
    def sizes(self) -> Sizes:
        """The examples of the splits."""
        return sizes_of(self.task, self.data, self.training.batch_size)

    def n_cost_evals(self, estimator: Estimator) -> int:
        """Return how often an update evaluates the cost for each example, at most: layers are nested."""
        return math.prod(estimator.n_cost_evals(*shape) for shape in self.layers.values())

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the run is compared by; the first measure ranks."""
        return self.task.measures if self.task else VAE_MEASURES

    @property
    def result_metric(self) -> str:
        """The final metric that ranks the run: the first measure on test data, or on validation data for a trial."""
        first = self.measures[0]
        return first.metric if self.trial is None else first.validation_metric

    @property
    def canonical(self) -> str:
        """The canonical texts of the sections, which are cached, as one text."""
        parts = {name: getattr(self, name).canonical for name in (*self.sections, "estimator", "schedule")}
        if self.task:
            evaluation = self.evaluation.canonical_without(self.task.unused)
            parts |= {"task": self.task.canonical, "evaluation": evaluation}
        parts |= {"device": json.dumps(self.device), "seed": str(self.seed)}
        parts |= {"diagnostics": self.diagnostics.canonical} if self.diagnostics else {}
        parts |= {"trial": str(self.trial)} if self.trial is not None else {}
        return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that identify the run. Equal settings give equal keys."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:16]

    def flat(self) -> dict[str, Scalar]:
        """Return every setting by its dotted name, as the tracking store has it: lists as text, without labels."""
        return dict(self._flattened())

    def _flattened(self) -> Iterator[tuple[str, Scalar]]:
        for section in (*self.sections, "schedule"):
            excluded = {"custom_label"} | (self.task.unused if self.task and section == "evaluation" else set())
            values = getattr(self, section).model_dump(by_alias=True, exclude=excluded)
            yield from ((f"{section}.{name}", _plain(value)) for name, value in values.items())
        if self.task:
            yield "task.name", self.task.name
            yield "task.source", self.task.source
            yield from ((f"task.{name}", _plain(value)) for name, value in self.task.params.items())
        if self.diagnostics:
            values = self.diagnostics.model_dump(exclude={"basket"})
            yield from ((f"diagnostics.{name}", value) for name, value in values.items())
            yield "diagnostics.basket", ", ".join(entry.label for entry in self.diagnostics.basket)
        yield "estimator.name", self.estimator.name
        yield "estimator.source", self.estimator.source
        yield from ((f"estimator.{name}", _plain(value)) for name, value in self.estimator.params.items())
        if self.trial is not None:
            yield "trial", self.trial
        yield "device", self.device
        yield "seed", self.seed

    @property
    def setting(self) -> Setting:
        """What runs that differ only in device and seed have in common."""
        return self._setting(path for path in self.varies if path != "device")

    @property
    def label(self) -> str:
        """The run without its seed, such as `straight_through · constant(1) · lr=0.0003`, for readers."""
        setting = self._setting(self.varies)
        return setting.quoted if self.quoted else setting.text

    def _setting(self, varies: Iterable[str]) -> Setting:
        from reports.contract.settings import Setting  # not at the top: workers have no `reports`

        schedule = None if isinstance(self.schedule, NoSchedule) else self.schedule.label
        mine = (path for path in varies if self._has(path))
        return Setting(self.estimator.label, schedule, tuple(self._varying(path) for path in mine))

    def _has(self, path: str) -> bool:
        section, _, name = path.partition(".")
        if self.task and section == "evaluation" and name in self.task.unused:
            return False
        return section in ("task", "device", *self.sections)

    def _varying(self, path: str) -> tuple[str, str]:
        section, _, name = path.partition(".")
        if section == "task":
            return "task", self.task_label
        value = getattr(getattr(self, section), name) if name else self.device
        shown = {"data.name": "data", "evaluation.batch_size": "evaluation_batch_size"}.get(path, name or section)
        return shown, short(value)

    @property
    def n_epochs(self) -> int:
        return self.training.epochs

    @property
    def name(self) -> str:
        """The label with the seed, in at most 250 characters. It is unique within a grid."""
        return run_name(self.label, self.seed)

    def to_json(self) -> str:
        unused = {"data", "model"} - set(self.sections) if self.task else {"task"}
        unused |= {"trial", "role", "competitor"} if not self.role else set()
        return self.model_dump_json(by_alias=True, exclude=unused)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.model_validate_json(text)

    def build_estimator(self, registry: Mapping[str, type[Estimator]]) -> Estimator:
        """Build an estimator with this run's parameters, at the schedule's first τ. Raises ValueError if it cannot."""
        from estimators import build

        names = registry[self.estimator.name].temperatures if self.estimator.name in registry else ()
        first = self.schedule.temperatures(0, steps_per_epoch=1, n_steps=1)
        start = {key: value for key, value in first.items() if key in names}
        if "tau" in names and not start:
            raise ValueError(f"{self.estimator.name}: expected a schedule for its temperature, got none.")
        return build(self.estimator.name, registry, **{**self.estimator.params, **start})


def sections_of(task: TaskConfig | None) -> tuple[str, ...]:
    """Return the sections of settings that a task uses; None stands for the VAE."""
    if task is None:
        return ("data", "model", "training", "evaluation")
    return ("data", "training", "evaluation") if task.uses_images else ("training", "evaluation")


class Sizes(NamedTuple):
    """Examples of the splits."""

    n_train: int
    n_validation: int
    n_test: int


def sizes_of(task: TaskConfig | None, data: DataConfig, batch_size: int) -> Sizes:
    """Return how many examples a run has, images as stored."""
    if task is None or task.uses_images:
        found = sizes_of_images(data)
        return Sizes(found.n_train, found.n_validation, found.n_test)
    n_train, n_validation, n_test = task.n_examples
    return Sizes((task.steps_per_epoch or 0) * batch_size or n_train, n_validation, n_test)


def check_splits(
    task: TaskConfig | None, data: DataConfig | None, evaluation: EvaluationConfig, model: ModelConfig | None
) -> None:
    """Raise ValueError if a split that is needed has no examples, or if more images are shown than there are.

    Also if the VAE does not fit the images.
    """
    if data is not None and (task is None or task.uses_images):
        check_images(data, evaluation)
        if task is None and model is not None:
            model.check_images(sizes_of_images(data).image_shape)
    elif task is not None and evaluation.validation_split == "validation" and not task.n_examples[1]:
        raise ValueError(
            f"evaluation.validation_split: expected train or test, as {task.name} has no validation data, got"
            " validation."
        )


def check_images(data: DataConfig, evaluation: EvaluationConfig) -> None:
    """Raise ValueError if a split that is needed has no images, or if more images are shown than there are."""
    try:
        found = sizes_of_images(data)
    except DataError as error:
        raise ValueError(str(error)) from error
    if evaluation.validation_split == "validation" and not found.n_validation:
        raise ValueError(
            "data.validation_fraction: expected more than 0 with evaluation.validation_split validation, got 0. "
            "Set validation_split: train or test, or keep some images for validation."
        )
    if evaluation.n_images > found.n_test:
        raise ValueError(
            f"evaluation.n_images: expected at most the {found.n_test:,} test images of {data.path or data.name}, "
            f"got {evaluation.n_images:,}."
        )


def _plain(value: Any) -> Scalar:
    return short(value) if isinstance(value, tuple) else value
