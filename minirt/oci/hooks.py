"""Hooks: programs of the caller's that run at fixed moments of a container's life, the state on their stdin.

    create   prestart, createRuntime    the runtime's namespaces; all mounts made, pivot_root to come
             createContainer            the container's namespaces, the host's files still in sight
    start    startContainer             in the container, right before its program
             poststart                  the runtime's namespaces; the program runs
    delete   poststop                   the runtime's namespaces; all is gone

A program that is spawned is executed at once, so that the process law holds in the container's init, too.
Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md, "POSIX-platform Hooks"
"""

import os
import select
import signal

import msgspec
from msgspec import Struct

from minirt import journal
from minirt.errors import MinirtError, StepFailed
from minirt.linux import process
from minirt.linux.integers import Seconds


class Hook(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One program: an absolute path, the whole argv and environment, and how long it may take in seconds."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: Seconds | None = None


class Hooks(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """All hooks, by their moment, each list in order."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


def run(moment: str, hooks: tuple[Hook, ...], state: str, blank: int = -1) -> None:
    """Run hooks one after the other, each with ``state`` (JSON) on its stdin.

    With ``blank``, an empty file, they are programs of a container's: that file is their parent's /proc/self/exe.

    Raises:
        StepFailed: one cannot be executed, failed, or took too long; those after it are not run.
    """
    for hook in hooks:
        _run_one(f"run the {moment} hook {hook.path}", hook, state, blank)


def run_all(moment: str, hooks: tuple[Hook, ...], state: str) -> list[MinirtError]:
    """Run every hook, whether others fail or not; return what went wrong."""
    failures: list[MinirtError] = []
    for hook in hooks:
        try:
            _run_one(f"run the {moment} hook {hook.path}", hook, state)
        except MinirtError as error:
            failures.append(error)
    return failures


def _run_one(what: str, hook: Hook, state: str, blank: int = -1) -> None:
    if not hook.path.startswith("/"):
        raise StepFailed(what, "its path is not absolute", "hooks are named by absolute paths")
    try:
        pid = journal.step("spawn", _spawn, hook, state, blank)
    except OSError as error:
        raise StepFailed.from_os_error(what, error, stage=journal.stage, step="spawn") from error
    code = _wait(pid, hook.timeout)
    if code is None:
        raise StepFailed(what, f"it did not end within its timeout of {hook.timeout} s", step="spawn")
    if code:
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        raise StepFailed(what, f"it ended with {how}", "what it printed is on stderr", step="spawn")


def _spawn(hook: Hook, state: str, blank: int) -> int:
    """Start a hook with the state as its stdin (a file in memory: a pipe could fill up) and its output on stderr."""
    stdin = os.memfd_create("state", os.MFD_CLOEXEC)
    try:
        os.write(stdin, state.encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        if blank >= 0:
            return _spawn_in_container(hook, stdin, blank)
        env = dict(entry.partition("=")[::2] for entry in hook.env)
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        defaults = (signal.SIGPIPE, signal.SIGXFSZ)
        return os.posix_spawn(hook.path, hook.args or (hook.path,), env, file_actions=actions, setsigdef=defaults)
    finally:
        os.close(stdin)


def _spawn_in_container(hook: Hook, stdin: int, blank: int) -> int:
    """Fork, and execute the hook as init executes the container's program: it must not get at the interpreter either.

    Raises OSError: what the kernel refused, which C has written to a pipe that a successful execve closes.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.dup2(stdin, 0)
        os.dup2(2, 1)
        process.execute(hook.path, hook.args or (hook.path,), hook.env, writer, blank)
    os.close(writer)
    with open(reader, "rb") as said:
        failure = said.read()
    if failure:
        os.waitpid(pid, 0)
        number = msgspec.json.decode(failure)["errno"]
        raise OSError(number, os.strerror(number), hook.path)
    return pid


def _wait(pid: int, timeout_s: int | None) -> int | None:
    """Return how a process ended (minus the signal's number if by one); None if it had to be killed for its time."""
    pidfd = process.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        is_late = timeout_s is not None and not poll.poll(timeout_s * 1000)
        if is_late:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return None if is_late else code
    finally:
        os.close(pidfd)
