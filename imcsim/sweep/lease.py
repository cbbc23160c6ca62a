"""Who is at work on a store, and whether they still are: owners of claims, and the heart that is heard of each."""

import os
import socket
import sqlite3
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LEASE_S = 30.0
"""How long an owner may be silent before its claims lapse."""

BEAT_S = 5.0
"""How often an owner is heard from."""


@dataclass(frozen=True)
class Owner:
    """A process that claims points of a store."""

    name: str
    host: str
    """The machine since it was started, and whose processes are seen from there."""

    pid: int
    started: str
    """When the process was started, since numbers are given again, as the system counts it; empty where not known."""

    seen: float = 0.0
    """When it was last heard from, in seconds since 1970."""

    def is_alive(self, now: float, lease_s: float) -> bool:
        """Whether the owner was heard from lately and, if its processes can be seen from here, still is there."""
        if now - self.seen > lease_s:
            return False
        return self.host != _host() or _started(self.pid) == self.started


def this_owner(name: str | None) -> Owner:
    """Return this process as an owner."""
    pid = os.getpid()
    return Owner(name or f"{socket.gethostname()}:{pid}", _host(), pid, _started(pid) or "")


def _host() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):  # where there is no /proc, the name must do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process of this machine was started; empty where the system does not say, None where there is none."""
    if os.name != "posix":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # somebody else's
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if state in "ZX" else fields[18]


class Heart:
    """A thread that lets an owner be heard from, as long as its store is open, whatever the owner is at."""

    def __init__(self, store: object, path: Path, owner: int):
        self._stop = threading.Event()
        weakref.finalize(store, self._stop.set)
        self._thread = threading.Thread(
            target=_beat, args=(path, owner, self._stop), name="imcsim-store-heart", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Fall silent."""
        self._stop.set()
        self._thread.join()


def _beat(path: Path, owner: int, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        with suppress(sqlite3.Error):  # a full disk, or much to do: the next beat may pass
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=BEAT_S)
            try:
                db.execute("UPDATE owners SET seen = ? WHERE id = ?", (time.time(), owner))
            finally:
                db.close()
