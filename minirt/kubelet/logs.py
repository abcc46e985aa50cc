"""Reading container logs as the runtime writes them, also while it writes them.

    <log directory of the pod>/<container>/<attempt>.log
    2026-01-02T03:04:05.123456789Z stdout F a whole line
    2026-01-02T03:04:06.000000000Z stderr P the beginning of a long one, █
    2026-01-02T03:04:06.000000001Z stderr F and its end

A file may be renamed and begun anew while it is read (rotation), and a restarted container goes on in the next file.

Source: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct, field

POLL_S = 0.1


class LogLine(Struct, frozen=True, order=True):
    """A line that a container wrote; ``at`` is RFC 3339 with nanoseconds in UTC, so that it sorts as text.

    ``text`` is UTF-8; what is none of it is kept as surrogates (PEP 383), so that every byte can be had again.
    """

    at: str
    container: str
    stream: str
    text: str


class ContainerLog(Struct):
    """One container's logs, read from where the last ``read`` ended."""

    container: str
    directory: Path
    _attempt: int = -1
    _file: BinaryIO | None = None
    _rest: bytes = b""
    _parts: dict[str, list[bytes]] = field(default_factory=dict)

    def read(self) -> Iterator[LogLine]:
        """Yield what has been written since: to this file, to the one that took its place, to the next attempt's."""
        yield from self._read_file()
        while path := self._next():
            if path.stem != str(self._attempt):
                yield from self._flush()
                self._attempt = int(path.stem)
            self._open(path)
            yield from self._read_file()

    def close(self) -> Iterator[LogLine]:
        """Yield lines whose end was never written, and close the file."""
        yield from self._flush()
        if self._file:
            self._file.close()
            self._file = None

    def _flush(self) -> Iterator[LogLine]:
        for stream in list(self._parts):
            yield self._line("", stream, b"")

    def _read_file(self) -> Iterator[LogLine]:
        while self._file and (data := self._file.read(1 << 16)):
            *records, self._rest = (self._rest + data).split(b"\n")
            for record in records:
                yield from self._record(record)

    def _next(self) -> Path | None:
        """Return what comes after the file that has been read to its end, if there is anything."""
        path = self.directory / f"{self._attempt}.log"
        if self._file and _is_another(path, self._file):
            return path
        following = [number for number in self._attempts() if number > self._attempt]
        return self.directory / f"{following[0]}.log" if following else None

    def _attempts(self) -> list[int]:
        names = os.listdir(self.directory) if self.directory.is_dir() else []
        stems = (name.removesuffix(".log") for name in names if name.endswith(".log"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def _open(self, path: Path) -> None:
        if self._file:
            self._file.close()
        self._file, self._rest = path.open("rb"), b""

    def _record(self, record: bytes) -> Iterator[LogLine]:
        """Take one record; yield a line if it is the end of one. What is no record at all is passed over."""
        fields = record.split(b" ", 3)
        if len(fields) != 4 or fields[1] not in (b"stdout", b"stderr"):
            return
        at, stream, tags, content = fields
        name = stream.decode()
        if tags.split(b":")[0] == b"P":
            self._parts.setdefault(name, [at]).append(content)
        else:
            yield self._line(at.decode(errors="replace"), name, content)

    def _line(self, at: str, stream: str, content: bytes) -> LogLine:
        """Return a line from its last part and those before it; its time is that of the first."""
        begun, *parts = self._parts.pop(stream, [at.encode()])
        text = b"".join((*parts, content)).decode(errors="surrogateescape")
        return LogLine(begun.decode(errors="replace"), self.container, stream, text)


def _is_another(path: Path, file: BinaryIO) -> bool:
    """Tell whether ``path`` names another file than the one that is open: it was rotated."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def read(directory: Path, containers: Iterable[str]) -> list[LogLine]:
    """Return all that the containers have written so far, in the order of time."""
    logs = [ContainerLog(name, directory / name) for name in containers]
    return sorted((line for log in logs for line in (*log.read(), *log.close())), key=lambda line: line.at)


def follow(
    directory: Path, containers: Iterable[str], over: threading.Event, poll_s: float = POLL_S
) -> Iterator[LogLine]:
    """Yield what the containers write, from the beginning, until ``over`` is set and all has been read.

    Lines that are found at the same time are in the order of time; ``poll_s`` is how long it looks away.
    """
    logs = [ContainerLog(name, directory / name) for name in containers]
    last_round = False
    try:
        while not last_round:
            last_round = over.wait(poll_s)
            yield from sorted((line for log in logs for line in log.read()), key=lambda line: line.at)
        for log in logs:
            yield from log.close()
    finally:
        for log in logs:
            list(log.close())
