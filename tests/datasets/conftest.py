"""Fetching without a network, and a module in torchvision's place."""

import sys
import types

import pytest
from small_datasets import FROM_MIRRORS, install_catalogue, no_mirror, no_npm, small

from harness.datasets import fetch as fetch_module
from harness.datasets import load as data_module


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test reaches the network unless it says so, and none finds what another one loaded."""
    monkeypatch.setattr(fetch_module, "_from_mirrors", no_mirror)
    monkeypatch.setattr(fetch_module, "_from_npm", no_npm)
    load_files = data_module._raw  # a test may replace it
    load_files.cache_clear()
    yield
    load_files.cache_clear()


@pytest.fixture
def mnist(monkeypatch) -> dict[str, bytes]:
    """The files of a small data set called mnist."""
    info, plain = small("mnist", "plain")
    install_catalogue(monkeypatch, info)
    return plain


@pytest.fixture
def torchvision(monkeypatch) -> types.SimpleNamespace:
    """A module in torchvision's place, and the real way through it."""
    module = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.setattr(fetch_module, "_from_mirrors", FROM_MIRRORS)
    return module
