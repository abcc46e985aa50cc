"""The last steps of init: what each says it will do, and what it does where no root is needed."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import CommandNotFound, MinirtError, NotExecutable, StepFailed
from minirt.linux import prctl
from minirt.linux.operation import Operation
from minirt.oci import sync
from minirt.oci.init import (
    Chdir,
    CloseInherited,
    Execute,
    FindExecutable,
    FindHome,
    Init,
    LoadFilter,
    MakeCwd,
    NewKeyring,
    NewSession,
    OpenTerminal,
    SetUmask,
    Stdio,
    Undumpable,
    WaitForStart,
)
from minirt.security.profile import Rule, Seccomp
from minirt.security.seccomp import Filter, compile_profile


@pytest.mark.parametrize(
    ("operation", "line"),
    [
        (Undumpable(), "prctl PR_SET_DUMPABLE 0"),
        (CloseInherited(), "close_range all but stdio and the socket to the shim"),
        (NewKeyring(), "keyctl KEYCTL_JOIN_SESSION_KEYRING, a new one"),
        (NewSession(), "setsid"),
        (Stdio(), "dup2 the pipes of stdin, stdout, stderr to 0, 1, 2"),
        (OpenTerminal(), "open /dev/ptmx, make its peer the controlling terminal and /dev/console"),
        (OpenTerminal(console=False), "open /dev/ptmx, make its peer the controlling terminal"),
        (MakeCwd("/work"), "mkdir -p /work"),
        (Chdir("/work"), "chdir /work"),
        (SetUmask(), "umask 022"),
        (SetUmask(0), "umask 000"),
        (FindExecutable("sh", ("/bin", "/usr/bin")), "find sh in /bin:/usr/bin"),
        (FindExecutable("/bin/sh", ("/bin",)), "find /bin/sh"),
        (FindHome(1000), "find the home of user 1000 in /etc/passwd"),
        (WaitForStart(), "say ready, wait for start"),
        (Execute(("sh", "-c", "true"), ("SECRET=1",)), "execve sh -c true"),
        (LoadFilter(Filter(bytes(24), 4)), "seccomp SECCOMP_SET_MODE_FILTER, 3 instructions"),
    ],
)
def test_described_in_the_kernels_words(operation: Operation[Init], line: str) -> None:
    assert operation.describe() == line
    assert operation.because == ""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    shims, inits = sync.pair()
    with shims, inits:
        yield shims, inits


@pytest.fixture
def context(ends: tuple[socket.socket, socket.socket]) -> Init:
    return Init(ends[1], (0, 1, 2))


def in_a_child(step: Callable[[], Any]) -> str:
    """Return what ``step`` returns in a forked process."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(writer, str(step()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


def test_what_a_fork_brings_along_is_closed(context: Init) -> None:
    stray = os.open("/", os.O_RDONLY)

    def left() -> list[str]:
        kept = os.dup(1)
        inner = Init(context.sync, (0, 1, kept))
        CloseInherited().execute(inner)
        return sorted(os.listdir("/proc/self/fd"))

    said, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.dup2(writer, 1)
        os.write(1, " ".join(left()).encode())
        os._exit(0)
    os.close(writer)
    os.close(stray)
    with open(said) as text:
        numbers = set(map(int, text.read().split()))
    os.waitpid(pid, 0)
    assert stray not in numbers
    assert {0, 1, 2, context.sync.fileno()} <= numbers
    assert len(numbers) == 6, "stdio, the pair, the kept one, and the directory that is being read"


def test_the_mask_of_new_files(context: Init) -> None:
    before = os.umask(0o022)
    try:
        SetUmask(0o077).execute(context)
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(before)


