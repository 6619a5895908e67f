"""The data sets that there are, the files each is made of, and the checksums of those files.

Imports neither torch nor numpy, so that listing data sets is instant.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from harness.errors import UserError, did_you_mean

Split = Literal["train", "validation", "test"]

MNIST_MINI_SHA256 = "625e8c654a1ba984516ea173dc89bea88391290cf87fae361ecd774dfa89367d"

_IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_TEST_NAMES = tuple(name.replace("t10k", "test") for name in _IDX_NAMES)
_EMNIST_NAMES = tuple(f"emnist-letters-{name}" for name in _TEST_NAMES)
_OMNIGLOT_NAMES = tuple(name.replace("idx1-ubyte", "idx1-short") for name in _TEST_NAMES)


class DataError(UserError):
    """A data set is unknown, missing or damaged; the message is one line that says what to do."""


@dataclass(frozen=True)
class DataFile:
    """One IDX file, or text of binary images (`.amat`), as it is kept on disk, plain or with `.gz` appended."""

    name: str  # of the plain file
    shape: tuple[int, ...]
    sha256: str | None = None  # of the plain content
    sha256_gz: str | None = None  # of the published .gz, if no checksum of the plain content is published

    @property
    def is_text(self) -> bool:
        """Whether the file is a text of binary images (`harness.datasets.amat`)."""
        return self.name.endswith(".amat")

    @property
    def n_bytes(self) -> int:
        """An upper bound of the plain size: the header and two bytes a value at most."""
        if self.is_text:
            return 2 * math.prod(self.shape)
        return 4 + 4 * len(self.shape) + math.prod(self.shape) * (1 if len(self.shape) == 3 else 2)


@dataclass(frozen=True)
class Archive:
    """A published archive from which the IDX files are made."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DatasetInfo:
    """One data set: what it shows, how large it is and how it is got.

    One with validation images of its own (`n_validation`) has no labels and only the values 0 and 1.
    """

    name: str
    description: str
    n_train: int
    n_test: int
    n_classes: int
    n_validation: int = 0  # images that are no training images; none are cut from these then
    files: tuple[DataFile, ...] = ()  # images, labels of train and test, or images of each split; empty where embedded
    archives: tuple[Archive, ...] = ()
    torchvision_class: str = ""  # the class whose mirrors have the data set
    origin: str = ""  # where the user gets the files, if nothing downloads them
    image_shape: tuple[int, int] = (28, 28)
    transposed: bool = False  # stored with rows and columns exchanged
    first_label: int = 0

    @property
    def embedded(self) -> bool:
        """Whether the data set is part of this package."""
        return not self.files

    @property
    def how(self) -> str:
        """How the data set is got: a command, or nothing to do."""
        if self.embedded:
            return "part of this package"
        command = f"harness data fetch {self.name}"
        return f"{command} --data-dir DIR, where DIR has {self.origin}" if self.origin else command

    @property
    def is_binary(self) -> bool:
        """Whether the images have only the values 0 and 1."""
        return self.n_validation > 0

    def split_files(self, split: Split) -> tuple[DataFile, ...]:
        """Return the file of the images of a split, and that of its labels if there are some."""
        if self.n_validation:
            return (self.files[("train", "validation", "test").index(split)],)
        return self.files[:2] if split == "train" else self.files[2:]


def lookup(name: str) -> DatasetInfo:
    """Return the data set of that name. Raises DataError, with a suggestion, if there is none."""
    if name in DATASETS:
        return DATASETS[name]
    advice = did_you_mean(name, DATASETS) or "See: harness list datasets"
    raise DataError(f"data.name: expected one of {', '.join(DATASETS)}, got '{name}'. {advice}")


