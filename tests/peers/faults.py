"""A reverse proxy that a test puts in front of a real registry, to have something go wrong on the way.

Every request is passed on, and its answer passed back, but for what ``fault`` says of it.
"""

import contextlib
import http.client
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """What was asked: method, path with query, headers (title-cased), and how many bytes of body."""

    method: str
    path: str
    headers: dict[str, str]
    length: int


class Fault(NamedTuple):
    """What goes wrong: an answer of our own (``status``), an answer ``cut`` after some bytes of its body, other
    ``headers``, another ``body``; or the connection is ended before the registry hears of it (``deaf``), or has taken
    no more than ``deaf_after`` bytes of the body; or the answer stops after ``pause_after`` bytes of its body, and the
    connection stays.
    """

    status: int = 0
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes | None = None
    cut: int | None = None
    deaf: bool = False
    deaf_after: int | None = None
    pause_after: int | None = None


Choice = Callable[[Asked], Fault | None]


class Proxy:
    """A proxy for the registry at ``upstream`` (host:port), until closed."""

    def __init__(self, upstream: str, fault: Choice = lambda _: None) -> None:
        self.upstream, self.fault = upstream, fault
        self.asked: list[Asked] = []
        self.forget = ""
        """A header that the registry does not get to see."""
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_any(self) -> None:
                with contextlib.suppress(ConnectionError):
                    outer.pass_on(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, method: str, word: str) -> int:
        """Return how often something with ``word`` in its path was asked for by ``method``."""
        return sum(asked.method == method and word in asked.path for asked in self.asked)

    def pass_on(self, to: BaseHTTPRequestHandler) -> None:
        length = int(to.headers.get("Content-Length", 0))
        asked = Asked(to.command, to.path, {key.title(): value for key, value in to.headers.items()}, length)
        self.asked.append(asked)
        fault = self.fault(asked) or Fault()
        if fault.deaf or fault.deaf_after is not None:
            to.rfile.read(min(length, fault.deaf_after or 0))
            to.close_connection = True
            return
        status, headers, body = self._answer(to, asked) if not fault.status else (fault.status, {}, b"")
        if fault.status:
            to.rfile.read(length)
        body = body if fault.body is None else fault.body
        if to.command != "HEAD":
            headers = headers | {"Content-Length": str(len(body))}
        headers = headers | dict(fault.headers)
        to.send_response(status)
        for key, value in headers.items():
            to.send_header(key, value)
        to.end_headers()
        if to.command != "HEAD":
            to.wfile.write(body[: fault.cut if fault.pause_after is None else fault.pause_after])
        if fault.pause_after is not None and fault.pause_after < len(body):
            self._closing.wait()
        to.close_connection |= fault.cut is not None or fault.pause_after is not None

    def _answer(self, to: BaseHTTPRequestHandler, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        """Ask the registry, as the one that was asked: the Location of its answers leads here again."""
        upstream = http.client.HTTPConnection(self.upstream, timeout=20)
        with contextlib.closing(upstream):
            headers = {key: value for key, value in to.headers.items() if key.title() != self.forget}
            upstream.request(asked.method, asked.path, to.rfile.read(asked.length), headers=headers)
            answer = upstream.getresponse()
            kept = {key: value for key, value in answer.getheaders() if key.title() not in ("Connection", "Date")}
            return answer.status, kept, answer.read()
