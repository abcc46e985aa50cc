"""A cgroup's life: entered by clone3, frozen, killed, and removed when nobody lives in it any more.

    open_fd ─ clone3(CLONE_INTO_CGROUP) ─▶ populated 1 ─ kill ─▶ populated 0 ─ remove
                                               └─ freeze ─▶ frozen 1 ─ thaw ─▶ frozen 0

Both words are lines of cgroup.events, which wakes a poll(2) whenever it changes: waiting never loops. A path is the
cgroup's directory on the host, as ``Tree.at`` returns it.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, "Core Interface Files"
"""

import errno
import os
import select
import signal
import time

from minirt import journal
from minirt.cgroups.tree import find
from minirt.errors import StepFailed
from minirt.linux import fds

DISSOLVE_TRIES = 8
GONE = (errno.ENOENT, errno.ENODEV)
"""What the kernel answers about a cgroup that somebody removed: before its file is opened, and after."""


def open_fd(path: str) -> int:
    """Return a descriptor for CLONE_INTO_CGROUP. Raises OSError: ENOENT."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def kill(path: str, timeout_s: float = 10.0, *, wait: bool = True) -> None:
    """Kill every process in a cgroup and below it, and wait until none is left; a cgroup that is gone is fine.

    Without ``wait``, return when all have been told.

    Raises:
        StepFailed: some outlived ``timeout_s``: the kernel holds them (uninterruptible sleep).
    """
    try:
        fds.write_file(f"{path}/cgroup.kill", "1")
    except OSError as error:
        if error.errno not in GONE:
            raise
        if os.path.exists(path):
            kill_one_by_one(path)
    if wait:
        _wait(path, "populated", False, timeout_s, f"kill everything in {path}")


def kill_one_by_one(path: str) -> None:
    """Kill as kernels before 5.14 must: frozen processes cannot fork away from the list, and SIGKILL reaches them."""
    _write_freeze(path, "1")
    for pid in pids(path):
        try:
            journal.step("kill", os.kill, pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _write_freeze(path, "0")


def freeze(path: str, timeout_s: float = 10.0) -> None:
    """Stop every process in a cgroup, and wait until all have. Raises StepFailed: one did not in ``timeout_s``."""
    _write_freeze(path, "1")
    _wait(path, "frozen", True, timeout_s, f"freeze {path}")


def thaw(path: str, timeout_s: float = 10.0) -> None:
    """Let them run again. Raises StepFailed: a cgroup above is frozen, too."""
    _write_freeze(path, "0")
    _wait(path, "frozen", False, timeout_s, f"thaw {path}")


def is_frozen(path: str) -> bool:
    """Say whether all processes of a cgroup are stopped by a freeze."""
    return _event(path, "frozen")


def is_populated(path: str) -> bool:
    """Say whether a process lives in a cgroup or below it."""
    return _event(path, "populated")


def remove(path: str, timeout_s: float = 5.0) -> None:
    """Remove a cgroup and those below it, which a container may have made; one that is gone is fine.

    Waits for processes that are just ending.

    Raises:
        StepFailed: EBUSY, processes still live in it after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while not _removed(path):
        if time.monotonic() > deadline:
            raise _late(path, f"remove {path}", timeout_s)
        _wait(path, "populated", False, deadline - time.monotonic(), f"remove {path}")


def end(path: str) -> None:
    """Remove a cgroup with all that lives in it; where nothing does, rmdir is all it takes.

    Raises:
        StepFailed: a process outlived its SIGKILL.
    """
    if not _removed(path):
        kill(path)
        remove(path)


def make_apart(path: str, name: str) -> str:
    """Make a cgroup below one that processes live in, for some of them; return it.

    "" where that one can have none: it delegates, is divided by threads, or has as many as it may.
    """
    own = f"{path}/{name}"
    try:
        if delegates(path):
            return ""
        fds.mkdir(own)
    except OSError:
        return ""
    if fds.read_file(f"{own}/cgroup.type").strip() == "domain":
        return own
    fds.rmdir(own)
    return ""


def dissolve(path: str) -> None:
    """Remove a cgroup whose processes, if it has any, are to go on in the one above; one that is gone is fine.

    Who forks faster than it is moved, or has made cgroups below, keeps it: it is removed with the one above.
    """
    for _ in range(DISSOLVE_TRIES):
        if _removed(path):
            return
        for pid in pids(path):
            try:
                fds.write_file(f"{os.path.dirname(path)}/cgroup.procs", str(pid))
            except OSError as error:
                if error.errno not in (*GONE, errno.ESRCH):
                    return


def _removed(path: str) -> bool:
    """Remove the tree from its leaves up; False when something in it is busy."""
    try:
        for child in children(path):
            if not _removed(child):
                return False
        fds.rmdir(path)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno not in GONE:
            raise
    return True


def children(path: str) -> list[str]:
    """Return the cgroups right below one. Raises OSError: ENOENT."""
    return [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]


def pids(path: str) -> list[int]:
    """Return the processes in a cgroup and below it, as this PID namespace numbers them; [] when it is gone."""
    try:
        found = [int(line) for line in _procs(path).split()]
        return found + [pid for child in children(path) for pid in pids(child)]
    except OSError as error:
        if error.errno in GONE:
            return []
        raise


def _procs(path: str) -> str:
    try:
        return fds.read_file(f"{path}/cgroup.procs")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return ""  # a threaded cgroup: the processes of its threads are listed by the domain above it


def delegates(path: str) -> bool:
    """Say whether a cgroup gives controllers to its children, so that no process may be cloned into it (EBUSY)."""
    return bool(fds.read_file(f"{path}/cgroup.subtree_control").strip())


def leaf_of(pid: int) -> str:
    """Return the cgroup that a process is in. Raises OSError: ENOENT or ESRCH, it is gone."""
    for line in fds.read_file(f"/proc/{pid}/cgroup").splitlines():
        if line.startswith("0::"):
            return os.path.join(find().mount, line[3:].lstrip("/"))
    raise ProcessLookupError(errno.ESRCH, "it is in no cgroup of v2", f"/proc/{pid}/cgroup")


def entrance(path: str, init_pid: int) -> str:
    """Return the cgroup that a further process of a container is cloned into: init's own where it made some below."""
    return leaf_of(init_pid) if delegates(path) else path


def _write_freeze(path: str, value: str) -> None:
    fds.write_file(f"{path}/cgroup.freeze", value)


def _event(path: str, key: str) -> bool:
    try:
        return f"{key} 1" in fds.read_file(f"{path}/cgroup.events")
    except OSError as error:
        if error.errno in GONE:
            return False
        raise


def _wait(path: str, key: str, wanted: bool, timeout_s: float, what: str) -> None:
    """Wait until ``key`` of cgroup.events is ``wanted``; a cgroup that is gone has neither word."""
    deadline = time.monotonic() + timeout_s
    try:
        with fds.closing(os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)) as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI | select.POLLERR)
            while (f"{key} 1".encode() in os.pread(events, 4096, 0)) is not wanted:
                if not poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
                    raise _late(path, what, timeout_s)
    except OSError as error:
        if error.errno not in GONE:
            raise


def _late(path: str, what: str, timeout_s: float) -> StepFailed:
    alive = ", ".join(map(str, pids(path)[:10])) or "none"
    why = f"it did not happen in {timeout_s:.1f} s; processes in it: {alive}"
    return StepFailed(what, why, "see /proc/PID/stack for what the kernel waits for", errno=errno.EBUSY)
