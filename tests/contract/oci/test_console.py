"""Terminals: ``--console-socket`` and the foreground, as conmon, containerd's shim and people at a keyboard use them.

Source: https://github.com/opencontainers/runc/blob/v1.1.12/docs/terminals.md
"""

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.oci.container import Container

pytestmark = [pytest.mark.root, pytest.mark.peer]


class Console:
    """A socket that waits for the terminal's master."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._masters: list[int] = []

    def master(self) -> int:
        """Return the descriptor that the runtime sends."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(20)
            _, received, _, _ = socket.recv_fds(connection, 4096, 4)
        self._masters += received
        (master,) = received
        return master

    def nobody_came(self) -> bool:
        """Say whether nothing has connected."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._socket.accept()[0].close()
            return False
        return True

    def close(self) -> None:
        self._socket.close()
        for master in self._masters:
            os.close(master)


def read_until(master: int, text: bytes) -> bytes:
    """Read from a terminal until it has said ``text``. Raises OSError: EIO, everyone at the other end is gone."""
    said = b""
    while text not in said:
        said += os.read(master, 4096)
    return said


def size(descriptor: int) -> tuple[int, int]:
    """Return the rows and columns of a terminal."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8))
    return rows, columns


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    own = Console(tmp_path / "s")
    yield own
    own.close()


@pytest.fixture
def interactive(container: Container) -> Container:
    """A container with a terminal, whose program is a shell."""
    container.process["terminal"] = True
    container.process["env"].append("PS1=> ")
    return container.args("sh")


def test_the_master_is_sent_at_create(interactive: Container, console: Console) -> None:
    interactive.create("--console-socket", console.path)
    assert os.isatty(console.master())


def test_what_is_typed_is_executed(interactive: Container, console: Console) -> None:
    interactive.create("--console-socket", console.path).start()
    master = console.master()
    os.write(master, b"echo $((6 * 7))\n")
    assert b"42" in read_until(master, b"42\r\n")


def test_all_of_stdio_is_the_terminal(interactive: Container, console: Console) -> None:
    interactive.script("tty; tty <&1; tty <&2; echo end").create("--console-socket", console.path).start()
    said = read_until(console.master(), b"end\r\n").split()
    assert len(set(said[:3])) == 1
    assert said[0].startswith(b"/dev/")


def test_it_is_the_controlling_terminal(interactive: Container, console: Console) -> None:
    """Ctrl-C is a signal."""
    interactive.script("trap 'echo caught; exit' INT; echo ready; while :; do sleep 0.05; done")
    interactive.create("--console-socket", console.path).start()
    master = console.master()
    read_until(master, b"ready")
    os.write(master, b"\x03")
    read_until(master, b"caught")


def test_dev_console_is_the_terminal(interactive: Container, console: Console) -> None:
    interactive.script("echo to the console >/dev/console; sleep 1000").create("--console-socket", console.path).start()
    read_until(console.master(), b"to the console")


def test_its_size(interactive: Container, console: Console) -> None:
    interactive.process["consoleSize"] = {"height": 33, "width": 77}
    interactive.script("stty size; sleep 1000").create("--console-socket", console.path).start()
    master = console.master()
    assert size(master) == (33, 77)
    read_until(master, b"33 77")


def test_a_new_size_is_told(interactive: Container, console: Console) -> None:
    interactive.script("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
    interactive.create("--console-socket", console.path).start()
    master = console.master()
    read_until(master, b"ready")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 21, 43, 0, 0))
    read_until(master, b"21 43")


def test_a_user_owns_it(interactive: Container, console: Console) -> None:
    interactive.process["user"] = {"uid": 1000, "gid": 1000}
    interactive.script("stat -L -c 'owner %u' /proc/self/fd/0; sleep 1000")
    interactive.create("--console-socket", console.path).start()
    read_until(console.master(), b"owner 1000")


def test_a_user_may_open_it_again(interactive: Container, console: Console) -> None:
    interactive.process["user"] = {"uid": 1000, "gid": 1000}
    interactive.script("echo opened >/dev/tty; sleep 1000").create("--console-socket", console.path).start()
    read_until(console.master(), b"opened")


def test_the_end_hangs_it_up(interactive: Container, console: Console) -> None:
    interactive.script("echo end").create("--console-socket", console.path).start()
    master = console.master()
    read_until(master, b"end")
    interactive.await_end()
    with pytest.raises(OSError, match="Input/output error"):
        read_until(master, b"more")


def test_create_with_a_terminal_needs_a_socket(interactive: Container) -> None:
    assert interactive.try_create().returncode != 0
    assert not interactive.exists


def test_run_detached_with_a_terminal_needs_a_socket(interactive: Container) -> None:
    assert interactive.try_create("--detach", verb="run").returncode != 0
    assert not interactive.exists


@pytest.mark.differs("crun", "1.8 does not use the socket")
def test_a_socket_needs_a_terminal(container: Container, console: Console) -> None:
    assert container.try_create("--console-socket", console.path).returncode != 0
    assert not container.exists


def test_a_socket_that_is_missing_is_an_error(interactive: Container, tmp_path: Path) -> None:
    assert interactive.try_create("--console-socket", tmp_path / "none").returncode != 0
    assert not interactive.exists


def test_run_detached_sends_it_too(interactive: Container, console: Console) -> None:
    done = interactive.script("echo here; sleep 1000").try_create(
        "--detach", "--console-socket", console.path, verb="run"
    )
    assert done.returncode == 0, done.stderr
    read_until(console.master(), b"here")


def test_exec_with_a_terminal(running: Container, console: Console) -> None:
    done = running.runtime.detached(
        "exec", "--tty", "--detach", "--console-socket", console.path, running.name, "sh", "-c", "tty; sleep 1000"
    )
    assert done.returncode == 0, done.stderr
    assert b"/dev/pts/" in read_until(console.master(), b"\r\n")


def test_exec_of_a_description_with_a_terminal(running: Container, console: Console) -> None:
    """containerd's shim does not say --tty."""
    options = ("--detach", "--console-socket", str(console.path))
    done = running.try_exec_process("sh", "-c", "tty; sleep 1000", options=options, terminal=True)
    assert done.returncode == 0, done.stderr
    assert b"/dev/" in read_until(console.master(), b"\r\n")


def test_exec_of_a_size(running: Container, console: Console) -> None:
    options = ("--detach", "--console-socket", str(console.path))
    size_ = {"height": 11, "width": 22}
    done = running.try_exec_process(
        "sh", "-c", "stty size; sleep 1000", options=options, terminal=True, consoleSize=size_
    )
    assert done.returncode == 0, done.stderr
    assert read_until(console.master(), b"\r\n") == b"11 22\r\n"


def test_exec_detached_with_a_terminal_needs_a_socket(running: Container) -> None:
    assert running.runtime.detached("exec", "--tty", "--detach", running.name, "true").returncode != 0


def test_run_at_a_terminal(interactive: Container) -> None:
    """In the foreground the runtime itself passes on what is typed and said."""
    interactive.script('read line; echo "got $line"; exit 7').write()
    command = interactive.runtime.command("run", "--bundle", interactive.bundle, interactive.name)
    master, slave = os.openpty()
    with subprocess.Popen(["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave) as foreground:
        os.close(slave)
        os.write(master, b"hello\n")
        read_until(master, b"got hello")
        assert foreground.wait(20) == 7
    os.close(master)
