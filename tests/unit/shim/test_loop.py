"""The shim's loop, with real pipes and children. It takes this process's SIGCHLD, which is given back."""

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.shim.logs import LogWriter
from minirt.shim.loop import Loop
from minirt.shim.streams import Output


@pytest.fixture
def ended() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def loop(ended: list[tuple[int, int]]) -> Iterator[Loop]:
    before = signal.getsignal(signal.SIGCHLD)
    made = Loop(lambda pid, code: ended.append((pid, code)))
    yield made
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, before)
    for fd in (made._wake_r, made._wake_w):
        os.close(fd)
    made._epoll.close()


def test_a_descriptor_that_is_ready(loop: Loop) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    loop.watch(reader, loop.stop)
    loop.run()
    loop.forget(reader)
    loop.forget(reader)
    os.close(reader)
    os.close(writer)


def test_timers_in_the_order_of_their_time_and_not_the_cancelled(loop: Loop) -> None:
    fired: list[str] = []
    loop.after(0.02, lambda: (fired.append("second"), loop.stop()))
    loop.after(0.01, lambda: fired.append("first"))
    loop.after(0.005, lambda: fired.append("never")).cancel()
    begun = time.monotonic()
    loop.run()
    assert fired == ["first", "second"]
    assert time.monotonic() - begun >= 0.02


@pytest.mark.parametrize(("end", "code"), [("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)])
def test_children_with_their_codes(loop: Loop, ended: list[tuple[int, int]], end: str, code: int) -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", end], {})
    loop._on_child = lambda *exit_: (ended.append(exit_), loop.stop())
    loop.run()
    assert ended == [(pid, code)]


def test_output_is_read_once_and_goes_to_log_and_clients(loop: Loop, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    log = LogWriter(tmp_path / "log")
    output = Output(loop, reader, "stdout", log)
    seen, client = os.pipe()
    output.attach(client)
    os.write(writer, b"hello\n")
    loop.after(0.01, loop.stop)
    loop.run()
    os.write(writer, b"and goodbye\n")
    os.close(writer)
    output.finish()
    log.close()
    with open(seen) as said:
        assert said.read() == "hello\nand goodbye\n"
    assert [line.split(" ", 3)[3] for line in (tmp_path / "log").read_text().splitlines()] == ["hello", "and goodbye"]


def test_a_client_that_has_gone_does_not_hold_the_others(loop: Loop) -> None:
    reader, writer = os.pipe()
    output = Output(loop, reader, "stdout", None)
    for _ in range(2):
        seen, client = os.pipe()
        output.attach(client)
        os.close(seen)
    seen, client = os.pipe()
    output.attach(client)
    os.write(writer, b"x" * 1000)
    os.close(writer)
    output.finish()
    assert len(os.read(seen, 2000)) == 1000
    os.close(seen)


def test_a_client_that_reads_slowly_holds_the_container_back_and_gets_everything(loop: Loop) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    output = Output(loop, reader, "stdout", None)
    seen, client = os.pipe()
    output.attach(client)
    written = _fill(writer)
    loop.after(0.01, loop.stop)
    loop.run()
    written += _fill(writer)
    os.close(writer)
    loop._running = True
    got = bytearray()
    loop.watch(seen, lambda: _take(seen, got, written, loop), select.EPOLLIN)
    loop.run()
    loop.forget(seen)
    output.finish()
    os.close(seen)
    assert len(got) == written


def _fill(writer: int) -> int:
    count = 0
    try:
        while True:
            count += os.write(writer, b"y" * 4096)
    except BlockingIOError:
        return count


def _take(seen: int, got: bytearray, wanted: int, loop: Loop) -> None:
    got += os.read(seen, 1 << 16)
    if len(got) >= wanted:
        loop.stop()
