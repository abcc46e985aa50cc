"""The streaming server: what Exec, Attach and PortForward return is a URL here, good for one request.

    caller ── Exec ──▶ http://127.0.0.1:40123/exec/<token>
    caller ── POST, Upgrade: SPDY/3.1 (or GET, Upgrade: websocket) ──▶ 101 ── bytes both ways

It listens on loopback, as containerd's does: a kubelet is on the same node, and passes on what comes from elsewhere. A
token is 128 random bits, and forgotten when it is used or a minute old.
"""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Awaitable

from msgspec import Struct

from minirt.cri.streaming import forward, remote, spdy
from minirt.cri.streaming.channels import ERROR, RESIZE, STDERR, STDIN, STDOUT
from minirt.cri.streaming.remote import Wanted
from minirt.cri.streaming.spdyconnection import SpdyChannels, SpdyConnection
from minirt.cri.streaming.websocket import FORWARD, REMOTE, TUNNEL, Tunnel, WebSocket, WebSocketChannels
from minirt.engine.records import SandboxRecord
from minirt.errors import Conflict

LIFETIME_S = 60.0
LARGEST_HEAD = 16 * 1024
MOST_TOKENS = 1000
STREAMS_S = 30.0
"""How long a client may take to open its streams."""
V1, V2, V3, V4 = "channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io", "v4.channel.k8s.io"
REMOTE_PROTOCOLS = (V4, V3, V2, V1)
"""Over SPDY: v3 has resizes, v4 the exit code; before that the error stream has a message."""
FORWARD_PROTOCOLS = ("portforward.k8s.io",)

log = logging.getLogger(__name__)


class Ports(Struct, frozen=True):
    """What the caller of PortForward has asked for."""

    sandbox: SandboxRecord
    ports: tuple[int, ...]


class Request(Struct, frozen=True):
    """The head of an HTTP request. Names of headers are in small letters."""

    raw: bytes
    method: str
    path: str
    headers: dict[str, list[str]]

    def words(self, name: str) -> list[str]:
        """Return the words of a header that may be said several times, or be a list."""
        return [word.strip() for line in self.headers.get(name, []) for word in line.split(",") if word.strip()]


class Refused(Exception):
    """The request is answered with an HTTP status instead."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Tokens:
    """What may be asked for, by token. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[float, Wanted | Ports]] = {}

    def add(self, what: Wanted | Ports) -> str:
        """Return a new token. Raises Conflict: too many wait to be used."""
        with self._lock:
            now = time.monotonic()
            self._waiting = {key: one for key, one in self._waiting.items() if one[0] > now}
            if len(self._waiting) >= MOST_TOKENS:
                raise Conflict("stream", f"{MOST_TOKENS} URLs have been asked for and not used", "use them, or wait")
            token = secrets.token_urlsafe(16)
            self._waiting[token] = (now + LIFETIME_S, what)
            return token

    def take(self, token: str) -> Wanted | Ports | None:
        """Return what a token stands for, once."""
        with self._lock:
            until, what = self._waiting.pop(token, (0.0, None))
            return what if until > time.monotonic() else None


