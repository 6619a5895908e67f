"""The sections of settings: data, model, training and evaluation."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from harness.datasets.descriptions import DATASETS, DataError
from harness.datasets.image_source import OWN, ImageSource
from harness.datasets.own import NO_SOURCES, Facts, Sources, facts, is_own
from harness.schedules import Positive, PositiveInt, Settings, short

Fraction = Annotated[float, Field(ge=0, lt=1)]
Nonnegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, le=10**9)]
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
    def _binary_images_are_binarised_and_split_already(self) -> Self:
        if self.name not in DATASETS or not DATASETS[self.name].is_binary:
            return self
        if self.binarization != "none":
            raise ValueError(
                f"binarization: expected none with data {self.name}, whose images are binary, got {self.binarization}. "
                "Leave it out."
            )
        if "validation_fraction" in self.model_fields_set and self.validation_fraction:
            raise ValueError(
                f"validation_fraction: expected none with data {self.name}, which has validation images, got "
                f"{short(self.validation_fraction)}. Leave it out."
            )
        self.__dict__["validation_fraction"] = 0.0  # its default here; the model is frozen for others
        return self

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
        return self.canonical_without({*self.own, *self.derived} - {"digest"} if self.digest else set())

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
    """The budget and the optimiser, the same for every estimator. `lr_warmup` is in epochs; 0 is no part of the key."""

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    optimizer: Literal["adam", "radam", "adamw", "sgd"] = "adam"
    lr: Positive = 1e-3
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    lr_warmup: Count = 0
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

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.lr_warmup and self.lr_warmup >= self.epochs:
            raise ValueError(
                f"lr_warmup: expected fewer epochs than the {self.epochs:,} of the run, got {self.lr_warmup:,}."
            )
        return self

    @model_serializer(mode="wrap")
    def _without_no_warmup(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key != "lr_warmup" or value}


class EvaluationConfig(Settings):
    """The evaluation: on which images and with which codes. `bound_samples` is the bound's k; 0 means no bound.

    `checkpoint` says which parameters are tested: those of the last epoch, or of the best one by validation. `last` is
    no part of the key.
    """

    validation_split: Literal["validation", "train", "test"] = "validation"
    validation_codes: Literal["one_hot", "relaxed"] = "one_hot"
    validation_every: PositiveInt = 1
    test_samples: PositiveInt = 1
    bound_samples: Count = 100
    batch_size: PositiveInt = 1000
    n_images: Count = 8
    checkpoint: Literal["last", "best"] = "last"

    @model_validator(mode="after")
    def _not_chosen_by_test_images(self) -> Self:
        if self.checkpoint == "best" and self.validation_split == "test":
            raise ValueError(
                "checkpoint: expected last with validation_split test, got best. Choose by validation or train."
            )
        return self

    @model_serializer(mode="wrap")
    def _without_last(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key != "checkpoint" or value != "last"}


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
