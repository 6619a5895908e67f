"""The identity of a plug-in's class: a hash that changes when its code changes, which makes new runs."""

from __future__ import annotations

import hashlib
import inspect
import sys
from pathlib import Path

BUILT_IN = frozenset({"estimators", "harness"})
"""The packages whose classes are no plug-ins."""
IDENTITY = "__harness_sha256__"
"""The attribute of a plug-in's module with the hash of the text that was executed."""


def source_of(cls: type) -> str | None:
    """Return the SHA-256 of the file that defines a plug-in's class, as it was imported; None for a built-in."""
    if cls.__module__.partition(".")[0] in BUILT_IN:
        return None
    executed = getattr(sys.modules.get(cls.__module__), IDENTITY, None)
    if executed is not None:
        return str(executed)
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return hashlib.sha256(f"{cls.__module__}.{cls.__qualname__}".encode()).hexdigest()
