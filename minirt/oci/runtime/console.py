"""The console socket: the terminal that a container's init made goes to whoever asked for it.

Source: https://github.com/opencontainers/runc/blob/main/docs/terminals.md, "Detached"
"""

import os
import socket

from minirt.errors import InvalidInput, StepFailed
from minirt.linux import fds


def check(terminal: bool, console_socket: str, *, detach: bool) -> None:
    """Refuse a terminal that nobody would get, and a socket that would get none.

    Raises:
        InvalidInput: the one without the other.
    """
    if terminal and not console_socket:
        how = "a detached container" if detach else "run"
        why = f"process.terminal is true, and {how} has no --console-socket"
        raise InvalidInput("make the container's terminal", why, "give one, or set process.terminal to false")
    if console_socket and not terminal:
        why = "--console-socket is given, and process.terminal is false"
        raise InvalidInput("make the container's terminal", why, "leave it out, or set process.terminal to true")


def hand_over(path: str, master: int) -> None:
    """Send a terminal's master to the one who listens at ``path``, with its name. Raises StepFailed: nobody does."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            fds.send(connection, os.fsencode(f"/dev/pts/{_number(master)}"), [master])
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
