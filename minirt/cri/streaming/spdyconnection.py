"""A connection that speaks SPDY/3.1: streams that the other end opens, each with bytes both ways."""

import asyncio
import contextlib
from typing import Protocol

from minirt.cri.streaming import spdy, status
from minirt.cri.streaming.channels import ERROR, RESIZE, STDERR, STDIN, STDOUT
from minirt.cri.streaming.pipes import CHUNK, Inlet

TYPES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
"""The header ``streamtype`` of an exec's streams."""


class Source(Protocol):
    """Where a connection's bytes come from."""

    async def read(self, count: int, /) -> bytes:
        """Return some bytes, b"" at the end."""
        ...


class Sink(Protocol):
    """Where they go."""

    def write(self, data: bytes, /) -> None:
        """Take bytes."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more."""
        ...


class Stream:
    """One stream; what the other end sends is in ``inlet``."""

    def __init__(self, connection: "SpdyConnection", number: int, headers: spdy.Headers) -> None:
        self.headers = headers
        self.inlet = Inlet()
        self._connection = connection
        self._number = number
        self._is_over = False

    async def send(self, data: bytes, *, fin: bool = False) -> None:
        """Send bytes, in pieces; ``fin``: the last ones. Raises ConnectionError: the other end has gone."""
        if self._is_over:
            return
        self._is_over = fin
        pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)] or [b""]
        for piece in pieces[:-1]:
            await self._connection.write(spdy.data(self._number, piece))
        await self._connection.write(spdy.data(self._number, pieces[-1], fin=fin))

    async def end(self) -> None:
        """Say that there will be no more."""
        with contextlib.suppress(ConnectionError):
            await self.send(b"", fin=True)


class SpdyConnection:
    """The server's end. Streams come out of ``opened``, and None at the end."""

    def __init__(self, reader: Source, writer: Sink) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = spdy.Encoder()
        self._streams: dict[int, Stream] = {}
        self.opened: asyncio.Queue[Stream | None] = asyncio.Queue()

    async def write(self, frame: bytes) -> None:
        """Send a frame. Raises ConnectionError: the other end has gone."""
        self._writer.write(frame)
        await self._writer.drain()

    async def read_on(self) -> None:
        """Take what comes from the other end until it has gone. Raises SpdyError: it makes no sense."""
        decoder = spdy.Decoder()
        try:
            while data := await self._reader.read(CHUNK):
                for frame in decoder.feed(data):
                    await self._take(frame)
        except ConnectionError:
            return
        finally:
            for stream in self._streams.values():
                await stream.inlet.end()
            await self.opened.put(None)

    async def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.Opened(number, headers, fin):
                stream = self._streams[number] = Stream(self, number, headers)
                await self.write(self._encoder.replied(number, {}))
                if fin:
                    await stream.inlet.end()
                await self.opened.put(stream)
            case spdy.Data(number, data, fin) if number in self._streams:
                await self._streams[number].inlet.put(data)
                if fin:
                    await self._streams[number].inlet.end()
            case spdy.Reset(number) if number in self._streams:
                await self._streams.pop(number).inlet.end()
            case spdy.Ping(number) if number % 2:
                await self.write(spdy.ping(number))

    async def goodbye(self) -> None:
        """Say that there will be no more streams."""
        with contextlib.suppress(ConnectionError):
            await self.write(spdy.goaway(max(self._streams, default=0)))


class SpdyChannels:
    """The channels of an exec or attach, each a stream that the other end has opened."""

    def __init__(self, connection: SpdyConnection, *, tells_status: bool) -> None:
        self._connection = connection
        self._tells_status = tells_status
        self._streams: dict[int, Stream] = {}
        self.stdin = Inlet()
        self.resizes = Inlet()

    async def await_streams(self, wanted: set[int]) -> None:
        """Wait until the other end has opened the streams of these channels. Raises ConnectionError: it has gone."""
        while not wanted <= self._streams.keys():
            stream = await self._connection.opened.get()
            if stream is None:
                raise ConnectionResetError("the client has gone before it opened its streams")
            kind = TYPES.get(stream.headers.get("streamtype", ""))
            if kind is not None:
                self._streams[kind] = stream
        self.stdin = self._streams[STDIN].inlet if STDIN in self._streams else self.stdin
        self.resizes = self._streams[RESIZE].inlet if RESIZE in self._streams else self.resizes

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes of a channel; one without a stream is dropped. Raises ConnectionError: the other end has gone."""
        if channel in self._streams:
            await self._streams[channel].send(data)

    async def finish(self, last: bytes) -> None:
        """End the outputs, and send the last word on the error channel."""
        for channel in (STDOUT, STDERR):
            if channel in self._streams:
                await self._streams[channel].end()
        await self._streams[ERROR].send(last if self._tells_status else status.text_of(last), fin=True)
        await self._connection.goodbye()

    async def read_on(self) -> None:
        """Wait until the other end has gone: what it sends is taken by the connection's reader."""
        while await self._connection.opened.get() is not None:
            pass
