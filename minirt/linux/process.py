"""Processes and namespaces: clone3, unshare, setns, pidfds.

Source: clone3(2), unshare(2), setns(2), pidfd_open(2), pidfd_send_signal(2).
"""

import contextlib
import functools
import os
from _signal import SIGCHLD  # type: ignore[import-not-found]  # without the enumerations that signal makes of it
from collections.abc import Iterator, Sequence
from typing import NoReturn

from minirt import journal
from minirt.linux import fds
from minirt.linux._native import ffi, lib
from minirt.linux.mount import checked

CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWTIME = 0x80
CLONE_INTO_CGROUP = 0x200000000

PR_SET_MM, PR_SET_MM_MAP = 35, 14
MFD_EXEC = 0x10

DESCRIPTOR, TEXT, TEXTS = (ffi.typeof(name) for name in ("int *", "char[]", "char *[]"))
"""C's types, looked up once, and not by each container's init."""

ZOMBIES = (b"Z", b"X")
"""The states of processes that have ended. Source: proc_pid_stat(5), field 3."""


def clone3(flags: int, cgroup_fd: int = -1, tasks: int | str = "/proc/self/task") -> tuple[int, int]:
    """Make a child that goes on in Python; return (pid, pidfd) in the parent and (0, -1) in the child.

    ``flags`` are CLONE_NEW* and CLONE_PARENT; CLONE_PIDFD is always set, CLONE_INTO_CGROUP when ``cgroup_fd`` is
    given. A raw clone skips what os.fork() does: at-fork hooks, reseeding random, flushing stdio buffers, and the
    child keeps asyncio's descriptors. The child must therefore leave only by exec or ``os._exit``, and the caller
    must be the only thread of its process: another thread could hold a lock that the child would wait for for ever.
    ``tasks`` is where that is checked: a descriptor of /proc/self/task, for who has joined another PID namespace's
    mounts, where /proc/self is nobody.

    Raises:
        RuntimeError: this process has more than one thread.
        OSError: EPERM (no CAP_SYS_ADMIN), ENOSPC (too many namespaces), EBUSY (the cgroup delegates controllers),
            EOPNOTSUPP (the cgroup is not a domain).
    Source: clone(2), "The clone3() system call".
    """
    require_one_thread(tasks)
    return journal.step("clone3", _clone3, with_pidfd(flags, cgroup_fd), cgroup_fd)


def require_one_thread(tasks: int | str = "/proc/self/task") -> None:
    """Return if this process may fork. Raises RuntimeError: it has more than one thread."""
    threads = len(os.listdir(tasks))
    if threads != 1:
        raise RuntimeError(f"clone3 in a process with {threads} threads: who has threads never forks")


def with_pidfd(flags: int, cgroup_fd: int) -> int:
    """Return clone3's flags with those that every child of ours has."""
    return flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0)


def _clone3(flags: int, cgroup_fd: int) -> tuple[int, int]:
    pidfd = ffi.new(DESCRIPTOR, -1)
    exit_signal = 0 if flags & CLONE_PARENT else SIGCHLD
    pid = checked(lib.rt_clone3(flags, exit_signal, cgroup_fd, pidfd))
    return (pid, pidfd[0]) if pid else (0, -1)


def unshare(flags: int) -> None:
    """Give this process new namespaces. Raises OSError: EPERM, ENOSPC, EINVAL (CLONE_NEWUSER with threads)."""
    journal.step("unshare", _unshare, flags)


def _unshare(flags: int) -> None:
    checked(lib.rt_unshare(flags))


def setns(fd: int, flags: int = 0) -> None:
    """Join the namespace behind ``fd``, or with a pidfd those of ``flags`` that its process is in.

    Raises OSError: EINVAL (another kind), EPERM, ESRCH (the pidfd's process is gone).
    """
    journal.step("setns", _setns, fd, flags)


def _setns(fd: int, flags: int) -> None:
    checked(lib.rt_setns(fd, flags))