def split_sizes(name: str, n_images: int, validation_fraction: float, train_size: int | None) -> tuple[int, int]:
    """Return the numbers of validation and training images out of `n_images` of a data set.

    Raises DataError if a part would have no image.
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(f"data.validation_fraction: expected 0 <= fraction < 1, got {validation_fraction}.")
    n_validation = round(validation_fraction * n_images)
    n_left = n_images - n_validation
    n_train = n_left if train_size is None else train_size
    if validation_fraction and not n_validation:
        raise DataError(
            f"data.validation_fraction: expected 0, or at least one image of the {n_images:,} of {name}, "
            f"got {validation_fraction}, which is none of them."
        )
    if not n_left:
        raise DataError(
            f"data.validation_fraction: expected to leave a training image of {name}, got {validation_fraction}."
        )
    if not 1 <= n_train <= n_left:
        raise DataError(f"data.train_size: expected 1 to {n_left:,} for {name}, got {n_train:,}.")
    return n_validation, n_train


def _files(
    n_train: int, n_test: int, *, plain: Sequence[str] = (), gz: Sequence[str] = (), names: Sequence[str] = _IDX_NAMES
) -> tuple[DataFile, ...]:
    """Return the four files. Their checksums, of one kind or the other, are in the same order."""
    shapes = [(n_train, 28, 28), (n_train,), (n_test, 28, 28), (n_test,)]
    none: list[None] = [None] * 4
    return tuple(DataFile(*fields) for fields in zip(names, shapes, plain or none, gz or none, strict=True))


_MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_FASHION_MNIST_GZ = (
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)
_KMNIST_GZ = (
    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
    "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
    "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
)
_BINARIZED = (("train", 50_000), ("valid", 10_000), ("test", 10_000))
_BINARIZED_SHA256 = (
    "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
)

_ALL = (
    DatasetInfo(
        name="mnist-mini",
        description="5,000 real MNIST digits, 500 of each, shipped with this package",
        n_train=4_000,
        n_test=1_000,
        n_classes=10,
    ),
    DatasetInfo(
        name="mnist",
        description="Handwritten digits",
        n_train=60_000,
        n_test=10_000,
        n_classes=10,
        files=_files(60_000, 10_000, plain=_MNIST),
        torchvision_class="MNIST",
    ),
    DatasetInfo(
        name="fashion-mnist",
        description="Photographs of clothes",
        n_train=60_000,
        n_test=10_000,
        n_classes=10,
        files=_files(60_000, 10_000, gz=_FASHION_MNIST_GZ),
        torchvision_class="FashionMNIST",
    ),
    DatasetInfo(
        name="kmnist",
        description="Cursive Japanese characters (Kuzushiji-MNIST)",
        n_train=60_000,
        n_test=10_000,
        n_classes=10,
        files=_files(60_000, 10_000, gz=_KMNIST_GZ),
        torchvision_class="KMNIST",
    ),
    DatasetInfo(
        name="emnist-letters",
        description="Handwritten letters, upper and lower case together (EMNIST)",
        n_train=124_800,
        n_test=20_800,
        n_classes=26,
        files=_files(124_800, 20_800, names=_EMNIST_NAMES),
        archives=(
            Archive("gzip.zip", 561_753_746, "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"),
        ),
        torchvision_class="EMNIST",
        transposed=True,
        first_label=1,
    ),
    DatasetInfo(
        name="omniglot",
        description="Characters of 50 alphabets: the background set trains, the evaluation set tests",
        n_train=19_280,
        n_test=13_180,
        n_classes=1_623,
        files=_files(19_280, 13_180, names=_OMNIGLOT_NAMES),
        archives=(
            Archive(
                "images_background.zip", 9_464_212, "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"
            ),
            Archive(
                "images_evaluation.zip", 6_462_886, "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"
            ),
        ),
        torchvision_class="Omniglot",
    ),
    DatasetInfo(
        name="mnist-binarized",
        description="Handwritten digits, binarised once and for all (Salakhutdinov and Murray)",
        n_train=50_000,
        n_validation=10_000,
        n_test=10_000,
        n_classes=0,
        files=tuple(
            DataFile(f"binarized_mnist_{split}.amat", (n, 28, 28), sha256)
            for (split, n), sha256 in zip(_BINARIZED, _BINARIZED_SHA256, strict=True)
        ),
        origin=(
            "binarized_mnist_train.amat, binarized_mnist_valid.amat and binarized_mnist_test.amat of "
            "www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
        ),
    ),
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _ALL})
