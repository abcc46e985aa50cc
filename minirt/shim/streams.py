"""A container's output: read once, written to its log and to whoever is attached.

    pipe or terminal ──▶ Output ──▶ LogWriter
                                └─▶ Outlet …      a pipe to an attached client

A client that reads slowly holds the container back, as a terminal would; one that has gone is forgotten.
"""

import os
import select

from minirt.shim.logs import LogWriter
from minirt.shim.loop import Loop

CHUNK = 1 << 16


class Outlet:
    """A client's pipe, with what it has not taken yet."""

    def __init__(self, loop: Loop, fd: int) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._pending = b""
        self._output: Output | None = None
        self._closing = False
        self.gone = False

    @property
    def is_behind(self) -> bool:
        """Say whether the client must read before there can be more."""
        return bool(self._pending)

    def write(self, data: bytes, output: "Output") -> bool:
        """Write; return False when the client must read first, and resume ``output`` when it has."""
        self._pending += data
        self._output = output
        return self._flush()

    def _flush(self) -> bool:
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._fd, self._pending) :]
        except BlockingIOError:
            self._loop.forget(self._fd)
            self._loop.watch(self._fd, self._writable, select.EPOLLOUT)
            return False
        except BrokenPipeError:
            self._pending = b""
            self.gone = True
        return True

    def _writable(self) -> None:
        self._loop.forget(self._fd)
        if not self._flush():
            return
        if self._closing:
            os.close(self._fd)
        elif self._output:
            self._output.resume()

    def close(self) -> None:
        """Close the pipe, once what is pending has been taken. Call it once."""
        self._closing = True
        if not self._pending:
            self._loop.forget(self._fd)
            os.close(self._fd)


class Output:
    """One stream of a container: its stdout, its stderr, or its terminal."""

    def __init__(self, loop: Loop, fd: int, stream: str, log: LogWriter | None) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._stream = stream
        self._log = log
        self._outlets: list[Outlet] = []
        self._open = True
        self._watched = False
        self.resume()

    def attach(self, fd: int) -> None:
        """Copy what comes from now on to a client's pipe."""
        self._outlets.append(Outlet(self._loop, fd))

    def resume(self) -> None:
        """Read on, unless a client is behind."""
        self._drop_gone()
        if self._open and not self._watched and not any(outlet.is_behind for outlet in self._outlets):
            self._loop.watch(self._fd, self.read)
            self._watched = True

    def read(self) -> bool:
        """Move one chunk; return False when there is nothing more for now, or for ever."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last process has closed its side of the terminal
            data = b""
        if not data:
            self._pause()
            return False
        if self._log:
            self._log.write(self._stream, data)
        ready = [outlet.write(data, self) for outlet in self._outlets]
        self._drop_gone()
        if not all(ready):
            self._pause()
        return True

    def _drop_gone(self) -> None:
        for outlet in self._outlets:
            if outlet.gone:
                outlet.close()
        self._outlets = [outlet for outlet in self._outlets if not outlet.gone]

    def _pause(self) -> None:
        self._loop.forget(self._fd)
        self._watched = False

    def finish(self) -> None:
        """Move what is left in the pipe now that every writer has ended, and close."""
        while self.read():
            pass
        self._pause()
        self._open = False
        os.close(self._fd)
        for outlet in self._outlets:
            outlet.close()
        self._outlets = []
