"""A container's log, in the CRI's format: ``<RFC 3339 time> <stdout|stderr> <P|F> <content>``.

A line longer than 16 KiB is cut into P records and a last F; what a container leaves without a newline when it ends
gets an F record too. Source: containerd's and the kubelet's log format, design of "CRI: dockershim, container logging".
"""

import os
import time

MAX_LINE = 16 * 1024


class LogWriter:
    """Appends a container's output to its log. A full disk costs records, never the container: they are counted."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._partial = {"stdout": b"", "stderr": b""}
        try:
            self._fd = self._open()
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._fd = self._open()
        self.lost_bytes = 0

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def write(self, stream: str, data: bytes) -> None:
        """Append the whole lines of ``data``; keep the rest until its end comes."""
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        head = f"{_now()} {stream} ".encode()
        records = [record for line in lines for record in _records(head, line)]
        while len(rest) > MAX_LINE:  # a rest of exactly that much may still be a whole line
            records.append(head + b"P " + rest[:MAX_LINE] + b"\n")
            rest = rest[MAX_LINE:]
        self._partial[stream] = rest
        if records:
            self._append(b"".join(records))

    def _append(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                self.lost_bytes += len(data)
                return

    def reopen(self) -> None:
        """Close the file and open its path anew (it has been renamed)."""
        os.close(self._fd)
        self._fd = self._open()

    def close(self) -> None:
        """Write what has no newline, and close."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(f"{_now()} {stream} F ".encode() + rest + b"\n")
        os.close(self._fd)


def _records(head: bytes, line: bytes) -> list[bytes]:
    pieces = [line[at : at + MAX_LINE] for at in range(0, len(line), MAX_LINE)] or [b""]
    return [head + b"P " + piece + b"\n" for piece in pieces[:-1]] + [head + b"F " + pieces[-1] + b"\n"]


def _now() -> str:
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
