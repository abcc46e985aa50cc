"""Port-forward: connections of the other end, each to a port on a pod's localhost.

SPDY        each connection a pair of streams, data and error, with the same requestid
WebSocket   each port two channels, data and error, that begin with the port (16 bits, little endian);
            or a tunnel, in which SPDY is spoken
"""

import asyncio
import contextlib
import os
import socket
import threading

from minirt import paths
from minirt.cri.streaming.pipes import CHUNK
from minirt.cri.streaming.spdyconnection import SpdyConnection, Stream
from minirt.cri.streaming.websocket import WebSocket
from minirt.engine.records import SandboxRecord
from minirt.linux import process
from minirt.pod.sandbox import pin_path

LOCALHOST = ("127.0.0.1", "::1")
CONNECT_S = 10.0


def connect(sandbox: SandboxRecord, port: int) -> socket.socket:
    """Return a connection to a port on a pod's localhost. Blocks.

    A socket belongs for ever to the network namespace it was made in: a thread of its own enters the pod's, makes the
    socket, and ends. Source: setns(2), of which the namespace of the network is one thread's.

    Raises:
        OSError: nobody listens.
    """
    if sandbox.config.network == "host":
        return _connected(port)
    found: list[socket.socket] = []
    failed: list[OSError] = []

    def inside() -> None:
        try:
            netns = os.open(pin_path(str(paths.sandbox_dir(sandbox.id)), "network"), os.O_RDONLY | os.O_CLOEXEC)
            try:
                process.setns(netns, process.CLONE_NEWNET)
            finally:
                os.close(netns)
            found.append(_connected(port))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=inside, name="port-forward")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _connected(port: int) -> socket.socket:
    try:
        return socket.create_connection((LOCALHOST[0], port), CONNECT_S)
    except OSError:
        with contextlib.suppress(OSError):
            return socket.create_connection((LOCALHOST[1], port), CONNECT_S)
        raise


async def over_spdy(sandbox: SandboxRecord, connection: SpdyConnection) -> None:
    """Serve the connections that the other end opens, until it has gone."""
    halves: dict[str, dict[str, Stream]] = {}
    tasks: set[asyncio.Task[None]] = set()
    try:
        while stream := await connection.opened.get():
            number = stream.headers.get("requestid", stream.headers.get("port", ""))
            pair = halves.setdefault(number, {})
            pair[stream.headers.get("streamtype", "")] = stream
            if {"data", "error"} <= pair.keys():
                del halves[number]
                task = asyncio.create_task(_pair(sandbox, pair["data"], pair["error"]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    finally:
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pair(sandbox: SandboxRecord, data: Stream, error: Stream) -> None:
    with contextlib.suppress(ConnectionError):
        try:
            reader, writer = await _open(sandbox, data.headers.get("port", ""))
        except (OSError, ValueError) as failed:
            await error.send(_why(data.headers.get("port", ""), failed), fin=True)
            await data.end()
            return
        try:
            await asyncio.gather(_to_pod(data, writer), _from_pod(reader, data))
        finally:
            writer.close()
            await error.end()


async def _open(sandbox: SandboxRecord, port: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{port!r} is not a port")
    connected = await asyncio.to_thread(connect, sandbox, int(port))
    connected.setblocking(False)
    return await asyncio.open_connection(sock=connected)


def _why(port: str, failed: Exception) -> bytes:
    return f"cannot forward to port {port} of the pod: {failed}".encode()


async def _to_pod(data: Stream, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await data.inlet.get():
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def _from_pod(reader: asyncio.StreamReader, data: Stream) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(CHUNK):
            await data.send(piece)
    await data.end()


async def over_websocket(sandbox: SandboxRecord, ports: tuple[int, ...], connection: WebSocket) -> None:
    """Connect to each port, and copy both ways until the other end has gone, or the pod has ended all connections."""
    writers: dict[int, asyncio.StreamWriter] = {}
    tasks: list[asyncio.Task[None]] = []
    try:
        for number, port in enumerate(ports):
            for channel in (2 * number, 2 * number + 1):
                await connection.send_on(channel, port.to_bytes(2, "little"))
            try:
                reader, writers[2 * number] = await _open(sandbox, str(port))
            except OSError as failed:
                await connection.send_on(2 * number + 1, _why(str(port), failed))
                continue
            tasks.append(asyncio.create_task(_to_websocket(reader, 2 * number, connection)))
        tasks.append(asyncio.create_task(_close_after(list(tasks), connection)))
        async for channel, data in connection.pieces():
            if channel in writers:
                writers[channel].write(data)
                with contextlib.suppress(ConnectionError):
                    await writers[channel].drain()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers.values():
            writer.close()


async def _close_after(tasks: list["asyncio.Task[None]"], connection: WebSocket) -> None:
    """Say goodbye when nothing more will come: a channel has no end of its own."""
    await asyncio.gather(*tasks, return_exceptions=True)
    await connection.close()


async def _to_websocket(reader: asyncio.StreamReader, channel: int, connection: WebSocket) -> None:
    while piece := await reader.read(CHUNK):
        await connection.send_on(channel, piece)
