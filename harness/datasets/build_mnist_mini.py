"""Make mnist_mini.npz from the four raw MNIST files: `python harness/datasets/build_mnist_mini.py RAW_DIR [OUT]`.

Draws 400 training and 100 test images of each digit, without replacement, from MNIST's own training and test sets and
keeps them in their original order. The draw uses numpy's RandomState, whose streams are frozen, so every machine draws
the same images. Archive members carry a fixed time stamp: with the same zlib the file comes out the same to the last
byte, with another zlib only its compression differs.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets.descriptions import DATASETS, Split
from harness.datasets.idx import read_verified

SEED = 20_260_101
SPLITS: tuple[Split, ...] = ("train", "test")
PER_DIGIT = {"train": 400, "test": 100}


def choose(labels_N: NDArray[np.integer], per_digit: int, random: np.random.RandomState) -> NDArray[np.int32]:
    """Return the indices of `per_digit` images of each digit, ascending."""
    chosen = [random.permutation(np.flatnonzero(labels_N == digit))[:per_digit] for digit in range(10)]
    return np.sort(np.concatenate(chosen)).astype(np.int32)


def subset(raw_dir: Path) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the archive, by name."""
    random = np.random.RandomState(SEED)
    arrays: dict[str, NDArray[np.generic]] = {}
    for split in SPLITS:
        image_file, label_file = DATASETS["mnist"].split_files(split)
        labels_N = read_verified(raw_dir / label_file.name, label_file)
        index_N = choose(labels_N, PER_DIGIT[split], random)
        arrays[f"{split}_images"] = read_verified(raw_dir / image_file.name, image_file)[index_N]
        arrays[f"{split}_labels"] = labels_N[index_N]
        arrays[f"{split}_indices"] = index_N
    return arrays


def pack(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    """Return an .npz archive with a fixed time stamp."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.external_attr = 0o644 << 16
            members.writestr(member, content.getvalue(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    return archive.getvalue()


def main(raw_dir: Path, out: Path) -> None:
    """Write the archive and print its size and SHA-256."""
    content = pack(subset(raw_dir))
    out.write_bytes(content)
    print(f"{out}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python harness/datasets/build_mnist_mini.py RAW_DIR [OUT]")
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).with_name("mnist_mini.npz"))
