"""The terminal's side of a container: copy its output, give it input, pass on signals, until it ends.

One thread, one poll: the container's pipes (or its terminal), our stdin, and the shim's answer to Wait.
"""

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any

from minirt.errors import InvalidInput, MinirtError, from_wire
from minirt.shim.client import ShimClient

CHUNK = 1 << 16
JOB_CONTROL = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT}
"""These are between us and the shell that started us."""
NOT_FORWARDED = {signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP, *JOB_CONTROL}
FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}
DETACH = b"\x10\x11"
"""Ctrl-P Ctrl-Q: leave the container running, as in docker."""


class Detached(Exception):
    """The user has typed the detach keys."""


class Streams:
    """Copies between this process's stdio and a container's, and waits for the shim's answer.

    ``outputs`` maps our reading ends to where they go (1 or 2). ``entry`` takes the container's stdin, or is its
    terminal (-1: there is neither); only with ``stdin`` is ours copied to it. ``send_signal`` passes a signal on.
    With ``drain`` the end is the answer and what has been written by then: an exec'd command may leave children that
    hold its output open for ever.
    """

    def __init__(
        self,
        shim: ShimClient,
        outputs: dict[int, int],
        entry: int,
        *,
        terminal: bool,
        stdin: bool,
        send_signal: Callable[[int], None],
        drain: bool = False,
    ) -> None:
        self._shim = shim
        self._outputs = outputs
        self._entry = entry
        self._terminal = terminal
        self._stdin = stdin and entry >= 0
        self._send_signal = send_signal
        self._drain = drain
        self._poll = select.poll()
        self._typed = b""
        self._unsent = b""
        if entry >= 0:
            os.set_blocking(entry, False)

    def run(self, wait_id: int) -> dict[str, Any]:
        """Copy until the output has ended and the shim has answered request ``wait_id``; return the answer.

        Raises:
            Detached: the user left.
            MinirtError: what the shim answered.
        """
        with self._raw_terminal(), self._signals():
            return self._copy(wait_id)

    def _copy(self, wait_id: int) -> dict[str, Any]:
        for fd in (*self._outputs, self._shim.fileno(), *([0] if self._stdin else [])):
            self._poll.register(fd, select.POLLIN)
        answer: dict[str, Any] | None = None
        while answer is None or (self._outputs and not self._drain):
            for fd, _ in self._poll.poll():
                if fd == self._shim.fileno():
                    answer = self._answer(wait_id) or answer
                elif fd == self._wake:
                    self._pass_signals()
                elif fd == 0:
                    self._input()
                elif fd == self._entry:
                    self._send()
                else:
                    self._output(fd)
        for fd in list(self._outputs):
            os.set_blocking(fd, False)
            while self._output(fd):
                pass
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

    def _output(self, fd: int) -> bool:
        """Copy one piece; return False when there is nothing more for now, or for ever."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last process has closed its side of the terminal
            data = b""
        if data:
            write_all(self._outputs[fd], data)
            return True
        self._poll.unregister(fd)
        del self._outputs[fd]
        return False

    def _input(self) -> None:
        """Take what was typed. Until the container has taken it, too, we listen no more but go on to copy its output:
        it may wait for us to read before it reads.
        """
        try:
            data = os.read(0, CHUNK)
        except OSError:  # EIO: our terminal has hung up, or is another job's
            data = b""
        if self._terminal:
            data = self._without_detach(data)
        self._poll.unregister(0)
        if data:
            self._unsent = data
            self._poll.register(self._entry, select.POLLOUT)
        else:
            self._end_input()

    def _send(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._entry, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # EPIPE: nobody reads any more
            self._poll.unregister(self._entry)
            self._end_input()
            return
        if not self._unsent:
            self._poll.unregister(self._entry)
            self._poll.register(0, select.POLLIN)

    def _end_input(self) -> None:
        """Give the container its end of file; a terminal has none."""
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
        if not (self._terminal and self._stdin and os.isatty(0)):
            yield
            return
        before = termios.tcgetattr(0)
        try:
            tty.setraw(0)
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        size = window()
        if self._terminal and self._entry >= 0 and size:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetwinsize(self._entry, size)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Collect signals in a pipe for the poll: none is lost, and none interrupts a write.

        Those that we were started to ignore (nohup) stay ignored.
        """
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wake, select.POLLIN)
        candidates = [one for one in signal.valid_signals() - NOT_FORWARDED - FAULTS if one < signal.SIGRTMIN]
        chosen = [one for one in candidates if signal.getsignal(one) is not signal.SIG_IGN]
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
                self.resize()
            elif number != signal.SIGCHLD:
                with contextlib.suppress(MinirtError):
                    self._send_signal(number)


def end_on_signals() -> None:
    """Have SIGTERM and SIGHUP undo what is half done, as Ctrl-C does, until ``Streams`` passes them on."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def window() -> tuple[int, int] | None:
    """Return the lines and columns of our terminal, wherever of our stdio it is; None if it is nowhere."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            return size.lines, size.columns
    return None


def need_terminal() -> None:
    """Refuse to copy from a terminal that is none, as docker does.

    Raises:
        InvalidInput: our stdin is no terminal.
    """
    if not os.isatty(0):
        raise InvalidInput("attach a terminal", "our stdin is none", "leave out -t to pipe something in")


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
