"""The terminal's side of a container: copy its output, give it input, pass on signals, until it ends.

One thread, one poll: the container's pipes (or its terminal), our stdin, and the shim's answer to Wait.
"""

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any

from minirt.errors import MinirtError, from_wire
from minirt.shim.client import ShimClient

CHUNK = 1 << 16
NOT_FORWARDED = {signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH, signal.SIGKILL, signal.SIGSTOP}
DETACH = b"\x10\x11"
"""Ctrl-P Ctrl-Q: leave the container running, as in docker."""


class Detached(Exception):
    """The user has typed the detach keys."""


class Streams:
    """Copies between this process's stdio and a container's, and waits for the shim's answer.

    ``outputs`` maps our reading ends to where they go (1 or 2); ``entry`` takes stdin (-1: the container has none);
    ``send_signal`` passes a signal on.
    """

    def __init__(
        self,
        shim: ShimClient,
        outputs: dict[int, int],
        entry: int,
        *,
        terminal: bool,
        send_signal: Callable[[int], None],
    ) -> None:
        self._shim = shim
        self._outputs = outputs
        self._entry = entry
        self._terminal = terminal
        self._send_signal = send_signal
        self._poll = select.poll()
        self._typed = b""

    def run(self, wait_id: int) -> dict[str, Any]:
        """Copy until the output has ended and the shim has answered request ``wait_id``; return the answer.

        Raises:
            Detached: the user left.
            MinirtError: what the shim answered.
        """
        with self._raw_terminal(), self._signals():
            return self._copy(wait_id)

    def _copy(self, wait_id: int) -> dict[str, Any]:
        for fd in (*self._outputs, self._shim.fileno(), *([0] if self._entry >= 0 else [])):
            self._poll.register(fd, select.POLLIN)
        answer: dict[str, Any] | None = None
        while answer is None or self._outputs:
            for fd, _ in self._poll.poll():
                if fd == self._shim.fileno():
                    answer = self._answer(wait_id) or answer
                elif fd == self._wake:
                    self._pass_signals()
                elif fd == 0:
                    self._input()
                else:
                    self._output(fd)
        return answer

    def _answer(self, wait_id: int) -> dict[str, Any] | None:
        event = self._shim.next_event()
        if event.get("id") != wait_id:
            return None
        self._poll.unregister(self._shim.fileno())
        if event["error"] is not None:
            raise from_wire(event["error"])
        ok: dict[str, Any] = event["ok"]
        return ok

    def _output(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except OSError:  # EIO: the last process has closed its side of the terminal
            data = b""
        if data:
            write_all(self._outputs[fd], data)
            return
        self._poll.unregister(fd)
        del self._outputs[fd]

    def _input(self) -> None:
        data = os.read(0, CHUNK)
        if self._terminal:
            data = self._without_detach(data)
        try:
            if data:
                write_all(self._entry, data)
                return
        except OSError:
            data = b""  # nobody reads any more
        self._poll.unregister(0)
        if not self._terminal:
            os.close(self._entry)
            self._entry = -1

    def _without_detach(self, data: bytes) -> bytes:
        self._typed = (self._typed + data)[-2:]
        if self._typed == DETACH:
            raise Detached
        return data

    @contextlib.contextmanager
    def _raw_terminal(self) -> Iterator[None]:
        if not (self._terminal and self._entry >= 0 and os.isatty(0)):
            yield
            return
        before = termios.tcgetattr(0)
        try:
            tty.setraw(0)
            self._resize()
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)

    def _resize(self) -> None:
        if self._terminal and self._entry >= 0 and os.isatty(0):
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._entry, termios.TIOCSWINSZ, size)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Collect signals in a pipe for the poll: none is lost, and none interrupts a write."""
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wake, select.POLLIN)
        forwarded = [one for one in signal.valid_signals() if one not in NOT_FORWARDED and one < signal.SIGRTMIN]
        faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}
        chosen = [one for one in forwarded if one not in faults] + [signal.SIGWINCH]
        before = {one: signal.signal(one, lambda *_: None) for one in chosen}
        wakeup = signal.set_wakeup_fd(write)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for one, handler in before.items():
                signal.signal(one, handler)
            os.close(self._wake)
            os.close(write)

    def _pass_signals(self) -> None:
        for number in os.read(self._wake, 512):
            if number == signal.SIGWINCH:
                self._resize()
            elif number != signal.SIGCHLD:
                with contextlib.suppress(MinirtError):
                    self._send_signal(number)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, however often it takes."""
    while data:
        data = data[os.write(fd, data) :]


def output_pipes(terminal: bool) -> tuple[dict[int, int], list[int]]:
    """Return ({our reading end: 1 or 2}, the writing ends to send to the shim)."""
    outputs, ends = {}, []
    for target in (1,) if terminal else (1, 2):
        read, write = os.pipe2(os.O_CLOEXEC)
        outputs[read] = target
        ends.append(write)
    return outputs, ends


def flush_own() -> None:
    """Write out what Python has buffered before the container's output follows."""
    sys.stdout.flush()
    sys.stderr.flush()
