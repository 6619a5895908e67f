"""The lease of a sweep's folder, so that a sweep has one driver at a time.

On one host a lock is enough: `flock` on driver.lock ends with its process. Some file systems that hosts share do not
pass locks on to other hosts. So the driver also creates driver.json, which says who it is, and a thread touches it
every HEARTBEAT_S. A foreign lease is honoured until its heartbeat stops for EXPIRES_S seconds. Its age is the
difference between the times of two files in the folder, so the clocks of the hosts do not matter.

Hosts that start together decide one at a time: driver.claim can be created only once, and is there while a host
decides. A claim that was left behind expires like a lease. SETTLE_S covers the race that is left, between hosts that
find the same expired claim.

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
                is_locked = undo.enter_context(_locked(self.folder, self._mine))
                undo.callback(self._release)
                with _claimed(self.folder, self._mine, is_locked) as after_another:
                    self._take(is_locked, after_another)
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

    def _take(self, is_locked: bool, after_another: bool) -> None:
        found = _read(self._path, _file_time(self.folder))
        if found is not None and not _is_gone(found, is_locked):
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

    def _remove_partials(self) -> None:
        """Remove what killed drivers left of the sweep's own files."""
        for name in (".", "checkpoints", "images", "models"):
            if not (self.folder / name).is_symlink():
                atomic_file.remove_partials(self.folder / name)

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
    """Return who drives the sweep, or None.

    An expired lease of another host is returned too. A damaged lease gives a holder without an id. The folder need not
    be writable.
    """
    try:
        try:
            now = _file_time(folder)
        except OSError:  # somebody else's folder: its clock is taken to agree with this host's
            now = time.time()
        found = _read(folder / "driver.json", now)
        is_here = found is not None and found.boot == boot_id()
        return None if is_here and not _is_locked(folder) else found
    except OSError:
        return None


@contextmanager
def _locked(folder: Path, mine: Holder) -> Iterator[bool]:
    """Lock driver.lock. Yield whether the file system has locks.

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
        yield has_lock is True


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
    found = _read(folder / "driver.json", _file_time(folder))
    return str(found) if found is not None and found.who == who else who or "unknown"


@contextmanager
def _claimed(folder: Path, mine: Holder, is_locked: bool) -> Iterator[bool]:
    """Let one driver at a time decide who has the lease. Yield whether an abandoned claim was removed for it.

    Raises LeaseError if another driver is deciding.
    """
    path = folder / "driver.claim"
    now = _file_time(folder)
    found = _read(path, now)
    if found is not None and _is_gone(found, is_locked):
        _remove_claim(path, found, now)
    try:
        file = path.open("xb")
    except FileExistsError:
        other = _read(path, _file_time(folder))
        raise _refusal(folder, f"{other or 'unknown'}, which is starting") from None
    try:
        with file:
            file.write(checksummed_file.add_checksum(_to_json(mine)))
        yield found is not None and found.boot != mine.boot
    finally:
        path.unlink(missing_ok=True)


def _remove_claim(path: Path, found: Holder, now: float) -> None:
    """Remove a claim, but not one that another driver has just put in its place."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.aside")
    with suppress(FileNotFoundError):  # another driver was faster
        os.rename(path, aside)
        if _read(aside, now) == found:
            aside.unlink()
        else:
            os.rename(aside, path)


def _is_gone(found: Holder, is_locked: bool) -> bool:
    """Return whether a holder no longer counts: silent for too long, or of this host and without its lock."""
    return found.expired or (is_locked and found.boot == boot_id())


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


def _file_time(folder: Path) -> float:
    """Return the present time of the file system, which is its server's: the time of a new file."""
    probe = folder / f".probe.{uuid.uuid4().hex}.partial"
    try:
        with probe.open("xb") as file:
            return os.fstat(file.fileno()).st_mtime
    finally:
        probe.unlink(missing_ok=True)


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
