"""Channels over a WebSocket: the first byte of a message is its channel.

    v4.channel.k8s.io    stdin ends with the connection
    v5.channel.k8s.io    and by 255, 0 before

The protocol itself is the websockets library's, without its own input and output.
"""

import asyncio
from collections.abc import AsyncIterator

from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from minirt.cri.streaming.channels import CLOSE, ERROR, RESIZE, STDIN
from minirt.cri.streaming.pipes import CHUNK, Inlet

V4, V5 = Subprotocol("v4.channel.k8s.io"), Subprotocol("v5.channel.k8s.io")
LARGEST_MESSAGE = 1 << 20


class WebSocket:
    """A connection after its handshake: messages in, messages out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol: ServerProtocol
        self._message = bytearray()

    async def accept(self, head: bytes, subprotocols: list[Subprotocol]) -> bool:
        """Answer the handshake in ``head``; return False where it was refused."""
        self._protocol = ServerProtocol(subprotocols=subprotocols, max_size=LARGEST_MESSAGE)
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

    async def send(self, data: bytes) -> None:
        """Send a binary message. Raises ConnectionError: the other end has gone."""
        if not self._is_open:
            raise ConnectionResetError("the WebSocket is closed")
        self._protocol.send_binary(data)
        await self._flush()

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


class WebSocketChannels:
    """The channels of an exec or attach on a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self.stdin = Inlet()
        self.resizes = Inlet()

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes of a channel. Raises ConnectionError: the other end has gone."""
        await self._socket.send(bytes([channel]) + data)

    async def finish(self, status: bytes) -> None:
        """Send the last word on the error channel, and close."""
        await self.send(ERROR, status)
        await self._socket.close()

    async def read_on(self) -> None:
        """Take what comes from the other end until it has gone."""
        try:
            async for message in self._socket.messages():
                await self._take(message[0], message[1:])
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
