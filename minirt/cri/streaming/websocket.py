"""Channels over a WebSocket: the first byte of a message is its channel.

    "", channel.k8s.io    the error channel has a message, of failures only
    v4.channel.k8s.io     it has a Status, with the exit code; stdin ends with the connection
    v5.channel.k8s.io     and by 255, 0 before
    …base64.channel.k8s.io    messages are text: the channel is a digit, and what follows is in base64

``SPDY/3.1+portforward.k8s.io`` has no channels: it is a SPDY connection whose bytes come in messages (``Tunnel``).
The protocol itself is the websockets library's, without its own input and output.
Source: k8s.io/kubelet/pkg/cri/streaming; k8s.io/apimachinery/pkg/util/httpstream/wsstream; KEP 4006
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from minirt.cri.streaming import status
from minirt.cri.streaming.channels import CLOSE, ERROR, RESIZE, STDIN
from minirt.cri.streaming.pipes import CHUNK, Inlet

NONE, V1, V4, V5 = map(Subprotocol, ("", "channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"))
V1_BASE64, V4_BASE64 = Subprotocol("base64.channel.k8s.io"), Subprotocol("v4.base64.channel.k8s.io")
TUNNEL = Subprotocol("SPDY/3.1+portforward.k8s.io")
REMOTE = [V5, V4, V4_BASE64, V1, V1_BASE64, NONE]
"""Exec's and attach's, the best first."""
FORWARD = [V4, V4_BASE64, TUNNEL, NONE]
"""Port-forward's."""
LARGEST_MESSAGE = 1 << 20
ZERO = ord("0")


class Handshake(ServerProtocol):
    """Agrees on a subprotocol whose name need not be a token, as kubectl's is none; or on none, where "" is ours."""

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Return the first of ours that the client offers. Raises NegotiationError: it offers none of ours."""
        lines = headers.get_all("Sec-WebSocket-Protocol")
        offered = {word.strip() for line in lines for word in line.split(",")} - {""} or {""}
        for name in self.available_subprotocols or ():
            if name in offered:
                return name or None
        raise NegotiationError(f"none of {', '.join(self.available_subprotocols or ())} is offered")


class WebSocket:
    """A connection after its handshake: messages in, messages out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol: ServerProtocol
        self._message = bytearray()

    async def accept(self, head: bytes, subprotocols: list[Subprotocol]) -> bool:
        """Answer the handshake in ``head``; return False where it was refused."""
        self._protocol = Handshake(subprotocols=subprotocols, max_size=LARGEST_MESSAGE)
        self._protocol.receive_data(head)
        request = next((event for event in self._protocol.events_received() if isinstance(event, Request)), None)
        if request is None:
            raise ConnectionError(str(self._protocol.handshake_exc or "the handshake is none"))
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        await self._flush()
        return not isinstance(self._protocol.handshake_exc, InvalidHandshake)

    @property
    def subprotocol(self) -> str:
        """Return what was agreed on."""
        return self._protocol.subprotocol or ""

    @property
    def _is_open(self) -> bool:
        return self._protocol.state is State.OPEN

    @property
    def _is_text(self) -> bool:
        return self.subprotocol in (V1_BASE64, V4_BASE64)

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """Send a message. Raises ConnectionError: the other end has gone."""
        if not self._is_open:
            raise ConnectionResetError("the WebSocket is closed")
        (self._protocol.send_text if text else self._protocol.send_binary)(data)
        await self._flush()

    async def send_on(self, channel: int, data: bytes) -> None:
        """Send bytes of a channel. Raises ConnectionError: the other end has gone."""
        if self._is_text:
            await self.send(bytes([ZERO + channel]) + base64.b64encode(data), text=True)
        else:
            await self.send(bytes([channel]) + data)

    async def pieces(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield channel and bytes of what the other end sends. Raises ConnectionError: it is no base64."""
        async for message in self.messages():
            if not self._is_text:
                yield message[0], message[1:]
                continue
            try:
                yield message[0] - ZERO, base64.b64decode(message[1:], validate=True)
            except binascii.Error as error:
                raise ConnectionAbortedError(f"a message is no base64: {error}") from error

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield what the other end sends, until it closes; what is empty is passed over."""
        data = b"?"
        while data and self._is_open:
            data = await self._reader.read(CHUNK)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            frames = [event for event in self._protocol.events_received() if isinstance(event, Frame)]
            await self._flush()
            for frame in frames:
                if message := self._take(frame):
                    yield message

    def _take(self, frame: Frame) -> bytes:
        """Return a message if this frame completes it."""
        if frame.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            return b""
        self._message += frame.data
        if not frame.fin:
            return b""
        message, self._message = bytes(self._message), bytearray()
        return message

    async def close(self) -> None:
        """Say goodbye."""
        if self._is_open:
            self._protocol.send_close(1000)
            await self._flush()

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
        await self._writer.drain()


class Tunnel:
    """The bytes of a connection in a WebSocket's messages: read and written as asyncio's streams are."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._messages = socket.messages()
        self._unsent = bytearray()

    async def read(self, count: int) -> bytes:
        """Return the next message, whatever its size, b"" at the end."""
        return await anext(self._messages, b"")

    def write(self, data: bytes) -> None:
        """Have bytes sent by the next ``drain``."""
        self._unsent += data

    async def drain(self) -> None:
        """Send what was written. Raises ConnectionError: the other end has gone."""
        data, self._unsent = bytes(self._unsent), bytearray()
        await self._socket.send(data)


class WebSocketChannels:
    """The channels of an exec or attach on a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self.stdin = Inlet()
        self.resizes = Inlet()

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes of a channel. Raises ConnectionError: the other end has gone."""
        await self._socket.send_on(channel, data)

    async def finish(self, last: bytes) -> None:
        """Send the last word on the error channel, and close."""
        if self._socket.subprotocol not in (V4, V4_BASE64, V5):
            last = status.text_of(last)
        if last:
            await self.send(ERROR, last)
        await self._socket.close()

    async def read_on(self) -> None:
        """Take what comes from the other end until it has gone."""
        try:
            async for channel, data in self._socket.pieces():
                await self._take(channel, data)
        finally:
            await self.stdin.end()
            await self.resizes.end()

    async def _take(self, channel: int, data: bytes) -> None:
        if channel == STDIN:
            await self.stdin.put(data)
        elif channel == RESIZE:
            await self.resizes.put(data)
        elif channel == CLOSE and data == bytes([STDIN]) and self._socket.subprotocol == V5:
            await self.stdin.end()
