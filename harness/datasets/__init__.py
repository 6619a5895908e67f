"""The image data sets: descriptions, fetching, checking, storage and splits; images of one's own."""

from harness.datasets.image_source import ImageSource

__all__ = ["ImageSource"]
