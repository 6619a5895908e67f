"""The global state of a process that changes numbers or stops runs: read, compared and restored around foreign code.

A plug-in may set torch's default dtype or number of threads, as notebooks do. Every run, and every other estimator,
starts from the state that the harness set: what a plug-in changed is restored, and named in one line. Things that
foreign code adds for itself only, such as its own environment variables, stay.

Not covered: functions replaced in a module, `sys.path` and `sys.modules`, random generators (each run seeds torch's),
locale, recursion limit, compiler settings, interop threads, and function modes and saved-tensor hooks that were
entered and not left. docs/add-an-estimator.md says so.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.process_state.python_settings import PYTHON_SETTINGS
from harness.process_state.torch_settings import TORCH_SETTINGS, current_settings, short

__all__ = ["SETTINGS", "Snapshot", "change_note", "current_settings", "preserved", "restore", "snapshot"]

SETTINGS = (*TORCH_SETTINGS, *PYTHON_SETTINGS)
Snapshot = Mapping[str, Any]
"""The value of each of SETTINGS by its name."""


def snapshot() -> Snapshot:
    """Return the state of this process and thread."""
    return {setting.name: setting.read() for setting in SETTINGS}


def restore(before: Snapshot) -> list[str]:
    """Restore what differs from a snapshot; return descriptions of it: `the default dtype (float32 to float64)`."""
    changed = []
    for setting in SETTINGS:
        old = before[setting.name]
        new = setting.compared(old, setting.read())
        if old != new:
            setting.write(old)
            values = f" ({short(old)} to {short(new)})" if setting.shows else _changed_keys(old, new)
            changed.append(f"{setting.name}{values}")
    return changed


@contextmanager
def preserved() -> Iterator[list[str]]:
    """Restore the state after the block. The list then has descriptions of what the block changed."""
    before, changed = snapshot(), list[str]()
    try:
        yield changed
    finally:
        changed += restore(before)


def change_note(who: str, changed: list[str]) -> str:
    """Return a note that says who changed what. The same change gives the same note wherever it happens."""
    return (
        f"{who} changes {' and '.join(changed)} of the whole process. It is restored for the other estimators. "
        "Set dtype, device and the like on its own tensors."
    )


def _changed_keys(old: Any, new: Any) -> str:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return ""
    return f" ({', '.join(sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)))[:80]})"
