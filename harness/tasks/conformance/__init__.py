"""Checks that every task must pass, built in or a user's own: `harness check FILE` runs them."""

from harness.tasks.conformance.checks import CHECKS, OF_THE_TASK, QUICK, Check
from harness.tasks.conformance.subject import ConformanceError, Subject, subjects

__all__ = ["CHECKS", "OF_THE_TASK", "QUICK", "Check", "ConformanceError", "Subject", "subjects"]
