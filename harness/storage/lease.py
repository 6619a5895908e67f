"""The lease of a sweep's folder, so that a sweep has one driver at a time.

On one host a lock is enough: `flock` on driver.lock ends with its process. Some file systems that hosts share do not
pass locks on to other hosts. So the driver also creates driver.json, which says who it is, and a thread touches it
every HEARTBEAT_S. A foreign lease is honoured until its heartbeat stops for EXPIRES_S seconds. Its age is the
difference between the times of two files in the folder, so the clocks of the hosts do not matter.

driver.json can be created only once, so one of several hosts that start together wins. To take over an expired lease,
a host first renames it. SETTLE_S covers the race that is left: a slow host renames the new lease of a faster one, sees
that it is not the expired one and puts it back, but a third host may have found no lease meanwhile.

A lease cannot stop a process that is suspended between `check` and its next action. The next `check` stops it.
"""

import errno
import fcntl
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Self, final

from harness import atomic_file
from harness.errors import UserError
from harness.storage import checksummed_file

HEARTBEAT_S = 10.0
EXPIRES_S = 60.0
SETTLE_S = 1.0
"""How long a driver waits after it took over a lease, before it checks that no other driver did the same."""

_TAKEN = frozenset({errno.EAGAIN, errno.EACCES})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


class LeaseError(UserError):
    """The sweep has another driver, or its folder cannot be written to."""


@dataclass(frozen=True)
class Holder:
    """The driver of a sweep. `boot` tells hosts of the same name apart. `age_s` is the age of the last heartbeat."""

    id: str
    host: str
    boot: str
    pid: int
    started: str
    age_s: float = 0.0

    @property
    def who(self) -> str:
        return f"{self.host}, process {self.pid}, since {self.started}" if self.id else "unknown: its lease is damaged"

    @property
    def expired(self) -> bool:
        """Whether other hosts may take the lease over. A heartbeat far in the future counts too: a clock was set."""
        return abs(self.age_s) >= EXPIRES_S

    def __str__(self) -> str:
        from harness.units import duration

        return f"{self.who}, last heartbeat {duration(max(self.age_s, 0.0))} ago"


_UNKNOWN = Holder(id="", host="", boot="", pid=0, started="")


