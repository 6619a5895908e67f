"""The built-in tasks, each of which has a file of its own.

Importing this loads torch, so the command line imports it only where classes are needed.
"""

from collections.abc import Mapping
from types import MappingProxyType

from harness.tasks.task import Task

_TASKS: tuple[type[Task], ...] = ()

TASKS: Mapping[str, type[Task]] = MappingProxyType({cls.name: cls for cls in _TASKS})
"""Every built-in task by its name."""
