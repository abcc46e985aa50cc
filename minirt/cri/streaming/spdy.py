"""SPDY/3.1 frames, as far as Kubernetes' streaming uses them. Pure: bytes in, frames out, and back.

    control   1 | version 3 (15) | type (16) | flags (8) | length (24) | …
    data      0 | stream id (31)             | flags (8) | length (24) | bytes

The names and values of SYN_STREAM, SYN_REPLY and HEADERS are compressed by one zlib stream for each direction of the
connection, which begins with a fixed dictionary. Windows are not kept: the peers (moby/spdystream) open none.
Source: SPDY draft 3.1, sections 2.2 to 2.6; https://github.com/moby/spdystream
"""

import zlib
from collections.abc import Iterator

from msgspec import Struct

from minirt.cri.streaming.dictionary import DICTIONARY

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1
LARGEST_FRAME = 1 << 20
"""Bytes of a frame that is taken; clients send data in pieces of 32 KiB."""
LARGEST_HEADERS = 1 << 16
"""Bytes of names and values of one frame, uncompressed."""

Headers = dict[str, str]


class SpdyError(Exception):
    """The other end does not speak SPDY/3.1."""


class Opened(Struct, frozen=True):
    """SYN_STREAM: the other end opens a stream."""

    stream: int
    headers: Headers
    fin: bool


class Replied(Struct, frozen=True):
    """SYN_REPLY: the other end has taken our stream."""

    stream: int
    headers: Headers


class Data(Struct, frozen=True):
    """Bytes of a stream; ``fin``: the last ones."""

    stream: int
    data: bytes
    fin: bool


class Reset(Struct, frozen=True):
    """RST_STREAM: the other end gives a stream up."""

    stream: int


class Ping(Struct, frozen=True):
    """To be sent back, if its number is the other end's."""

    number: int


class GoAway(Struct, frozen=True):
    """No more streams will be opened."""


Frame = Opened | Replied | Data | Reset | Ping | GoAway


class Decoder:
    """Cuts what one end sends into frames."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take some bytes; yield the frames that are whole now. What is of no use here is passed over.

        Raises:
            SpdyError: this is no SPDY/3.1, or too large.
        """
        self._waiting += data
        while len(self._waiting) >= 8:
            length = int.from_bytes(self._waiting[5:8], "big")
            if length > LARGEST_FRAME:
                raise SpdyError(f"a frame of {length} bytes is more than {LARGEST_FRAME}")
            if len(self._waiting) < 8 + length:
                return
            head, body = bytes(self._waiting[:8]), bytes(self._waiting[8 : 8 + length])
            del self._waiting[: 8 + length]
            frame = self._frame(head, body)
            if frame:
                yield frame

    def _frame(self, head: bytes, body: bytes) -> Frame | None:
        first, fin = int.from_bytes(head[:4], "big"), bool(head[4] & FIN)
        if not first >> 31:
            return Data(_stream(head[:4]), body, fin)
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != VERSION:
            raise SpdyError(f"version {version} is not {VERSION}")
        return self._control(kind, body, fin=fin)

    def _control(self, kind: int, body: bytes, *, fin: bool) -> Frame | None:
        frame: Frame | None = None
        if kind == SYN_STREAM:
            frame = Opened(_stream(_long_enough(body, 10)), self._headers(body[10:]), fin)
        elif kind == SYN_REPLY:
            frame = Replied(_stream(_long_enough(body, 4)), self._headers(body[4:]))
        elif kind == RST_STREAM:
            frame = Reset(_stream(_long_enough(body, 8)))
        elif kind == PING:
            frame = Ping(int.from_bytes(_long_enough(body, 4)[:4], "big"))
        elif kind == GOAWAY:
            frame = GoAway()
        elif kind == HEADERS:
            self._headers(_long_enough(body, 4)[4:])  # for the sake of the compression's state
        return frame

    def _headers(self, block: bytes) -> Headers:
        try:
            plain = self._inflate.decompress(block, LARGEST_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"headers cannot be decompressed: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"headers are more than {LARGEST_HEADERS} bytes")
        return dict(_pairs(plain))


def _stream(word: bytes) -> int:
    return int.from_bytes(word[:4], "big") & 0x7FFFFFFF


def _long_enough(body: bytes, count: int) -> bytes:
    """Return ``body``. Raises SpdyError: it has less than ``count`` bytes."""
    if len(body) < count:
        raise SpdyError(f"a frame of {len(body)} bytes is too short")
    return body


def _pairs(plain: bytes) -> Iterator[tuple[str, str]]:
    """Yield names, in small letters, and values: a count, then each with its length before it."""
    at = 0

    def word() -> bytes:
        nonlocal at
        length = int.from_bytes(plain[at : at + 4], "big")
        at += 4 + length
        if at > len(plain):
            raise SpdyError("headers end within a word")
        return plain[at - length : at]

    if len(plain) < 4:
        raise SpdyError("headers have no count")
    count, at = int.from_bytes(plain[:4], "big"), 4
    for _ in range(count):
        name, value = word(), word()
        yield name.decode("latin-1").lower(), value.decode("latin-1")


class Encoder:
    """Makes the frames that one end sends. Headers must go out in the order they are made in."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def opened(self, stream: int, headers: Headers, *, fin: bool = False) -> bytes:
        """Return a SYN_STREAM."""
        return _control(SYN_STREAM, stream.to_bytes(4, "big") + bytes(6) + self._block(headers), fin=fin)

    def replied(self, stream: int, headers: Headers) -> bytes:
        """Return a SYN_REPLY."""
        return _control(SYN_REPLY, stream.to_bytes(4, "big") + self._block(headers))

    def _block(self, headers: Headers) -> bytes:
        words = [word.encode("latin-1") for pair in headers.items() for word in pair]
        plain = len(headers).to_bytes(4, "big") + b"".join(len(word).to_bytes(4, "big") + word for word in words)
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def data(stream: int, content: bytes, *, fin: bool = False) -> bytes:
    """Return a data frame."""
    return stream.to_bytes(4, "big") + bytes([FIN if fin else 0]) + len(content).to_bytes(3, "big") + content


def ping(number: int) -> bytes:
    """Return a PING."""
    return _control(PING, number.to_bytes(4, "big"))


def goaway(last: int) -> bytes:
    """Return a GOAWAY: all is well, and ``last`` was the last stream taken."""
    return _control(GOAWAY, last.to_bytes(4, "big") + bytes(4))


def _control(kind: int, body: bytes, *, fin: bool = False) -> bytes:
    head = (1 << 31 | VERSION << 16 | kind).to_bytes(4, "big")
    return head + bytes([FIN if fin else 0]) + len(body).to_bytes(3, "big") + body
