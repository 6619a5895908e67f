"""The identity of a plug-in's class: a hash that changes when its code changes, which makes new runs."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.plugins.imports import OwnModule, read_imports

BUILT_IN = frozenset({"estimators", "harness"})
"""The packages whose classes are no plug-ins."""
IDENTITY = "__harness_sha256__"
"""The attribute of a plug-in's module with the identity of the text that was executed."""


def source_of(cls: type) -> str | None:
    """Return the identity of a plug-in's class, of the code as it was imported; None for a built-in.

    It is the SHA-256 of the file that defines the class. If that imports modules of the user's own, it is the SHA-256
    of that hash and of those of the modules.
    """
    if cls.__module__.partition(".")[0] in BUILT_IN:
        return None
    module = sys.modules.get(cls.__module__)
    executed = getattr(module, IDENTITY, None)
    if executed is not None:
        return str(executed)
    found = _read_identity(cls)
    if found is None:  # as in a notebook
        return sha256(f"{cls.__module__}.{cls.__qualname__}".encode())
    if module is not None:
        setattr(module, IDENTITY, found)
    return found


def identity_of(text: bytes, own: Iterable[OwnModule]) -> str:
    """Return the identity of a file with this text and its own modules. Empty modules do not count."""
    digest = sha256(text)
    parts = sorted(f"{module.name} {sha256(module.content)}" for module in own if module.content.strip())
    return sha256("\n".join([digest, *parts]).encode()) if parts else digest


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _read_identity(cls: type) -> str | None:
    """Return the identity of a class by its file, None if there is none: its own package counts as the user's own."""
    try:
        path = Path(inspect.getfile(cls))
        text = path.read_bytes()
    except (OSError, TypeError):
        return None
    package = cls.__module__ if path.stem == "__init__" else cls.__module__.rpartition(".")[0]
    own = read_imports(text, None, package, own_package=cls.__module__.partition(".")[0]).own
    return identity_of(text, (one for one in own.values() if one.name != cls.__module__))
