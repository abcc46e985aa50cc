"""Namespaces and a reaper of their own for the root tests, so that a leak seen is a leak of theirs.

    pytest, as it was started ── unshare(mount, net), fork ──▶ pytest, as it goes on: runs the tests
       │ is the subreaper of all                                  └─ whatever they start
       └─ reaps every orphan at once, as init would; at the end kills what is left and passes the status on

The mounts are cut off from the machine's and then shared among themselves, as they are under systemd; /run is an
empty tmpfs (no socket of a container engine of this machine is in reach); lo is up and is the only link.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from minirt.linux import mount, prctl, process
from minirt.linux.mount import MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_REC, MS_SHARED

AT_FDCWD = -100
KEPT = (Path("/run/systemd"), Path("/run/dbus"))
"""Where systemd is PID 1, minirt asks it for a cgroup."""

outside: list[int] = []
"""A descriptor of the machine's own network namespace, once ``enter`` has left it: for what only a mirror can give."""


def enter() -> None:
    """Give this process namespaces of its own, and make it the one that orphans are given to.

    Raises OSError: EPERM, not root.
    """
    _default_realtime_signals()
    outside.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    process.unshare(process.CLONE_NEWNS | process.CLONE_NEWNET)
    mount.mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount.mount(None, "/", None, MS_REC | MS_SHARED)
    _own_run()
    process.link_up("lo")
    prctl.set_child_subreaper()


def leave_a_reaper(at_end: Callable[[], None]) -> None:
    """Go on in a child; this process stays behind as its reaper, and calls ``at_end`` when nothing is left."""
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        code = _reap_until_end_of(child)
        at_end()
        os._exit(code)


def _default_realtime_signals() -> None:
    """Stop ignoring signals 32 and 33, past libc, which refuses: a peer would pass on what it was started with."""
    number = {"x86_64": 13, "aarch64": 134}.get(os.uname().machine)  # SYS_rt_sigaction
    default = (ctypes.c_uint64 * 4)()
    for ignored in (32, 33) if number else ():
        ctypes.CDLL(None).syscall(number, ignored, ctypes.byref(default), None, 8)


def _own_run() -> None:
    """Mount an empty /run; the directories of KEPT, and the one that /etc/resolv.conf leads to, stay in it."""
    resolver = Path("/etc/resolv.conf").resolve().parent
    kept = [path for path in {*KEPT, resolver} if path.is_relative_to("/run") and path.is_dir()]
    trees = {path: mount.open_tree(AT_FDCWD, str(path), mount.OPEN_TREE_CLONE | mount.AT_RECURSIVE) for path in kept}
    mount.mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    Path("/run/lock").mkdir()
    for path, tree in sorted(trees.items()):
        path.mkdir(parents=True, exist_ok=True)
        mount.move_mount(tree, AT_FDCWD, str(path))
        os.close(tree)


def _reap_until_end_of(child: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    ended, status = os.wait()
    while ended != child:
        ended, status = os.wait()
    while left := children_of(os.getpid()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def children_of(pid: int) -> list[int]:
    """Return the children of every thread of a process; none where it is gone. Source: proc_tid_children(5)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found