def pidfd_open(pid: int) -> int:
    """Return a descriptor of a process. Raises OSError: ESRCH (no such process)."""
    return checked(lib.rt_pidfd_open(pid, 0))


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Send a signal to exactly this process. Raises OSError: ESRCH (it has been reaped)."""
    journal.step("pidfd_send_signal", _pidfd_send_signal, pidfd, number)


def _pidfd_send_signal(pidfd: int, number: int) -> None:
    checked(lib.rt_pidfd_send_signal(pidfd, number))


def execute(
    path: str,
    args: Sequence[str],
    env: Sequence[str],
    report: int,
    blank: int,
    *,
    program: bytes = b"",
    length: int = 0,
    flags: int = 0,
    kept: int = 0,
) -> NoReturn:
    """Become another program: in C, and for good, for on the way the interpreter is unmapped (``blank``: see below).

    A seccomp filter (``program``, of ``length`` instructions, with ``flags``) is loaded last. Descriptors from 3 on are
    closed, but for ``kept`` of them. What the kernel refuses is written to ``report`` as a "failed" message.
    """
    keep = [ffi.new(TEXT, os.fsencode(text)) for text in (*args, *env)]
    argv = ffi.new(TEXTS, [*keep[: len(args)], ffi.NULL])
    envp = ffi.new(TEXTS, [*keep[len(args) :], ffi.NULL])
    filter = ffi.from_buffer(TEXT, program) if length else ffi.NULL
    lib.rt_exec(os.fsencode(path), argv, envp, filter, length, flags, report, 3 + kept, blank)
    os._exit(125)


@contextlib.contextmanager
def blank_file() -> Iterator[int]:
    """Yield an empty file in memory, which a process can name as the one it executes; -1 where the kernel cannot.

    It is open for reading only: the kernel wants nobody to write to it. Its place on the way is this process's /proc.
    Source: PR_SET_MM(2const), PR_SET_MM_MAP (a kernel with CONFIG_CHECKPOINT_RESTORE); memfd_create(2)
    """
    if not can_leave_executable():
        yield -1
        return
    with fds.closing(_empty_program()) as made:
        blank = os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
    with fds.closing(blank):
        yield blank


@functools.cache
def can_leave_executable() -> bool:
    """Say whether the kernel lets a process name another file as the one it executes."""
    return lib.rt_can_leave_executable() == 0


def _empty_program() -> int:
    try:
        return os.memfd_create("minirt", os.MFD_CLOEXEC | MFD_EXEC)
    except OSError:  # EINVAL: a kernel before 6.3, where all such files may be executed
        return os.memfd_create("minirt", os.MFD_CLOEXEC)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace (at most 64 bytes). Source: sethostname(2)."""
    import _socket

    journal.step("sethostname", _socket.sethostname, name)


def link_up(name: str) -> None:
    """Set an interface of this network namespace up (``lo``), without netlink."""
    journal.step("link_up", _link_up, name)


def _link_up(name: str) -> None:
    checked(lib.rt_link_up(name.encode()), name)


def join_session_keyring() -> None:
    """Leave the session keyring that was inherited for a new one, without a name: one with a name could be shared.

    Source: keyctl(2), KEYCTL_JOIN_SESSION_KEYRING.

    Raises OSError: ENOSYS (a kernel without keys), EPERM (a filter forbids it), EDQUOT (too many keys).
    """
    journal.step("keyctl", _join_session_keyring)


def _join_session_keyring() -> None:
    checked(lib.rt_join_session_keyring())


def pause(unused: list[int]) -> NoReturn:
    """Reap children for ever, in C. ``unused`` is memory to let go of, and Python with it: begin, size, begin, size…"""
    lib.rt_pause(ffi.new("uint64_t[]", unused), len(unused) // 2)
    os._exit(125)


def start_time(pid: int) -> int:
    """Return when a process started (clock ticks since boot): with the pid it names one process for good.

    Raises OSError: ENOENT or ESRCH, there is no such process. Source: proc_pid_stat(5), field 22.
    """
    return int(_stat(pid)[19])


def is_alive(pid: int, started: int) -> bool:
    """Say whether the process that had this pid and start time still runs.

    One that has ended and whom its parent has not reaped yet (a zombie) does not: not every PID 1 is quick.
    """
    try:
        fields = _stat(pid)
    except OSError:
        return False
    return int(fields[19]) == started and fields[0] not in ZOMBIES


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat behind the name, which may hold anything."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).rpartition(b")")[2].split()
    finally:
        os.close(fd)
