"""The configuration of one run: frozen, strict models of its settings, and the key that identifies it.

`harness.grid` makes many of these from a grid file. Nothing here imports torch, so that the command line starts fast.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from harness.bounded_names import metric_names, run_name
from harness.datasets.descriptions import DataError
from harness.datasets.image_source import OWN, ImageSource
from harness.datasets.own import NO_SOURCES, Facts, Sources, facts, is_own
from harness.datasets.sizes import sizes as sizes_of_images
from harness.measures import VAE_MEASURES, VAE_NAME, Measure
from harness.schedules import Constant, Label, NoSchedule, Positive, PositiveInt, ScheduleConfig, Settings, short

if TYPE_CHECKING:
    from estimators import Estimator
    from reports.contract.settings import Setting

Scalar = bool | int | float | str | None
Fraction = Annotated[float, Field(ge=0, lt=1)]
Nonnegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, le=10**9)]
DEVICE = "cpu|mps|cuda(:[0-9]{1,3})?"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class DataConfig(Settings):
    """The images, their binarisation, and the fraction of training images kept for validation.

    `path` and `size` are of own images, `file` and `folder`. What is derived from own images (`location`, `digest`,
    `n_images`, `image_shape`) is filled in by `identified`. The digest is part of the run key, the path is not. For a
    built-in data set all of them are None, and not among the settings.
    """

    own: ClassVar[tuple[str, ...]] = ("path", "size")
    derived: ClassVar[tuple[str, ...]] = Facts._fields

    name: Name = "mnist-mini"
    binarization: Literal["none", "threshold", "fixed", "resampled"] = "none"
    validation_fraction: Fraction = 0.1
    split_seed: Count = 0
    train_size: PositiveInt | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    size: tuple[int, int] | None = None
    location: str | None = None
    digest: str | None = None
    n_images: tuple[int, int, int] | None = None
    image_shape: tuple[int, ...] | None = None
    _source: type[ImageSource] | None = PrivateAttr(default=None)

    @field_validator("size", mode="before")
    @classmethod
    def _one_number_is_both(cls, value: object) -> object:
        found = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value
        if found is None or (isinstance(found, tuple) and len(found) == 2 and all(map(_is_positive, found))):
            return found
        raise ValueError(f"size: expected a whole number of pixels >= 1, or [height, width], got {short(value)}.")

    @model_validator(mode="after")
    def _path_and_size_belong_to_own_images(self) -> Self:
        if self.path is not None and self.name not in OWN:
            raise ValueError(f"path: expected none with data {self.name}, got {self.path!r}. Use name: file or folder.")
        if self.size is not None and self.name != "folder":
            raise ValueError(
                f"size: expected none with data {self.name}, got {short(self.size)}. Only name: folder has one."
            )
        if self.path is None and self.name in OWN:
            raise ValueError(f"path: expected the path of the images with data {self.name}, got none. Add path: …")
        return self

    @model_serializer(mode="wrap")
    def _without_own_images(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        optional = {*self.own, *self.derived}
        return {key: value for key, value in handler(self).items() if key not in optional or value is not None}

    @cached_property
    def canonical(self) -> str:
        """The settings for the run key. Own images are known by their digest, wherever they are."""
        unhashed = {*self.own, *self.derived} - {"digest"} if self.digest else set()
        values = self.model_dump(mode="json", exclude=unhashed)
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def source(self) -> type[ImageSource] | None:
        """The plug-in that makes the images, if `with_source` set it."""
        return self._source

    def identified(self, sources: Sources = NO_SOURCES) -> Self:
        """Return these settings with what is derived from own images, which are read for it.

        `sources` are those of plug-ins. Raises DataError if the images cannot be used, or if a part of the training
        images is to be kept for validation though there are validation images.
        """
        if not is_own(self.name):
            return self
        found = facts(self, sources)
        update = found._asdict()
        if found.n_images[1]:
            if "validation_fraction" in self.model_fields_set and self.validation_fraction:
                raise DataError(
                    "data.validation_fraction: expected none with data that have validation images, got "
                    f"{self.validation_fraction}. Leave it out."
                )
            update["validation_fraction"] = 0.0
        return self.model_copy(update=update)

    def with_source(self, sources: Sources) -> Self:
        """Return these settings with the plug-in that makes their images, if one of `sources` does."""
        if self.name not in sources:
            return self
        copy = self.model_copy()
        copy._source = sources[self.name]
        return copy


class ModelConfig(Settings):
    """The categorical VAE. The decoder mirrors the encoder.

    `hidden` are the encoder's layers with `backbone: mlp`; `linear` has none. `channels` are those of the convolutions
    of `conv`, each of which halves height and width; the latents are the places of the grid that is left. A setting of
    another backbone than the run's is refused, and none of its settings, nor part of its key; nor is `mlp` itself.

    `precision` is that of the matrix products only. Parameters, noise, losses and optimiser are always float32.
    """

    n_latents: PositiveInt = 20
    n_categories: Annotated[int, Field(ge=2, le=10**9)] = 10
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 256)
    activation: Literal["relu", "leaky_relu", "tanh", "elu", "gelu"] = "relu"
    logits_activation: Literal["identity", "relu", "tanh"] = "identity"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    backbone: Literal["mlp", "linear", "conv"] = "mlp"
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64)

    @model_validator(mode="after")
    def _settings_belong_to_the_backbone(self) -> Self:
        if given := [name for name in self._unused if name in self.model_fields_set]:
            raise ValueError(
                f"{given[0]}: expected none with backbone {self.backbone}, got {short(getattr(self, given[0]))}. "
                "Leave it out."
            )
        if self.backbone == "conv" and self.precision != "float32":
            raise ValueError(f"precision: expected float32 with backbone conv, got {self.precision}.")
        return self

    @property
    def _unused(self) -> tuple[str, ...]:
        used = {"mlp": "hidden", "conv": "channels"}.get(self.backbone)
        return tuple(name for name in ("hidden", "channels") if name != used)

    @model_serializer(mode="wrap")
    def _without_other_backbones(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        left_out = {*self._unused, *(["backbone"] if self.backbone == "mlp" else [])}
        return {key: value for key, value in handler(self).items() if key not in left_out}

    def check_images(self, image_shape: tuple[int, ...]) -> None:
        """Raise ValueError if the latents do not fit the grid that the convolutions make of images of that shape."""
        if self.backbone != "conv":
            return
        height, width = image_shape[-2:]
        shrunk = 2 ** len(self.channels)
        if height % shrunk or width % shrunk:
            raise ValueError(
                f"model.channels: expected images whose sides can be halved {len(self.channels)} times, got {height} ×"
                f" {width}. Use fewer channels."
            )
        places = (height // shrunk) * (width // shrunk)
        if self.n_latents != places:
            raise ValueError(
                f"model.n_latents: expected {places} = {height // shrunk} × {width // shrunk} with backbone conv,"
                f" {len(self.channels)} convolutions and images of {height} × {width}, got {self.n_latents}."
            )


class TrainingConfig(Settings):
    """The budget and the optimiser, the same for every estimator."""

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    optimizer: Literal["adam", "radam", "adamw", "sgd"] = "adam"
    lr: Positive = 1e-3
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    momentum: Fraction = 0.0
    weight_decay: Nonnegative = 0.0
    grad_clip: Positive | None = None
    compile: Literal["auto", "on", "off"] = "auto"

    @field_validator("compile", mode="before")
    @classmethod
    def _on_and_off_are_booleans_in_yaml(cls, value: object) -> object:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _momentum_belongs_to_sgd(self) -> Self:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(
                f"momentum: expected 0 with optimizer {self.optimizer}, got {short(self.momentum)}. "
                "Use optimizer: sgd, or leave momentum out."
            )
        return self


class EvaluationConfig(Settings):
    """The evaluation: on which images and with which codes. `bound_samples` is the bound's k; 0 means no bound."""

    validation_split: Literal["validation", "train", "test"] = "validation"
    validation_codes: Literal["one_hot", "relaxed"] = "one_hot"
    validation_every: PositiveInt = 1
    test_samples: PositiveInt = 1
    bound_samples: Count = 100
    batch_size: PositiveInt = 1000
    n_images: Count = 8


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

    `source` is the SHA-256 of a plug-in's code, None for a built-in task. The facts are no part of the key: `layers`
    has (L, K) of each stochastic layer; `n_examples` the sizes of training, validation and test data, if the task takes
    no images; `steps_per_epoch` is that of a task without data; the others are those of the class. The label is the
    name, with the parameters that differ within the grid.
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

    @field_serializer("layers")
    def _layers_as_plain_dict(self, layers: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        return dict(layers)

    @cached_property
    def canonical(self) -> str:
        """Name, parameters, source and, of a plug-in, the data as text for the run key: other data make new runs."""
        text = _canonical(self, {"custom_label", *self.facts})
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


class RunConfig(Settings):
    """Everything that determines the numbers of one run.

    `varies` has the dotted names of other settings that differ within the grid. The label shows them; they are not part
    of the key. `quoted`: the label has its parts in quotes, because otherwise another run of the grid has the same one.
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
    varies: tuple[str, ...] = ()
    quoted: bool = False

    @model_validator(mode="after")
    def _images_exist(self) -> Self:
        check_splits(self.task, self.data, self.evaluation, self.model)
        return self

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections of settings that the task of the run uses."""
        if self.task is None:
            return ("data", "model", "training", "evaluation")
        return (*(["data"] if self.task.uses_images else []), "training", "evaluation")

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
    def canonical(self) -> str:
        """The canonical texts of the sections, which are cached, as one text."""
        parts = {name: getattr(self, name).canonical for name in (*self.sections, "estimator", "schedule")}
        if self.task:
            parts |= {"task": self.task.canonical, "evaluation": _canonical(self.evaluation, self._unused)}
        parts |= {"device": json.dumps(self.device), "seed": str(self.seed)}
        parts |= {"diagnostics": self.diagnostics.canonical} if self.diagnostics else {}
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
            excluded = {"custom_label"} | (self._unused if section == "evaluation" else set())
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
        yield "device", self.device
        yield "seed", self.seed

    @property
    def _unused(self) -> set[str]:
        """The settings of evaluation that the task does not use."""
        return set() if self.task is None else {"n_images", "bound_samples"} - set(self.task.evaluation_settings)

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
        if section == "evaluation" and name in self._unused:
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


def _canonical(settings: Settings, excluded: set[str]) -> str:
    """Return settings as text for the run key, without some of them."""
    values = settings.model_dump(mode="json", by_alias=True, exclude=excluded)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def estimator_label(name: str, params: Mapping[str, Any]) -> str:
    """Return a label such as `rloo(n_samples=4)`, or only the name if there are no parameters."""
    shown = ", ".join(f"{key}={short(value)}" for key, value in sorted(params.items()))
    return f"{name}({shown})" if shown else name


def _plain(value: Any) -> Scalar:
    return short(value) if isinstance(value, tuple) else value
