"""Images with labels as the data of a task."""

import torch
from torch import Tensor

from harness.config import DataConfig
from harness.datasets.load import binarize_batch, load_cached
from harness.tasks.splits import Batch, Splits


def labelled_images(config: DataConfig | None, needed_by: str = "") -> Splits:
    """Return the images (N, D) and labels (N,) of a data set, split and binarised as the settings say.

    Images without labels come alone. Raises DataError for those if `needed_by` names a task that needs labels.
    """
    found = load_cached(config or DataConfig())
    if needed_by:
        found.with_labels(needed_by)

    def parts(images_ND: Tensor, label_N: Tensor) -> Batch:
        return (images_ND, label_N) if len(found.train_N) else (images_ND,)

    def resample(batch: Batch, generator: torch.Generator | None) -> Batch:
        images_BD, *others = batch
        return binarize_batch(images_BD, found.binarization, generator), *others

    return Splits(
        train=parts(found.train_ND, found.train_N),
        validation=parts(found.validation_ND, found.validation_N) if len(found.validation_ND) else None,
        test=parts(found.test_ND, found.test_N),
        resample=resample if found.binarization == "resampled" else None,
        image_shape=found.image_shape,
    )
