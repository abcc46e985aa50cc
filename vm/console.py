"""Stand between the caller and a machine: copy its output, give it the terminal, learn how its command ended."""

import os
import selectors
import signal
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import inf
from types import FrameType

from machine import Job, Machine
from report import VmError, say

BOOT_TIMEOUT_S = 300.0
TIMED_OUT = 124  # as timeout(1) has it
CHUNK_BYTES = 65536
STDIN, STDOUT, STDERR = 0, 1, 2


class Ended(Exception):
    """The command ended; ``status`` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Session:
    """One command's conversation: which descriptor gets which port's bytes, and what the machine has said so far."""

    def __init__(self, machine: Machine, sinks: Mapping[str, int], timeout_s: float | None) -> None:
        self.machine = machine
        self.on_ready: Callable[[], None] = lambda: None
        self.sinks = sinks
        self.start = time.monotonic()
        self.timeout_s = timeout_s
        self.ready = False
        self.said = b""
        self.selector = selectors.DefaultSelector()
        for name in ("control", *sinks):
            self.selector.register(machine.ports[name], selectors.EVENT_READ, name)

    def follow(self) -> int:
        """Copy until the command ends; return its exit status, or 124 when its time is over.

        Raises VmError if the machine does not come up, or ends before the command.
        """
        try:
            while (time_left_s := self.time_left_s()) > 0:
                for key, _ in self.selector.select(None if time_left_s == inf else time_left_s):
                    self.take(key)
        except Ended as ended:
            return ended.status
        if self.limit_s != self.timeout_s:
            raise VmError(f"the machine did not come up in time. Its last words:\n{self.machine.last_words()}")
        say("the command did not end in time; the machine is stopped")
        return TIMED_OUT

    @property
    def limit_s(self) -> float:
        """Return how long all may take: what the caller allows, and until the machine is up no more than a boot."""
        limit_s = inf if self.timeout_s is None else self.timeout_s
        return limit_s if self.ready else min(limit_s, BOOT_TIMEOUT_S)

    def time_left_s(self) -> float:
        """Return how much of that is left."""
        return self.start + self.limit_s - time.monotonic()

    def take(self, key: selectors.SelectorKey) -> None:
        """Handle what one descriptor has to say."""
        if key.data == "stdin":
            self.type_keys(os.read(STDIN, CHUNK_BYTES))
        elif key.data == "control":
            self.hear(self.machine.ports["control"].recv(CHUNK_BYTES))
        elif data := self.machine.ports[key.data].recv(CHUNK_BYTES):
            write_all(self.sinks[key.data], data)
        else:
            self.selector.unregister(key.fileobj)

    def type_keys(self, keys: bytes) -> None:
        """Give the machine what was typed. Raises VmError when the terminal has gone."""
        if not keys:
            raise VmError("the terminal is gone, and the shell's machine with it")
        self.machine.ports["hvc0"].sendall(keys)

    def hear(self, data: bytes) -> None:
        """Take the machine's own words. Raises Ended at ``exit N``; VmError when it falls silent without that."""
        self.said += data
        *lines, self.said = self.said.split(b"\n")
        for line in lines:
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word == "ready":
                self.ready = True
                self.on_ready()
            elif word == "exit":
                self.drain()
                raise Ended(int(rest))
        if not data:
            self.drain()
            raise VmError(f"the machine ended before the command did. Its last words:\n{self.machine.last_words()}")

    def drain(self) -> None:
        """Copy the output that has already left the machine: all of it, for a write to a port waits for QEMU's."""
        for name, sink in self.sinks.items():
            port = self.machine.ports[name]
            port.setblocking(False)
            try:
                while data := port.recv(CHUNK_BYTES):
                    write_all(sink, data)
            except BlockingIOError:
                pass

    def send_window_size(self) -> None:
        """Tell the machine the size of our terminal."""
        columns, rows = os.get_terminal_size(STDIN)
        self.machine.ports["control"].sendall(f"{rows} {columns}\n".encode())


def converse(machine: Machine, job: Job) -> int:
    """Run the job's command or shell to its end and return its exit status. Raises VmError as ``Session.follow``."""
    if not job.shell:
        return Session(machine, {"out": STDOUT, "err": STDERR}, job.timeout_s).follow()
    session = Session(machine, {"hvc0": STDOUT}, job.timeout_s)
    with ExitStack() as stack:
        # Until the shell is there, Ctrl-C is for vm/run.
        session.on_ready = lambda: stack.enter_context(terminal_given_to(session))
        return session.follow()


@contextmanager
def terminal_given_to(session: Session) -> Iterator[None]:
    """Give the terminal's every key to the machine, and follow its size, until the context ends."""

    def resized(_signal: int, _frame: FrameType | None) -> None:
        session.send_window_size()

    before = termios.tcgetattr(STDIN)
    handler = signal.signal(signal.SIGWINCH, resized)
    try:
        tty.setraw(STDIN, termios.TCSADRAIN)  # keeps what was typed ahead
        session.selector.register(STDIN, selectors.EVENT_READ, "stdin")
        session.send_window_size()
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the bytes."""
    while data:
        data = data[os.write(descriptor, data) :]
