"""Unix sockets, most of which keep each message whole (SOCK_SEQPACKET); they carry descriptors.

They come from the module that ``socket`` is made of: to import that one takes 2 ms, for enums and selectors, of the 35
that a start of ``minirt-oci`` has. A ``socket.socket`` is a ``_socket.socket`` too: either can be sent on here.

Source: unix(7), cmsg(3), https://docs.python.org/3/library/socket.html
"""

import _socket
import sys

INT_BYTES = 4


class Socket(_socket.socket):
    """A socket that a ``with`` block closes."""

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def seqpacket() -> Socket:
    """Return a new socket, to bind or to connect."""
    return Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def stream() -> Socket:
    """Return a new one that keeps no messages whole: those who listen for descriptors expect such."""
    return Socket(_socket.AF_UNIX, _socket.SOCK_STREAM)


def pair() -> tuple[Socket, Socket]:
    """Return the two ends of a new pair."""
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return Socket(fileno=one.detach()), Socket(fileno=other.detach())


def accept(listener: int) -> Socket:
    """Wait for a caller on the listening socket behind a descriptor; return the connection."""
    waiting = Socket(fileno=listener)
    try:
        return Socket(fileno=waiting._accept()[0])  # type: ignore[attr-defined]  # socket.accept() is made of it
    finally:
        waiting.detach()


def send(to: _socket.socket, data: bytes, fds: list[int] | None = None) -> None:
    """Send one message with descriptors. Raises OSError: BrokenPipeError, the other end is closed."""
    if fds:
        numbers = b"".join(fd.to_bytes(INT_BYTES, sys.byteorder) for fd in fds)
        to.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
    else:
        to.send(data)


def receive(source: _socket.socket, limit: int = 1 << 18, max_fds: int = 8) -> tuple[bytes, list[int]]:
    """Return one message and its descriptors (close-on-exec); b"" at the end of the stream."""
    room = _socket.CMSG_SPACE(max_fds * INT_BYTES)
    data, ancillary, _, _ = source.recvmsg(limit, room, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            whole = len(content) - len(content) % INT_BYTES
            fds += (int.from_bytes(content[at : at + INT_BYTES], sys.byteorder) for at in range(0, whole, INT_BYTES))
    return data, fds
