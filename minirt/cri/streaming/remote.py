"""Exec and attach: a process' descriptors on one side, channels of the network on the other."""

import asyncio
import contextlib
import json
import os
import termios
from collections.abc import Sequence
from dataclasses import dataclass

from minirt.cri.streaming import pipes, status
from minirt.cri.streaming.channels import STDERR, STDOUT, Channels
from minirt.engine import containers
from minirt.engine.records import ContainerRecord
from minirt.errors import MinirtError
from minirt.shim import protocol
from minirt.shim.client import ShimClient

CLOSING_S = 3.0
"""How long the other end may take to close after the last word."""


@dataclass
class Wanted:
    """What the caller of Exec or Attach has asked for. ``command`` empty is an attach."""

    container: ContainerRecord
    command: tuple[str, ...]
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool


@dataclass
class Process:
    """A process to talk to. ``wait_id`` is the shim's answer to wait for; without one its output's end is the end."""

    shim: ShimClient
    outputs: dict[int, int]
    entry: int
    terminal: bool
    wait_id: int | None = None

    def close(self) -> None:
        """Close all descriptors; what still writes to them gets SIGPIPE, and a terminal's users SIGHUP."""
        for fd in {*self.outputs, self.entry} - {-1}:
            os.close(fd)
        self.outputs, self.entry = {}, -1
        self.shim.close()


def begin(wanted: Wanted) -> Process:
    """Execute the command, or attach to the container. Blocks until that has happened.

    Raises:
        Conflict: the container does not run.
        CommandNotFound, NotExecutable: the command.
    """
    shim = ShimClient(wanted.container.sandbox_id)
    try:
        process = _exec(shim, wanted) if wanted.command else _attach(shim, wanted)
    except MinirtError:
        shim.close()
        raise
    for fd in {*process.outputs, process.entry} - {-1}:
        os.set_blocking(fd, False)
    return process


def _exec(shim: ShimClient, wanted: Wanted) -> Process:
    session = os.urandom(8).hex()
    spec = containers.exec_process(wanted.container, wanted.command, terminal=wanted.tty)
    request = protocol.Exec(container=wanted.container.id, session=session, process=spec)
    wait = protocol.Wait(container=wanted.container.id, session=session)
    if wanted.tty:
        _, (master,) = shim.call_with_fds(request)
        return Process(shim, {master: STDOUT}, os.dup(master), terminal=True, wait_id=shim.send(wait))
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        entry, stdin = _pipe_to(theirs, ours) if wanted.stdin else (_null(theirs), -1)
        stdout, out = _pipe_from(theirs, ours)
        stderr, err = _pipe_from(theirs, ours)
        shim.call(request, [entry, stdout, stderr])
        process = Process(shim, {out: STDOUT, err: STDERR}, stdin, terminal=False, wait_id=shim.send(wait))
        ours.pop_all()
        return process


def _attach(shim: ShimClient, wanted: Wanted) -> Process:
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        pairs = [_pipe_from(theirs, ours) for _ in range(1 if wanted.tty else 2)]
        request = protocol.Attach(
            container=wanted.container.id, once=wanted.stdin and wanted.container.config.stdin_once
        )
        answer, received = shim.call_with_fds(request, [end for end, _ in pairs])
        outputs = {out: channel for (_, out), channel in zip(pairs, (STDOUT, STDERR), strict=False)}
        ours.pop_all()
        return Process(shim, outputs, received[0] if received else -1, terminal=bool(answer["terminal"]))


def _pipe_from(theirs: contextlib.ExitStack, ours: contextlib.ExitStack) -> tuple[int, int]:
    """Return (the end the process writes to, ours to read)."""
    read, write = os.pipe2(os.O_CLOEXEC)
    theirs.callback(os.close, write)
    ours.callback(os.close, read)
    return write, read


