"""A client of SPDY/3.1 as kubectl is one: it opens streams over an upgraded HTTP connection, and talks on them."""

import socket
import struct
import zlib
from typing import Any
from urllib.parse import urlsplit

from minirt.cri.streaming.dictionary import DICTIONARY


class Refused(Exception):
    """The server answered with an HTTP status other than 101."""


class SpdyClient:
    """One connection to a streaming URL."""

    def __init__(self, url: str, *protocols: str, method: str = "POST", timeout_s: float = 20.0) -> None:
        where = urlsplit(url)
        self.socket = socket.create_connection((where.hostname, where.port or 80), timeout_s)
        offered = "".join(f"X-Stream-Protocol-Version: {name}\r\n" for name in protocols)
        path = where.path + (f"?{where.query}" if where.query else "")
        head = f"{method} {path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: 0\r\n"
        self.socket.sendall(f"{head}Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{offered}\r\n".encode())
        self._file = self.socket.makefile("rb")
        self.status = self._file.readline().decode().strip()
        self.headers = {}
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        if " 101 " not in self.status:
            self.close()
            raise Refused(self.status)
        self.begin(self.socket, self._file)

    def begin(self, sink: Any, source: Any) -> None:
        """Speak SPDY from now on, by ``sink.sendall`` and ``source.read``."""
        self.socket, self._file = sink, source
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._next = 1
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.pings: list[int] = []

    def __enter__(self) -> "SpdyClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def open(self, **headers: str) -> int:
        """Open a stream; return its number."""
        number, self._next = self._next, self._next + 2
        plain = struct.pack(">I", len(headers))
        for pair in headers.items():
            for word in pair:
                plain += struct.pack(">I", len(word)) + word.encode()
        block = self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        body = struct.pack(">IIBB", number, 0, 0, 0) + block
        self.socket.sendall(struct.pack(">HHI", 0x8003, 1, len(body)) + body)
        self.received[number] = bytearray()
        return number

    def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        """Send bytes on a stream."""
        self.socket.sendall(struct.pack(">II", stream, (1 << 24 if fin else 0) | len(data)) + data)

    def ping(self, number: int) -> None:
        """Send a PING; its answer is in ``pings`` once it has been read."""
        self.socket.sendall(struct.pack(">HHII", 0x8003, 6, 4, number))

    def read_frame(self) -> bool:
        """Take one frame; return False at the end."""
        try:
            head = self._file.read(8)
        except ConnectionResetError:
            return False
        if len(head) < 8:
            return False
        first, second = struct.unpack(">II", head)
        body = self._file.read(second & 0xFFFFFF)
        if not first >> 31:
            self.received[first] += body
            if second >> 24 & 1:
                self.ended.add(first)
        elif first & 0xFFFF == 6:
            self.pings.append(struct.unpack(">I", body)[0])
        return True

    def read_until_end(self, *streams: int) -> None:
        """Take frames until these streams have ended."""
        while not set(streams) <= self.ended and self.read_frame():
            pass
        assert set(streams) <= self.ended, "the connection ended before its streams"

    def read_for(self, stream: int, text: bytes) -> None:
        """Take frames until a stream has brought ``text``."""
        while text not in self.received[stream]:
            assert self.read_frame(), f"the connection ended before {text!r}: {bytes(self.received[stream])!r}"
