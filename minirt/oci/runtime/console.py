"""The terminal that a container's init made: it goes to the console socket, or in the foreground is joined to ours.

Source: https://github.com/opencontainers/runc/blob/main/docs/terminals.md
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator

from minirt.errors import InvalidInput, StepFailed
from minirt.linux import fds, process, sockets

CHUNK = 1 << 16


def check(terminal: bool, console_socket: str, *, detach: bool) -> None:
    """Refuse a terminal that nobody would get, and a socket that would get none. In the foreground it is relayed.

    Raises:
        InvalidInput: the one without the other.
    """
    if terminal and detach and not console_socket:
        why = "process.terminal is true, and there is no --console-socket"
        raise InvalidInput("make the container's terminal", why, "give one, or set process.terminal to false")
    if console_socket and not terminal:
        why = "--console-socket is given, and process.terminal is false"
        raise InvalidInput("make the container's terminal", why, "leave it out, or set process.terminal to true")


def hand_over(path: str, master: int) -> None:
    """Send a terminal's master to the one who listens at ``path``, with its name. Raises StepFailed: nobody does."""
    try:
        with sockets.stream() as connection:
            connection.connect(path)
            sockets.send(connection, os.fsencode(f"/dev/pts/{_number(master)}"), [master])
    except OSError as error:
        raise StepFailed.from_os_error(f"send the terminal to {path}", error) from error
    finally:
        os.close(master)


def _number(master: int) -> int:
    """Return the terminal's number in its devpts. Source: ioctl_tty(2), TIOCGPTN."""
    import fcntl
    import struct

    number: int = struct.unpack("i", fcntl.ioctl(master, 0x80045430, b"\0\0\0\0"))[0]
    return number


def relay(master: int, pid: int) -> None:
    """Copy between our stdio and a terminal until the process ``pid`` has ended and all it wrote has come out."""
    with fds.closing(master), fds.closing(process.pidfd_open(pid)) as end, _raw(), _same_size(master):
        poll = select.poll()
        for fd in (0, master, end):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if master in ready and not _copy(master, 1):
                poll.unregister(master)
            if 0 in ready and not _copy(0, master):
                poll.unregister(0)
            if ready == {end}:
                return


def _copy(source: int, target: int) -> bool:
    """Copy one piece; return False at the end: of a file, or of a terminal's last user (EIO)."""
    try:
        data = os.read(source, CHUNK)
        while data:
            data = data[os.write(target, data) :]
            if not data:
                return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Have each key of our terminal come through as it is, if stdin is one."""
    import termios
    import tty

    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _same_size(master: int) -> Iterator[None]:
    """Give the terminal our terminal's size, now and whenever that changes."""
    import termios

    def resize(*_: object) -> None:
        with contextlib.suppress(OSError):
            termios.tcsetwinsize(master, termios.tcgetwinsize(0))

    before = signal.signal(signal.SIGWINCH, resize)
    if os.isatty(0):
        resize()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
