"""The colours of estimators stay apart for every kind of colour vision, and from their background."""

import itertools

import numpy as np
import pytest

from reports.page.palette import DARK, LIGHT

VISION = {  # Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1, 1.089])


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_any_two_colours_stay_apart(colours, vision):
    seen = [lab(np.array(VISION[vision]) @ linear(colour)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 23


def test_the_check_finds_colours_that_are_too_close():
    """Orange and ochre, which a previous palette had, are two units apart for protan vision."""
    orange, ochre = (lab(np.array(VISION["protan"]) @ linear(colour)) for colour in ("#c2570c", "#8a6d00"))
    assert np.linalg.norm(orange - ochre) < 5


@pytest.mark.parametrize(("colours", "background"), [(LIGHT, "#ffffff"), (DARK, "#141518")], ids=["light", "dark"])
def test_every_colour_has_contrast_to_the_background(colours, background):
    light = [linear(colour) @ TO_XYZ[1] for colour in (background, *colours)]
    ratios = [(max(light[0], each) + 0.05) / (min(light[0], each) + 0.05) for each in light[1:]]
    assert min(ratios) >= 3
