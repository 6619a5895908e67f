"""What the tests of a device share. `make gpu-check` runs them without MLflow, so they import nothing that needs it."""

import os

import pytest
import torch

from harness.devices import missing_reason


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test: cuda, or what the variable HARNESS_TEST_DEVICE names. Without it the test is skipped."""
    name = os.environ.get("HARNESS_TEST_DEVICE", "cuda")
    if reason := missing_reason(name):
        pytest.skip(reason)
    return torch.device(name)
