"""Small images of one's own: arrays, files of them, and folders of pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GREY, COLOUR = (4, 6), (3, 4, 6)


def images(n: int, shape: tuple[int, ...] = GREY, seed: int = 0) -> np.ndarray:
    """Random bytes, with 0 and 255 among them."""
    found = np.random.RandomState(seed).randint(0, 256, (n, *shape)).astype(np.uint8)
    found[..., 0, 0], found[..., 0, 1] = 0, 255
    return found


def arrays(n_train: int = 20, n_test: int = 8, shape: tuple[int, ...] = GREY, **others: Any) -> dict[str, Any]:
    """The arrays of a file; those in `others` are added, replaced, or left out where they are None."""
    found = {"train": images(n_train, shape), "test": images(n_test, shape, 1)} | others
    return {name: array for name, array in found.items() if array is not None}


def write_file(path: Path, **changes: Any) -> Path:
    """A file of numpy.savez with such arrays."""
    np.savez(path, **arrays(**changes))
    return path


def write_pictures(
    folder: Path, n: int, *, shape: tuple[int, ...] = GREY, seed: int = 0, mode: str | None = None
) -> None:
    """Pictures 00.png, 01.png, … in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images(n, shape, seed)):
        picture = Image.fromarray(image.transpose(1, 2, 0) if image.ndim == 3 else image)
        (picture.convert(mode) if mode else picture).save(folder / f"{index:02}.png")