def _pipe_to(theirs: contextlib.ExitStack, ours: contextlib.ExitStack) -> tuple[int, int]:
    """Return (the end the process reads, ours to write)."""
    read, write = os.pipe2(os.O_CLOEXEC)
    theirs.callback(os.close, read)
    ours.callback(os.close, write)
    return read, write


def _null(theirs: contextlib.ExitStack) -> int:
    fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    theirs.callback(os.close, fd)
    return fd


async def run(wanted: Wanted, channels: Channels) -> None:
    """Execute or attach, and talk until it is over or the other end has gone. Raises ConnectionError: it has gone."""
    try:
        process = await asyncio.to_thread(begin, wanted)
    except (MinirtError, OSError) as error:
        await channels.finish(status.of_error(str(error)))
        return
    try:
        await _talk(process, wanted, channels)
    finally:
        process.close()


async def _talk(process: Process, wanted: Wanted, channels: Channels) -> None:
    shown = _shown(wanted)
    outputs = [asyncio.create_task(_output(fd, channel, shown, channels)) for fd, channel in process.outputs.items()]
    inputs = [asyncio.create_task(_input(process, wanted, channels))]
    inputs += [asyncio.create_task(_resize(process.entry, channels))] if process.terminal else []
    leaving = asyncio.create_task(channels.read_on())
    ending = asyncio.create_task(_ending(process, outputs))
    try:
        await asyncio.wait({leaving, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            last = ending.result()
            await _cancelled(outputs)
            await _drain(process, shown, channels)
            await channels.finish(last)
            await asyncio.wait({leaving}, timeout=CLOSING_S)
    finally:
        await _cancelled([*outputs, *inputs, leaving, ending])


def _shown(wanted: Wanted) -> set[int]:
    return {channel for channel, asked in ((STDOUT, wanted.stdout), (STDERR, wanted.stderr)) if asked}


async def _cancelled(tasks: Sequence["asyncio.Task[None] | asyncio.Task[bytes]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _output(fd: int, channel: int, shown: set[int], channels: Channels) -> None:
    """Send what a process writes until it has closed its end; what nobody asked for is read and dropped."""
    while data := await pipes.read(fd):
        if channel in shown:
            await channels.send(channel, data)


async def _drain(process: Process, shown: set[int], channels: Channels) -> None:
    """Send what has been written by now: something the process left behind may hold its output open for ever."""
    for fd, channel in process.outputs.items():
        while data := pipes.read_now(fd):
            if channel in shown:
                await channels.send(channel, data)


async def _input(process: Process, wanted: Wanted, channels: Channels) -> None:
    """Give the process what the other end sends; then its end of file, unless that is a terminal's."""
    if not wanted.stdin or process.entry < 0:
        return
    while data := await channels.stdin.get():
        if not await pipes.write(process.entry, data):
            return
    if not process.terminal:
        os.close(process.entry)
        process.entry = -1


async def _resize(terminal: int, channels: Channels) -> None:
    """Give the terminal each size that comes: {"Width": columns, "Height": lines}, one after the other."""
    waiting = ""
    while data := await channels.resizes.get():
        waiting += data.decode(errors="replace")
        while (size := _first_of(waiting)) is not None:
            found, waiting = size
            with contextlib.suppress(OSError, termios.error, KeyError, TypeError, ValueError):
                termios.tcsetwinsize(terminal, (int(found["Height"]), int(found["Width"])))


def _first_of(text: str) -> tuple[dict[str, int], str] | None:
    """Return the first whole JSON value and the rest; None where there is none yet."""
    text = text.lstrip()
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    return found, text[end:]


async def _ending(process: Process, outputs: list["asyncio.Task[None]"]) -> bytes:
    """Return the last word: the exit of an exec'd command; of an attach that there is no more output."""
    if process.wait_id is None:
        await asyncio.gather(*outputs)
        return status.success()
    while True:
        await pipes.readable(process.shim.fileno())
        try:
            told = process.shim.next_event()
        except MinirtError as error:
            return status.of_error(str(error))
        if told.get("id") == process.wait_id:
            return status.of_exit(told["ok"]["exit_code"])