class StreamingServer:
    """The HTTP server on loopback. ``start`` it in the event loop; ``url_of`` may be called by any thread."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self._address = address
        self._port = port
        self._tokens = Tokens()
        self._server: asyncio.Server | None = None
        self._base = ""

    async def start(self) -> None:
        """Listen. Raises OSError: the address is not this machine's, or taken."""
        self._server = await asyncio.start_server(self._serve, self._address, self._port, limit=LARGEST_HEAD)
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._address}]" if ":" in self._address else self._address
        self._base = f"http://{host}:{port}"

    def close(self) -> None:
        """Listen no more; what is under way goes on to the end of the process."""
        if self._server:
            self._server.close()

    def url_of(self, what: Wanted | Ports) -> str:
        """Return a URL, good for one request within a minute."""
        kind = "portforward" if isinstance(what, Ports) else "exec" if what.command else "attach"
        return f"{self._base}/{kind}/{self._tokens.add(what)}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _head(reader)
            what = self._tokens.take(request.path.rpartition("/")[2].partition("?")[0])
            if what is None:
                raise Refused("404 Not Found", "no such token: each is good for one request within a minute")
            await _upgrade(request, what, reader, writer)
        except Refused as refused:
            await _answer(writer, refused.status, refused.text)
        except (ConnectionError, spdy.SpdyError, TimeoutError) as error:
            log.info("a stream has ended: %s", error)
        except Exception:
            log.exception("a stream failed")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _head(reader: asyncio.StreamReader) -> Request:
    """Read the head of a request. Raises Refused, ConnectionError."""
    try:
        raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), STREAMS_S)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the client has gone before it said anything") from error
    except asyncio.LimitOverrunError as error:
        raise Refused("431 Request Header Fields Too Large", "the request's head is too long") from error
    first, *lines = raw.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refused("400 Bad Request", "this is no request of HTTP/1.1")
    headers: dict[str, list[str]] = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    return Request(raw, words[0], words[1], headers)


async def _answer(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = text.encode() + b"\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(ConnectionError):
        writer.write(head.encode() + body)
        await writer.drain()


async def _upgrade(
    request: Request, what: Wanted | Ports, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    asked = [word.lower() for word in request.words("upgrade")]
    if "websocket" in asked:
        await _websocket(request, what, WebSocket(reader, writer))
    elif "spdy/3.1" in asked:
        await _spdy(request, what, reader, writer)
    else:
        raise Refused("400 Bad Request", "this needs an Upgrade, to SPDY/3.1 or websocket")


async def _websocket(request: Request, what: Wanted | Ports, socket: WebSocket) -> None:
    if isinstance(what, Ports):
        if await socket.accept(request.raw, FORWARD):
            await _forward_over_websocket(what, socket)
        return
    if not await socket.accept(request.raw, REMOTE):
        return
    channels = WebSocketChannels(socket)
    first = STDOUT if what.stdout else STDERR if what.stderr and not what.tty else ERROR
    await channels.send(first, b"")  # an empty message tells the client that it is heard
    await remote.run(what, channels)


async def _forward_over_websocket(what: Ports, socket: WebSocket) -> None:
    if socket.subprotocol == TUNNEL:
        connection = SpdyConnection(tunnel := Tunnel(socket), tunnel)
        await _beside(connection.read_on(), forward.over_spdy(what.sandbox, connection))
    else:
        await forward.over_websocket(what.sandbox, what.ports, socket)


async def _spdy(
    request: Request, what: Wanted | Ports, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    offered = request.words("x-stream-protocol-version")
    if not offered and not isinstance(what, Ports):
        offered = [V1]  # as it was before there were others
    known = FORWARD_PROTOCOLS if isinstance(what, Ports) else REMOTE_PROTOCOLS
    chosen = next((name for name in known if name in offered), None)
    if chosen is None:
        raise Refused("403 Forbidden", f"unable to upgrade: none of {', '.join(known)} is offered")
    head = f"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {chosen}\r\n"
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{head}\r\n".encode())
    await writer.drain()
    connection = SpdyConnection(reader, writer)
    await _beside(connection.read_on(), _on_spdy(what, chosen, connection))


async def _on_spdy(what: Wanted | Ports, protocol: str, connection: SpdyConnection) -> None:
    if isinstance(what, Ports):
        await forward.over_spdy(what.sandbox, connection)
        return
    wanted = {ERROR} | ({STDIN} if what.stdin else set()) | ({STDOUT} if what.stdout else set())
    wanted |= {STDERR} if what.stderr and not what.tty else set()
    wanted |= {RESIZE} if what.tty and protocol in (V3, V4) else set()
    channels = SpdyChannels(connection, tells_status=protocol == V4)
    await asyncio.wait_for(channels.await_streams(wanted), STREAMS_S)
    await remote.run(what, channels)


async def _beside(reading: Awaitable[None], work: Awaitable[None]) -> None:
    """Do some work while the connection is read, and no longer than that."""
    reader = asyncio.ensure_future(reading)
    try:
        await work
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
