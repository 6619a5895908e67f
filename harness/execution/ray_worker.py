"""What runs in the processes of a Ray cluster: one run a task, and the flag that asks runs to stop.

Everything comes and goes as messages; no disk need be shared. Torch is loaded by the first run of a process only.
"""

import hashlib
import os
import platform
import stat
import tempfile
import time
from collections.abc import Iterator
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
"""So long a run goes on without asking once the flag could not be reached."""


class Code(NamedTuple):
    """What the bits of a run depend on besides its configuration and machine."""

    source_sha256: str
    torch: str | None


class Setup(NamedTuple):
    """What every run of a sweep is promised. Plugins travel as (file name, content)."""

    code: Code
    git: dict[str, Any]
    threads: int
    saving: SavingEvery
    plugins: tuple[tuple[str, bytes], ...]


def code_here() -> Code:
    """Return the code that this process would compute runs with."""
    return Code(source_sha256(), package_version("torch"))


def difference(expected: Code) -> str | None:
    """Return in one line how the code here differs from the driver's, or None."""
    here = code_here()
    if here == expected:
        return None
    wanted, found = (f"source {code.source_sha256[:12]} and torch {code.torch}" for code in (expected, here))
    return f"{platform.node()}: expected {wanted} as the driver has, got {found}"


@final
class StopFlag:
    """An actor of no CPU that every run asks after its epochs."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


@final
class Asking:
    """Whether the flag is set: asked once in a while, never waited for. Where nobody answers, the run goes on."""

    def __init__(self, flag: Any) -> None:
        self._flag = flag
        self._next_s = time.monotonic() + ASK_EVERY_S
        self._known = False
        self._asked: Any = None  # the answer that is to come

    def __call__(self) -> bool:
        import ray

        if self._known or time.monotonic() < self._next_s:
            return self._known
        if self._asked is None:
            self._asked = self._flag.is_set.remote()
        if not ray.wait([self._asked], timeout=0)[0]:
            return False
        pause_s = ASK_EVERY_S
        try:
            self._known = bool(ray.get(self._asked))
        except ray.exceptions.RayError:
            pause_s = ASK_AGAIN_S
        self._asked, self._next_s = None, time.monotonic() + pause_s
        return self._known


def compute(setup: Setup, message: bytes, flag: Any) -> Iterator[bytes]:
    """Train one run and yield its records as messages. Raises RuntimeError or PluginError where no run can be."""
    if (why := difference(setup.code)) is not None:
        raise RuntimeError(f"{why}. Install the same on every node.")
    from harness.events import Started
    from harness.execution.executor import Job
    from harness.execution.worker import prepare_process, records_of
    from harness.training.run_controls import RunControls

    prepare_process(setup.threads)
    saving = setup.saving
    controls = RunControls(saving.seconds, saving.epochs, is_stopping=Asking(flag), keeps_model=saving.model)
    for record in records_of(Job.from_bytes(message), registry_of(setup.plugins), controls):
        if isinstance(record.event, Started):  # the code is the driver's, though it lies in no checkout here
            record = replace(record, event=Started({**record.event.provenance, **setup.git}))
        yield record.to_bytes()


@lru_cache(maxsize=1)
def registry_of(plugins: tuple[tuple[str, bytes], ...]) -> "Registry":
    """Write the plugins to files of this machine and load them."""
    from harness.plugins.registry import load_registry

    return load_registry([written(name, content) for name, content in plugins])


def written(name: str, content: bytes) -> Path:
    """Return the file of a plugin in this user's temporary folder, one for all processes that have the same."""
    own = Path(tempfile.gettempdir()) / f"harness-plugins-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(own.lstat().st_mode) or own.lstat().st_uid != os.getuid():
        raise RuntimeError(f"{own}: expected a folder of this user's own, got another's. Remove it.")
    folder = own / hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    path = folder / name
    atomic_file.write(path, content)
    return path
