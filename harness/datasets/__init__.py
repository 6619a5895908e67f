"""The image data sets: descriptions, fetching, checking, storage and splits."""
