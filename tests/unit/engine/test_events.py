"""The event stream's end, from another thread."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.engine.events import EventStream


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventStream]:
    monkeypatch.setenv("MINIRT_STATE", str(tmp_path))
    yield EventStream("cli")


def read(stream: EventStream) -> threading.Thread:
    """Read a stream in another thread."""
    thread = threading.Thread(target=lambda: list(stream.events()))
    thread.start()
    return thread


def test_a_reader_sees_the_end(stream: EventStream) -> None:
    thread = read(stream)
    stream.cancel()
    thread.join(5)
    assert not thread.is_alive()


def test_who_rings_at_the_end_or_later_writes_to_nobodys_descriptor(stream: EventStream) -> None:
    thread = read(stream)
    while thread.is_alive():
        stream.cancel()
    stream.cancel()
    stream.follow("sandbox")
