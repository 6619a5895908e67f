"""One driver a sweep: a lock among the processes of a host, and a lease where hosts share a disk.

The lock (`flock` on driver.lock) goes with its process, but not every shared file system carries it to other hosts. So
the driver also writes driver.json: who it is, touched by a thread every HEARTBEAT_S. Who finds the lease of another
host believes it until it was silent for EXPIRES_S, and then takes it over. Ages are differences of times of files in
the same folder, so that no host's clock matters. Starting drivers decide one at a time: driver.claim can only be
created once.

A lease cannot stop a process that is suspended between `check` and what it does next; but from its next `check` on it
does nothing more.
"""

import errno
import fcntl
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
"""So long does a driver wait, after it took something expired, for others who may have found the same."""

_TAKEN = frozenset({errno.EAGAIN, errno.EACCES})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


class LeaseError(UserError):
    """The sweep has another driver, or its folder cannot be written to."""


@dataclass(frozen=True)
class Holder:
    """Who drives a sweep. `boot` tells hosts apart, also those of one name; `age_s` is that of the last heartbeat."""

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
        """Whether other hosts may take the lease over. A heartbeat far in the future is as old: clocks were set."""
        return abs(self.age_s) >= EXPIRES_S

    def __str__(self) -> str:
        from harness.units import duration

        return f"{self.who}, last heartbeat {duration(max(self.age_s, 0.0))} ago"


_UNKNOWN = Holder(id="", host="", boot="", pid=0, started="")


@final
class Lease:
    """Holds a sweep's folder while its context lasts. LeaseError on entering where another driver has it.

    `note` is for the user: from whom the sweep was taken over, if from anyone. `lost` says why the lease is no longer
    this driver's. The folder must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.note = ""
        self.lost: str | None = None
        self._path = folder / "driver.json"
        self._mine = Holder(uuid.uuid4().hex, platform.node(), boot(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
        self._renewed = _now()
        self._turn, self._ends = Lock(), Event()
        self._thread = Thread(target=self._work, name="lease", daemon=True)

    def __enter__(self) -> Self:
        try:
            with ExitStack() as undo:
                locked = undo.enter_context(_locked(self.folder, self._mine))
                undo.callback(self._release)
                with _claimed(self.folder, self._mine, locked) as after_another:
                    self._take(locked, after_another)
                atomic_file.remove_partials(self.folder)
                self._undo = undo.pop_all()
        except OSError as error:
            raise LeaseError(
                f"{self.folder}: expected a folder to write to, got: {error.strerror}. Choose another with --out."
            ) from error
        self._renewed = _now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._undo.close()

    def check(self) -> None:
        """Raise LeaseError if the lease is lost. Cheap, unless the thread was kept from its work."""
        if _now() - self._renewed > EXPIRES_S / 2:
            self._beat()
        if self.lost is not None:
            raise LeaseError(
                f"{self.folder}: expected to stay the only driver of this sweep, got: {self.lost}. "
                "This one stops; what it has done is kept."
            )

    def _take(self, locked: bool, after_another: bool) -> None:
        found = _read(self._path, _clock(self.folder))
        if found is not None and not _gone(found, locked):
            raise _refusal(self.folder, str(found))
        checksummed_file.write(self._path, _to_json(self._mine))
        if found is not None and found.boot != self._mine.boot:
            self.note = f"the sweep was taken over from another driver ({found})"
            after_another = True
        if after_another:
            time.sleep(SETTLE_S)
        winner = _read(self._path)
        if winner is None or winner.id != self._mine.id:
            raise _refusal(self.folder, "another that started at the same time" if winner is None else str(winner))

    def _release(self) -> None:
        """Remove the lease if it is still this driver's. Where that fails, it expires."""
        try:
            found = _read(self._path)
            if found is not None and found.id == self._mine.id:
                self._path.unlink(missing_ok=True)
        except OSError:
            return

    def _work(self) -> None:
        while self.lost is None and not self._ends.wait(HEARTBEAT_S):
            self._beat()

    def _beat(self) -> None:
        """Renew the lease or find it lost; one that was not renewed in time is looked at twice."""
        with self._turn:
            late = _now() - self._renewed >= EXPIRES_S
            self._renew()
            if late and self.lost is None:
                time.sleep(SETTLE_S)
                self._renew()

    def _renew(self) -> None:
        why = "driver.json is damaged"
        try:
            found = _read(self._path)
            if found is None:
                self.lost = "its driver.json was removed"
            elif found.id == self._mine.id:
                os.utime(self._path)
                self._renewed = _now()
            elif found.id:
                self.lost = f"another one ({found.who}), after a silence of this one"
        except OSError as error:
            why = error.strerror or str(error)
        if self.lost is None and _now() - self._renewed >= EXPIRES_S:
            self.lost = f"no heartbeat for {EXPIRES_S:.0f} s ({why})"


