"""What the processes of a Ray cluster do: compute one run per task, and hold the flag that asks runs to stop.

Everything travels in messages, so no disk needs to be shared. Only the first run of a process loads torch.
"""

import hashlib
import os
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from harness import atomic_file
from harness.options import SavingEvery
from harness.provenance import package_version, source_sha256

if TYPE_CHECKING:
    from harness.plugins.registry import Registry

ASK_EVERY_S = 1.0
ASK_AGAIN_S = 5.0
"""How long a run waits before it asks again after the flag could not be reached."""


class Code(NamedTuple):
    """What the numbers of a run depend on besides its configuration and machine."""

    source_sha256: str
    torch: str | None


class Setup(NamedTuple):
    """What all runs of a sweep need.

    Plug-ins travel as (file name, content), and the modules of the user's own that they import as (path, content).
    """

    code: Code
    git: dict[str, Any]
    threads: int
    saving: SavingEvery
    plugins: tuple[tuple[str, bytes], ...]
    modules: tuple[tuple[str, bytes], ...] = ()


def code_here() -> Code:
    """Return the code of this process."""
    return Code(source_sha256(), package_version("torch"))


def difference(expected: Code) -> str | None:
    """Return in one line how the code of this process differs from the driver's, or None."""
    here = code_here()
    if here == expected:
        return None
    wanted, found = (f"source {code.source_sha256[:12]} and torch {code.torch}" for code in (expected, here))
    return f"{platform.node()}: expected {wanted} as the driver has, got {found}"


@final
class StopFlag:
    """An actor without a CPU. Every run asks it after each epoch."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


@final
class FlagWatcher:
    """Tells a run whether the flag is set. It asks now and then and never waits; without an answer the run goes on."""

    def __init__(self, flag: Any) -> None:
        self._flag = flag
        self._next_s = time.monotonic() + ASK_EVERY_S
        self._is_set = False
        self._request: Any = None

    def __call__(self) -> bool:
        import ray

        if self._is_set or time.monotonic() < self._next_s:
            return self._is_set
        if self._request is None:
            self._request = self._flag.is_set.remote()
        if not ray.wait([self._request], timeout=0)[0]:
            return False
        pause_s = ASK_EVERY_S
        try:
            self._is_set = bool(ray.get(self._request))
        except ray.exceptions.RayError:
            pause_s = ASK_AGAIN_S
        self._request, self._next_s = None, time.monotonic() + pause_s
        return self._is_set


def compute(setup: Setup, message: bytes, flag: Any) -> Iterator[bytes]:
    """Train one run and yield its records as messages. Raises RuntimeError for other code than the driver's."""
    if (why := difference(setup.code)) is not None:
        raise RuntimeError(f"{why}. Install the same on every node.")
    from harness.events import Started
    from harness.execution.executor import Job
    from harness.execution.worker import prepare_process, train_to_records
    from harness.training.run_controls import RunControls

    prepare_process(setup.threads)
    saving = setup.saving
    controls = RunControls(saving.seconds, saving.epochs, is_stopping=FlagWatcher(flag), keeps_model=saving.model)
    registry = load_plugins(setup.plugins, setup.modules)
    for record in train_to_records(Job.from_bytes(message), registry, controls):
        if isinstance(record.event, Started):  # the code is the driver's, but not in a checkout here
            record = replace(record, event=Started({**record.event.provenance, **setup.git}))
        yield record.to_bytes()


@lru_cache(maxsize=1)
def load_plugins(plugins: tuple[tuple[str, bytes], ...], modules: tuple[tuple[str, bytes], ...] = ()) -> "Registry":
    """Write the plug-ins and their modules to files of this machine and load them."""
    from harness.plugins.registry import load_registry

    if modules:
        sys.path.insert(0, str(_write_files(modules)))
    return load_registry([plugin_file(name, content) for name, content in plugins])


def plugin_file(name: str, content: bytes) -> Path:
    """Write a plug-in to this user's temporary folder. Processes with the same plug-in share the file.

    Raises RuntimeError if the folder belongs to another user.
    """
    return _write_files(((name, content),)) / name


def _write_files(files: Sequence[tuple[str, bytes]]) -> Path:
    """Write files below a folder that their content names; return it."""
    own = Path(tempfile.gettempdir()) / f"harness-plugins-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(own.lstat().st_mode) or own.lstat().st_uid != os.getuid():
        raise RuntimeError(f"{own}: expected a folder of this user's own, got another's. Remove it.")
    lines = [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in files]
    folder = own / hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    for name, content in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_file.write(path, content)
    return folder
