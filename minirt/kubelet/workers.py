"""Pod workers as processes: one a pod, found again by the pod's uid.

A worker's death stops restarts, not containers; another worker can take the pod over (``minirt pod start``).
"""

import os
import select
import signal
from collections.abc import Set
from pathlib import Path

import msgspec
from msgspec import Struct

from minirt import decoding, paths
from minirt.engine import store
from minirt.engine.records import SandboxRecord
from minirt.errors import Conflict
from minirt.linux import process
from minirt.shim.status import replace_file


class WorkerRecord(Struct, frozen=True):
    """Who works on a pod: a process, named for good by its pid and start time. ``pod`` is ``namespace/name``."""

    pid: int
    start_time: int
    pod: str = ""

    def is_alive(self) -> bool:
        """Say whether this very process still exists."""
        return process.is_alive(self.pid, self.start_time)


class Registration(Struct, frozen=True):
    """This process as the worker of a pod, ``namespace/name``.

    Raises:
        Conflict: on entering; the pod has a worker, or there is another pod of its name.
    """

    uid: str
    pod: str

    def __enter__(self) -> "Registration":
        me = os.getpid()
        _directory().mkdir(parents=True, exist_ok=True)
        with store.flocked(_directory()):
            self._refuse_another()
            replace_file(_file(self.uid), msgspec.json.encode(WorkerRecord(me, process.start_time(me), self.pod)))
        return self

    def __exit__(self, *_: object) -> None:
        _file(self.uid).unlink(missing_ok=True)

    def _refuse_another(self) -> None:
        """Look, under the lock that every worker registers under, for who came first."""
        alive = [record for path in _directory().glob("*.json") if (record := find(path.stem))]
        if find(self.uid) or any(record.pod == self.pod for record in alive):
            raise Conflict(f"run the pod {self.pod}", "another worker runs it", "see minirt pod ps")
        if any(each.config.uid != self.uid for each in sandboxes_of(self.pod)):
            raise Conflict(f"run the pod {self.pod}", "a pod of this name exists", "see minirt pod ps")


def sandboxes_of(pod: str) -> list[SandboxRecord]:
    """Return the sandboxes of the pods of this name, ``namespace/name``."""
    pods = [record for record in store.sandboxes() if not record.config.single]
    return [record for record in pods if f"{record.config.namespace}/{record.config.name}" == pod]


def find(uid: str) -> WorkerRecord | None:
    """Return a pod's worker if it is alive."""
    try:
        record = decoding.from_json(_file(uid).read_bytes(), WorkerRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return record if record.is_alive() else None


def stop(uid: str) -> bool:
    """Ask a pod's worker to stop the pod, and wait until it has ended; False if there is none."""
    record = find(uid)
    if record is None:
        forget(uid)
        return False
    try:
        pidfd = process.pidfd_open(record.pid)
    except ProcessLookupError:
        return False
    try:
        process.pidfd_send_signal(pidfd, signal.SIGTERM)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def forget(uid: str) -> None:
    """Remove what a worker that was killed has left."""
    _file(uid).unlink(missing_ok=True)


def prune(known: Set[str]) -> None:
    """Remove the files of dead workers of pods that are not ``known``: records, also half-written ones, and logs."""
    for path in _directory().iterdir() if _directory().exists() else ():
        half_written = path.name.startswith(".")
        name, _, writer = path.name[1:].rpartition(".") if half_written else (path.name, "", "none")
        uid = name.rpartition(".")[0]
        if uid not in known and not find(uid) and not Path("/proc", writer).exists():
            path.unlink(missing_ok=True)


def log_file(uid: str) -> Path:
    """Return where a pod's worker writes what it has to say; it stays until the pod is removed."""
    return _directory() / f"{paths.checked_id(uid)}.log"


def _file(uid: str) -> Path:
    return _directory() / f"{paths.checked_id(uid)}.json"


def _directory() -> Path:
    return paths.state_root() / "workers"