@final
class Lease:
    """A context that holds a sweep's folder, which must exist. Entering raises LeaseError if another driver holds it.

    `note` tells the user from whom the sweep was taken over, if from anyone. `lost` says why this driver no longer
    holds the lease.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.note = ""
        self.lost: str | None = None
        self._path = folder / "driver.json"
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        self._mine = Holder(uuid.uuid4().hex, platform.node(), boot_id(), os.getpid(), started)
        self._renewed_s = _now_s()
        self._turn, self._ends = Lock(), Event()
        self._thread = Thread(target=self._keep_alive, name="lease", daemon=True)

    def __enter__(self) -> Self:
        try:
            with ExitStack() as undo:
                is_locked, file_time = undo.enter_context(_locked(self.folder, self._mine))
                undo.callback(self._release)
                self._take(is_locked, file_time)
                self._remove_partials()
                self._undo = undo.pop_all()
        except OSError as error:
            raise LeaseError(
                f"{self.folder}: expected a folder to write to, got: {error.strerror}. Choose another with --out."
            ) from error
        self._renewed_s = _now_s()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._undo.close()

    def check(self) -> None:
        """Raise LeaseError if the lease is lost. This is cheap unless the thread was kept from its work."""
        if _now_s() - self._renewed_s > EXPIRES_S / 2:
            self._beat()
        if self.lost is not None:
            raise LeaseError(f"{self.folder}: {self.lost}. This driver stops; what it has done is kept.")

    def _take(self, is_locked: bool, file_time: float) -> None:
        found = _read(self._path, file_time)
        if found is not None:
            if not found.expired and not (is_locked and found.boot == self._mine.boot):
                raise _refusal(self.folder, str(found))
            _remove(self._path, found, file_time)
        try:
            with self._path.open("xb") as file:
                file.write(checksummed_file.add_checksum(_to_json(self._mine)))
        except FileExistsError:
            raise _refusal(self.folder, _rival(_read(self._path))) from None
        if found is not None and found.boot != self._mine.boot:
            self.note = f"the sweep was taken over from another driver ({found})"
            time.sleep(SETTLE_S)
            winner = _read(self._path)
            if winner is None or winner.id != self._mine.id:
                raise _refusal(self.folder, _rival(winner))

    def _remove_partials(self) -> None:
        for folder in (self.folder, *(path for path in self.folder.iterdir() if path.is_dir())):
            atomic_file.remove_partials(folder)

    def _release(self) -> None:
        """Remove the lease if this driver still holds it. If that fails, the lease expires."""
        try:
            found = _read(self._path)
            if found is not None and found.id == self._mine.id:
                self._path.unlink(missing_ok=True)
        except OSError:
            return

    def _keep_alive(self) -> None:
        while self.lost is None and not self._ends.wait(HEARTBEAT_S):
            self._beat()

    def _beat(self) -> None:
        """Renew the lease or find it lost. If the heartbeat was late, look twice: it may just be taken over."""
        with self._turn:
            is_late = _now_s() - self._renewed_s >= EXPIRES_S
            self._renew()
            if is_late and self.lost is None:
                time.sleep(SETTLE_S)
                self._renew()

    def _renew(self) -> None:
        why = "driver.json is damaged"
        try:
            found = _read(self._path)
            if found is None:
                self.lost = "the lease of this driver, driver.json, was removed"
            elif found.id == self._mine.id:
                os.utime(self._path)
                self._renewed_s = _now_s()
            elif found.id:
                self.lost = f"another driver took over this sweep ({found.who}) because this one was silent"
        except OSError as error:
            why = error.strerror or str(error)
        if self.lost is None and _now_s() - self._renewed_s >= EXPIRES_S:
            self.lost = f"this driver could not renew its lease for {EXPIRES_S:.0f} s ({why})"


def holder(folder: Path) -> Holder | None:
    """Return who drives the sweep, or None. Nothing is written, so ages are by the clock of this host.

    An expired lease of another host is returned too. A damaged lease gives a holder without an id.
    """
    try:
        found = _read(folder / "driver.json", time.time())
        is_here = found is not None and found.boot == boot_id()
        return None if is_here and not _is_locked(folder) else found
    except OSError:
        return None


@contextmanager
def _locked(folder: Path, mine: Holder) -> Iterator[tuple[bool, float]]:
    """Lock driver.lock. Yield whether the file system has locks, and its present time: that of the written file.

    Raises LeaseError at once if another driver of this host has the lock.
    """
    with (folder / "driver.lock").open("a+b") as file:
        has_lock = _lock(file.fileno())
        if has_lock is False:
            file.seek(0)
            raise _refusal(folder, _lock_owner(folder, file.read(200)))
        file.truncate(0)
        file.write(mine.who.encode())
        file.flush()
        yield has_lock is True, os.fstat(file.fileno()).st_mtime


def _lock(descriptor: int) -> bool | None:
    """Lock a file. Return True, or False if another process has the lock, or None if there are no locks."""
    for wait_s in (0.05, 0.05, 0.1, 0.0):  # `_is_locked` of another process holds it for an instant
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return None
            if error.errno not in _TAKEN:
                raise
        time.sleep(wait_s)
    return False


def _is_locked(folder: Path) -> bool:
    """Return whether a process has the lock. If that cannot be known, return True."""
    try:
        with (folder / "driver.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _lock_owner(folder: Path, text: bytes) -> str:
    """Return who has the lock, by the text of its file, and its heartbeat if the lease is of the same process."""
    who = " ".join(text.decode(errors="replace").split())
    found = _read(folder / "driver.json", time.time())
    return str(found) if found is not None and found.who == who else who or "unknown"


def _remove(path: Path, found: Holder, file_time: float) -> None:
    """Remove the lease that was found, but not one that another driver has put in its place or renewed."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        os.rename(path, aside)
    except FileNotFoundError:  # another driver was faster
        return
    if (other := _read(aside, file_time)) != found:
        os.rename(aside, path)
        raise _refusal(path.parent, _rival(other))
    aside.unlink()


def _rival(other: Holder | None) -> str:
    return str(other) if other is not None and other.id else "another one that started at the same time"


def _refusal(folder: Path, who: str) -> LeaseError:
    return LeaseError(
        f"{folder}: expected no other driver on this sweep, got one ({who}). Wait for it, or choose another --out."
    )


def _read(path: Path, now: float | None = None) -> Holder | None:
    """Return the holder that a file names and its age at the time `now`, or _UNKNOWN if the file is damaged.

    The file is opened before its time is read, because that is when a network file system asks the server.
    """
    try:
        with path.open("rb") as file:
            content, changed = file.read(10_000), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    return replace(_from_json(content, path), age_s=0.0 if now is None else now - changed)


def _to_json(one: Holder) -> bytes:
    return json.dumps({name: value for name, value in asdict(one).items() if name != "age_s"}).encode()


def _from_json(content: bytes, path: Path) -> Holder:
    try:
        found = Holder(**json.loads(checksummed_file.verify(content, str(path))))
    except (checksummed_file.DamagedError, ValueError, TypeError):
        return _UNKNOWN
    texts = (found.id, found.host, found.boot, found.started)
    return found if found.id and isinstance(found.pid, int) and all(isinstance(t, str) for t in texts) else _UNKNOWN


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the id of this start of the kernel, which containers share, or else the name of the host."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def _now_s() -> float:
    """Return a steady time that includes the sleep of the machine, if the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
