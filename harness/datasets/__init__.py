"""The image data sets: which there are, how they are fetched, checked, stored and cut."""