def holder(folder: Path) -> Holder | None:
    """Return who drives the sweep, or None. One of another host is returned with its age also if it has expired.

    A damaged lease is a holder without an id. Nothing needs to be writable.
    """
    try:
        try:
            now = _clock(folder)
        except OSError:  # a folder of somebody else: then clocks are believed to agree
            now = time.time()
        found = _read(folder / "driver.json", now)
        here = found is not None and found.boot == boot()
        return None if here and not _is_locked(folder) else found
    except OSError:
        return None


@contextmanager
def _locked(folder: Path, mine: Holder) -> Iterator[bool]:
    """Refuse a second driver of this host at once. Yield False where the file system knows no locks."""
    with (folder / "driver.lock").open("a+b") as file:
        locked = _lock(file.fileno())
        if locked is False:
            file.seek(0)
            raise _refusal(folder, _name(folder, file.read(200)))
        file.truncate(0)
        file.write(mine.who.encode())
        file.flush()
        yield locked is True


def _lock(descriptor: int) -> bool | None:
    """Lock the file: True, or False where another process has it, or None where there are no locks."""
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
    """Return whether a process has the lock, True also where that cannot be known."""
    try:
        with (folder / "driver.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _name(folder: Path, text: bytes) -> str:
    """Return who has the lock, as its file says, with the age of the heartbeat if the lease is of the same process."""
    who = " ".join(text.decode(errors="replace").split())
    found = _read(folder / "driver.json", _clock(folder))
    return str(found) if found is not None and found.who == who else who or "unknown"


@contextmanager
def _claimed(folder: Path, mine: Holder, locked: bool) -> Iterator[bool]:
    """Let one driver at a time decide who has the lease. Yield whether the claim of one that is gone was removed."""
    path = folder / "driver.claim"
    now = _clock(folder)
    found = _read(path, now)
    if found is not None and _gone(found, locked):
        _remove_claim(path, found, now)
    try:
        file = path.open("xb")
    except FileExistsError:
        other = _read(path, _clock(folder))
        raise _refusal(folder, f"{other or 'unknown'}, which is starting") from None
    try:
        with file:
            file.write(checksummed_file.add_checksum(_to_json(mine)))
        yield found is not None and found.boot != mine.boot
    finally:
        path.unlink(missing_ok=True)


def _remove_claim(path: Path, found: Holder, now: float) -> None:
    """Remove a claim, but not the one that another driver has just put in its place."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    with suppress(FileNotFoundError):  # another driver was faster
        os.rename(path, aside)
        if _read(aside, now) == found:
            aside.unlink()
        else:
            os.rename(aside, path)


def _gone(found: Holder, locked: bool) -> bool:
    """Whether a holder does not count any more: silent for too long, or of this host and without its lock."""
    return found.expired or (locked and found.boot == boot())


def _refusal(folder: Path, who: str) -> LeaseError:
    return LeaseError(
        f"{folder}: expected no other driver on this sweep, got one ({who}). Wait for it, or choose another --out."
    )


def _read(path: Path, now: float | None = None) -> Holder | None:
    """Return the holder that the file names, its age at that time of the file system, and _UNKNOWN if damaged.

    The file is opened before it is asked for its time: that is when a network file system looks at the server.
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


def _clock(folder: Path) -> float:
    """Return the time of the file system, which is that of its server, as the time of a new file."""
    probe = folder / f".probe.{uuid.uuid4().hex}.partial"
    try:
        with probe.open("xb") as file:
            return os.fstat(file.fileno()).st_mtime
    finally:
        probe.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def boot() -> str:
    """Return what tells this host from others: its kernel's start, which its containers share, else its name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def _now() -> float:
    """Return a steady time that also passes while the machine sleeps, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
