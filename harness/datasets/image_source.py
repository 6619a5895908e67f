"""Images of one's own from a plug-in: a class with a name and one method."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from harness.datasets.descriptions import DATASETS, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.datasets.own_images import OwnImages

OWN = {
    "file": "Your own images: arrays train and test in a file of numpy.savez",
    "folder": "Your own images: pictures in folders train and test, or a folder for each class there",
}
"""The names in a grid of images of one's own that need no plug-in, and what they are."""


class ImageSource(ABC):
    """Images that a plug-in makes or reads. A grid names it: `data: {name: my_data}`.

    `name` is a lower-case word of letters, digits and underscores. The class is built without arguments.
    """

    name: ClassVar[str]

    @abstractmethod
    def splits(self) -> Mapping[str, Any]:
        """Return `train`, `test` and, if wanted, `validation`, each a tensor or an array of images, or a torch Dataset.

        Images are (N, D), (N, H, W) or (N, C, H, W), floats in [0, 1] or bytes. Labels, if there are any, are whole
        numbers (N,): `train_labels`, `test_labels` and `validation_labels`. The items of a Dataset are an image, or an
        image and its label. It is read once into memory, in order. The same images must be returned at every call.
        """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raise TypeError for a class that has images but no proper name."""
        super().__init_subclass__(**kwargs)
        if getattr(cls.splits, "__isabstractmethod__", False):
            return
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not name.isascii() or not name.isidentifier() or name != name.lower():
            raise TypeError(f"{cls.__name__}: expected a class attribute name such as 'my_data', got {name!r}.")
        if name in (*DATASETS, *OWN):
            raise TypeError(f"{cls.__name__}: expected a new name of a data set, got {name!r}.")


def read_source(source: type[ImageSource]) -> OwnImages:
    """Return the images of a plug-in. Raises DataError if it fails, or if they are not as `ImageSource` says.

    Torch's generator is seeded alike before every call, and left as it was.
    """
    import torch

    from harness.datasets.own_images import checked

    name = source.name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            found = source().splits()
            arrays = _arrays(found, name)
        except DataError:
            raise
        except Exception as error:  # a plug-in may raise anything
            raise DataError(f"{name}: expected splits() to return images, got {_in_one_line(error)}") from error
    return checked(arrays, name)


def _arrays(found: object, name: str) -> dict[str, NDArray[np.generic]]:
    """Return every split and its labels as arrays, by name."""
    if not isinstance(found, Mapping):
        raise DataError(f"{name}: expected splits() to return a dict with train and test, got {type(found).__name__}.")
    arrays: dict[str, NDArray[np.generic]] = {}
    for key, value in found.items():
        arrays |= _read(str(key), value, f"{name}: {key}")
    return arrays


def _read(key: str, value: Any, label: str) -> dict[str, NDArray[np.generic]]:
    """Return one entry as an array, and the labels of a Dataset that has them."""
    from harness.datasets.own_images import LABELS

    if _is_array(value):
        return {key: _array(value)}
    if not (hasattr(value, "__getitem__") and hasattr(value, "__len__")) or isinstance(value, str | bytes | Mapping):
        raise DataError(f"{label}: expected a tensor, an array or a Dataset with a length, got {type(value).__name__}.")
    images, labels = _read_items(value, label)
    return {key: images} | ({} if labels is None else {LABELS.get(key, f"{key}_labels"): labels})


def _read_items(dataset: Any, label: str) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
    """Return the images of a Dataset, and their labels if its items have any."""
    import numpy as np

    from harness.datasets.own_images import check_memory

    if not len(dataset):
        raise DataError(f"{label}: expected at least one image, got an empty Dataset.")
    first, has_label = _item(dataset[0])
    check_memory(first.size * len(dataset), first.dtype.itemsize, label)
    images = np.empty((len(dataset), *first.shape), first.dtype)
    labels = []
    for index in range(len(dataset)):
        item = dataset[index]
        image, _ = _item(item)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise DataError(
                f"{label}: item {index}: expected an image of the form of the first, {first.shape} {first.dtype}, got "
                f"{image.shape} {image.dtype}."
            )
        images[index] = image
        if has_label:
            labels.append(_array(item[1]).item())
    return images, np.array(labels) if has_label else None


def _item(item: Any) -> tuple[NDArray[np.generic], bool]:
    """Return the image of an item, and whether it has a label."""
    has_label = isinstance(item, tuple | list) and len(item) == 2
    return _array(item[0] if has_label else item), has_label


def _is_array(value: Any) -> bool:
    import numpy as np
    import torch

    return isinstance(value, torch.Tensor | np.ndarray)


def _array(value: Any) -> NDArray[np.generic]:
    import numpy as np
    import torch

    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


def _in_one_line(error: Exception) -> str:
    """Return what a plug-in raised, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"