def test_stdio_takes_the_places_of_0_1_2(context: Init, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("what is read")
    inner = Init(context.sync, tuple(os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("in", "out", "err")))

    def talk() -> bytes:
        Stdio().execute(inner)
        os.write(1, b"said")
        os.write(2, b"warned")
        return os.read(0, 100)

    assert in_a_child(talk) == str(b"what is read")
    assert (tmp_path / "out").read_text() == "said"
    assert (tmp_path / "err").read_text() == "warned"
    for fd in inner.stdio:
        os.close(fd)


def test_a_session_of_its_own(context: Init) -> None:
    def leads() -> bool:
        NewSession().execute(context)
        return os.getsid(0) == os.getpid()

    assert in_a_child(leads) == "True"


def test_the_working_directory_is_made_inside_the_root(context: Init, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to("/../../elsewhere")
    context.rootfs_fd = os.open(tmp_path / "root", os.O_PATH)
    MakeCwd("/a/b").execute(context)
    (tmp_path / "root/elsewhere").mkdir()
    MakeCwd("/link/c").execute(context)
    os.close(context.rootfs_fd)
    assert (tmp_path / "root/a/b").is_dir()
    assert (tmp_path / "root/elsewhere/c").is_dir()


def test_a_working_directory_that_is_not_there(context: Init, tmp_path: Path) -> None:
    def error() -> str:
        try:
            Chdir(str(tmp_path / "none")).execute(context)
        except FileNotFoundError:
            return "not found"
        return "found"

    assert in_a_child(error) == "not found"


def test_a_working_directory_out_of_reach_of_the_root_is_refused(context: Init, tmp_path: Path) -> None:
    def error() -> str:
        os.chdir(tmp_path)
        (tmp_path / "gone").mkdir()
        fd = os.open(tmp_path / "gone", os.O_RDONLY)
        (tmp_path / "gone").rmdir()
        try:
            Chdir(f"/proc/self/fd/{fd}").execute(context)
        except StepFailed as refusal:
            return str(refusal)
        return "no error"

    assert "leads out of the container's root" in in_a_child(error)


class TestFindExecutable:
    @pytest.fixture(autouse=True)
    def directories(self, tmp_path: Path) -> None:
        for name in ("one", "two", "both"):
            (tmp_path / name).mkdir()
        for name, mode in (("one/tool", 0o644), ("two/tool", 0o755), ("two/only", 0o600), ("both/tool", 0o755)):
            (tmp_path / name).write_text("")
            (tmp_path / name).chmod(mode)
        (tmp_path / "one/directory").mkdir()

    def found(self, context: Init, command: str, *search: Path) -> str:
        FindExecutable(command, tuple(map(str, search))).execute(context)
        return context.executable

    def error(self, context: Init, command: str, *search: Path) -> MinirtError:
        with pytest.raises(MinirtError) as refused:
            self.found(context, command, *search)
        return refused.value

    def test_the_first_that_may_be_executed(self, context: Init, tmp_path: Path) -> None:
        search = (tmp_path / "none", tmp_path / "one", tmp_path / "two", tmp_path / "both")
        assert self.found(context, "tool", *search) == f"{tmp_path}/two/tool"

    def test_a_path_is_not_looked_for(self, context: Init, tmp_path: Path) -> None:
        assert self.found(context, f"{tmp_path}/both/tool", tmp_path / "two") == f"{tmp_path}/both/tool"

    def test_nowhere(self, context: Init, tmp_path: Path) -> None:
        refused = self.error(context, "nothing", tmp_path / "one")
        assert isinstance(refused, CommandNotFound)
        assert "not found in $PATH" in str(refused)

    @pytest.mark.parametrize("path", ["none/tool", "two/tool/x"])
    def test_a_path_that_is_not_there(self, context: Init, tmp_path: Path, path: str) -> None:
        assert self.error(context, f"{tmp_path}/{path}").exit_code == 127

    @pytest.mark.parametrize("command", ["only", "directory"])
    def test_there_but_not_to_be_executed(self, context: Init, tmp_path: Path, command: str) -> None:
        refused = self.error(context, command, tmp_path / "one", tmp_path / "two")
        assert isinstance(refused, NotExecutable)
        assert refused.exit_code == 126


def test_at_the_gate_ready_is_said_and_start_awaited(ends: tuple[socket.socket, socket.socket], context: Init) -> None:
    shims, _ = ends
    sync.send(shims, {"type": "start"})
    WaitForStart().execute(context)
    assert sync.receive(shims) == ({"type": "ready"}, [])


def test_at_the_gate_nobody_wants_it_any_more(ends: tuple[socket.socket, socket.socket], context: Init) -> None:
    if (pid := os.fork()) == 0:
        ends[0].close()
        try:
            WaitForStart().execute(context)
        finally:
            os._exit(0)
    assert sync.receive(ends[0]) == ({"type": "ready"}, [])
    ends[0].shutdown(socket.SHUT_RDWR)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125


def executed(context: Init, ends: tuple[socket.socket, socket.socket], path: str) -> tuple[dict[str, Any] | None, int]:
    """Return what the shim hears of an execve, and the exit code that follows."""
    if (pid := os.fork()) == 0:
        ends[0].close()
        prctl.set_no_new_privs()
        context.executable = path
        Execute(("name", "-c", "exit 5"), ("A=b",)).execute(context)
    ends[1].close()
    message, _ = sync.receive(ends[0])
    return message, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_after_execve_the_socket_is_closed(context: Init, ends: tuple[socket.socket, socket.socket]) -> None:
    assert executed(context, ends, "/bin/sh") == (None, 5)


def test_a_filter_that_the_kernel_does_not_take_is_a_step_of_its_own(
    context: Init, ends: tuple[socket.socket, socket.socket]
) -> None:
    LoadFilter(Filter(bytes(8), 0)).execute(context)
    message, code = executed(context, ends, "/bin/sh")
    assert message is not None
    assert (message["type"], message["step"], code) == ("failed", "seccomp", 125)
    assert message["errno"] in {errno.EINVAL, errno.EACCES}


def test_a_filter_holds_from_the_execve_on(context: Init, ends: tuple[socket.socket, socket.socket]) -> None:
    refusing = Seccomp("SCMP_ACT_ALLOW", syscalls=(Rule(("execve",), "SCMP_ACT_ERRNO", errno.ETXTBSY),))
    LoadFilter(Filter(compile_profile(refusing), 0)).execute(context)
    message, code = executed(context, ends, "/bin/sh")
    assert message == {"type": "failed", "step": "execve", "errno": errno.ETXTBSY}
    assert code == 127


def test_an_execve_that_fails_says_why(
    context: Init, ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    message, code = executed(context, ends, str(tmp_path / "text"))
    assert message == {"type": "failed", "step": "execve", "errno": errno.ENOEXEC}
    assert code == 127


def test_a_warning_goes_to_the_shim(context: Init, ends: tuple[socket.socket, socket.socket]) -> None:
    context.warn("it could not be done")
    assert sync.receive(ends[0]) == ({"type": "warning", "text": "it could not be done"}, [])
