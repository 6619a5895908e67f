"""Images with labels as the data of a task."""

import torch

from harness.config import DataConfig
from harness.datasets.load import binarize_batch, load_cached
from harness.tasks.splits import Batch, Splits


def labelled_images(config: DataConfig | None) -> Splits:
    """Return the images (N, D) and labels (N,) of a data set, split and binarised as the settings say."""
    found = load_cached(config or DataConfig())

    def resample(batch: Batch, generator: torch.Generator | None) -> Batch:
        images_BD, *others = batch
        return binarize_batch(images_BD, found.binarization, generator), *others

    return Splits(
        train=(found.train_ND, found.train_N),
        validation=(found.validation_ND, found.validation_N) if len(found.validation_N) else None,
        test=(found.test_ND, found.test_N),
        resample=resample if found.binarization == "resampled" else None,
        image_shape=found.image_shape,
    )
