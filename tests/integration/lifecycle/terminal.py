"""A terminal of the tests' own, with a command on it: what a person's terminal emulator is."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from types import TracebackType

DEADLINE_S = 60.0


class Terminal:
    """A pseudo-terminal that a command has as stdin, stdout, stderr and controlling terminal. A context manager."""

    def __init__(self, command: list[str], env: dict[str, str], lines: int = 24, columns: int = 80) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(lines, columns)
        self.before = termios.tcgetattr(self._slave)
        self.text = ""
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=_take_control,  # noqa: PLW1509  the tests have one thread
        )

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    def resize(self, lines: int, columns: int) -> None:
        """Make the window another size; the kernel tells the foreground process group (SIGWINCH)."""
        termios.tcsetwinsize(self._master, (lines, columns))

    def type(self, text: str) -> None:
        """Type, and read meanwhile what is shown: who types a lot must."""
        data = text.encode()
        while data:
            ready = select.select([self._master], [self._master], [], DEADLINE_S)
            if ready[0]:
                self._read()
            if ready[1]:
                data = data[os.write(self._master, data[:512]) :]

    def await_text(self, wanted: str) -> str:
        """Read until ``wanted`` has been shown since the last call; return what was, up to there."""
        deadline = time.monotonic() + DEADLINE_S
        while wanted not in self.text:
            if not self._read(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"{wanted!r} was not shown: {self.text!r}")
        shown, _, self.text = self.text.partition(wanted)
        return shown + wanted

    def await_end(self) -> int:
        """Read until the command ends; return its exit code. Unlike a pipe, a terminal is held open by us too."""
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.wait(0)

    def _read(self, timeout_s: float = 0.0) -> bool:
        """Read once; False when nothing came in time."""
        if not select.select([self._master], [], [], timeout_s)[0]:
            return False
        with contextlib.suppress(OSError):
            self.text += os.read(self._master, 1 << 16).decode(errors="replace")
        return True

    @property
    def is_raw(self) -> bool:
        """Say whether keys are passed on one by one, uninterpreted."""
        return not termios.tcgetattr(self._slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def is_restored(self) -> bool:
        """Say whether the terminal is as it was before the command."""
        return termios.tcgetattr(self._slave) == self.before


def _take_control() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
