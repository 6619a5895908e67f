"""Images of one's own in folders `train`, `test` and, if wanted, `validation`: pictures, or a folder for each class.

Pictures are read once, as bytes. Greyscale and RGB are read as they are; other modes are refused.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.datasets.descriptions import DataError
from harness.datasets.own_images import LABELS, SPLITS, OwnImages, check_memory, checked

Size = tuple[int, int] | None
"""The height and width to resize to, or None for images that are alike."""
_MODES = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB"}


class Listed(NamedTuple):
    """The pictures of a split in order, those of the classes in turn, and the name of the class of each.

    There are no names in a folder without classes.
    """

    files: Sequence[Path]
    classes: Sequence[str]


def read_folder(path: Path, size: Size, label: str) -> OwnImages:
    """Return the images of a folder. Raises DataError, which begins with `label`, if it has anything else."""
    splits = list_folder(path, label)
    with_classes = {split: bool(listed.classes) for split, listed in splits.items()}
    if len(set(with_classes.values())) > 1:
        flat = next(split for split, has in with_classes.items() if not has)
        raise DataError(f"{label}: {flat}: expected folders of classes in all splits or in none, got none here.")
    names = sorted({name for listed in splits.values() for name in listed.classes})
    first = _read(splits["train"].files[0], size, path, label)
    check_memory(sum(len(listed.files) for listed in splits.values()) * first.size, 1, label)
    arrays: dict[str, NDArray[np.generic]] = {}
    for split, listed in splits.items():
        arrays[split] = _stack(listed.files, first, size, path, label)
        if listed.classes:
            arrays[LABELS[split]] = np.array([names.index(name) for name in listed.classes])
    return checked(arrays, label)


def list_folder(path: Path, label: str) -> Mapping[str, Listed]:
    """Return the pictures of each split. Raises DataError for a folder without them."""
    if not path.is_dir():
        found = "a file" if path.is_file() else f"none at {path}"
        hint = " Arrays in a file: name: file." if path.is_file() else ""
        raise DataError(f"{label}: expected a folder with folders train and test, found {found}.{hint}")
    found_names = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    for name in found_names:
        if name not in SPLITS:
            raise DataError(f"{label}: expected folders train, test and, if wanted, validation, got '{name}'.")
    for name in ("train", "test"):
        if name not in found_names:
            found = ", ".join(found_names) or "no folder"
            raise DataError(f"{label}: {name}: expected folders train and test, found {found}.")
    return {split: _listed(path / split, f"{label}: {split}") for split in SPLITS if split in found_names}


def _listed(folder: Path, label: str) -> Listed:
    """Return the pictures in a folder, or in a folder for each class, as torchvision finds them."""
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    pictures = [child for child in children if child.is_file() and child.suffix.lower() in IMG_EXTENSIONS]
    folders = [child for child in children if child.is_dir()]
    if pictures and folders:
        raise DataError(f"{label}: expected pictures or folders of classes, got both.")
    if not folders:
        if not pictures:
            raise DataError(f"{label}: expected at least one picture, found none.")
        return Listed(pictures, ())
    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:  # a class without a picture
        raise DataError(f"{label}: expected a picture of each class, got: {' '.join(str(error).split())}") from error
    return _alternating([(Path(file), found.classes[index]) for file, index in found.samples])


def _alternating(samples: Sequence[tuple[Path, str]]) -> Listed:
    """Return pictures of all classes in turn: the first ones of each, the second ones, and so on."""
    count: dict[str, int] = defaultdict(int)
    ranked = []
    for file, name in samples:
        ranked.append((count[name], name, file))
        count[name] += 1
    ranked.sort()
    return Listed([file for _, _, file in ranked], [name for _, name, _ in ranked])


def _stack(files: Sequence[Path], first: NDArray[np.uint8], size: Size, folder: Path, label: str) -> NDArray[np.uint8]:
    """Return pictures as one array, (N, H, W) or (N, 3, H, W).

    Raises DataError if one is not of the size and mode of the first.
    """
    stacked = np.empty((len(files), *first.shape), np.uint8)
    for index, file in enumerate(files):
        image = _read(file, size, folder, label)
        if image.shape != first.shape:
            raise DataError(
                f"{label}: {file.relative_to(folder)}: expected {_form(first)} as the first picture has, got "
                f"{_form(image)}.{'' if image.ndim != first.ndim else ' Set data.size to resize all of them.'}"
            )
        stacked[index] = image
    return stacked.transpose(0, 3, 1, 2) if stacked.ndim == 4 else stacked


def _form(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[0]} × {image.shape[1]} {'RGB' if image.ndim == 3 else 'greyscale'}"


def _read(file: Path, size: Size, folder: Path, label: str) -> NDArray[np.uint8]:
    """Return one picture, (H, W) or (H, W, 3)."""
    where = f"{label}: {file.relative_to(folder)}"
    try:
        with Image.open(file) as image:
            if image.mode not in _MODES or "transparency" in image.info:
                kind = f"mode {image.mode}" if image.mode not in _MODES else "transparency"
                raise DataError(f"{where}: expected a greyscale or RGB picture of 8 bits, got {kind}.")
            plain = image.convert(_MODES[image.mode])
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a damaged one
        raise DataError(f"{where}: expected a picture, got: {' '.join(str(error).split())}") from error
    if size is not None:
        height, width = size
        plain = plain.resize((width, height), Image.Resampling.BILINEAR)  # with antialiasing, as Pillow always does
    return np.asarray(plain)
