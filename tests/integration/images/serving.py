"""A registry that a test can spoil: the distribution spec's GETs over a layout, with a hook before each answer.

It speaks real HTTP on loopback; what it is asked is kept in ``requests``.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.integration.images.making import Layout, digest

INDEX = "application/vnd.oci.image.index.v1+json"


class Request(NamedTuple):
    """What was asked: the path (whole URL where we are a proxy), and the headers."""

    path: str
    headers: dict[str, str]


class Answer(NamedTuple):
    """What to say instead. ``cut`` is after how many bytes of the body the connection ends."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    cut: int | None = None


Hook = Callable[[Request], Answer | None]


class Server:
    """Serve a layout's tags and blobs under any repository name, until closed. ``hook`` may answer instead."""

    def __init__(self, layout: Layout, hook: Hook = lambda _: None) -> None:
        self.layout, self.hook = layout, hook
        self.requests: list[Request] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                outer.serve(self)

            def do_HEAD(self) -> None:
                outer.serve(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # closing waits for the last answer
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, to: BaseHTTPRequestHandler) -> None:
        request = Request(to.path, {key.title(): value for key, value in to.headers.items()})
        self.requests.append(request)
        answer = self.hook(request) or self.usual(request.path)
        to.send_response(answer.status)
        for key, value in ({"Content-Length": str(len(answer.body))} | dict(answer.headers)).items():
            to.send_header(key, value)
        to.end_headers()
        with contextlib.suppress(ConnectionError):  # some clients are killed here
            to.wfile.write(b"" if to.command == "HEAD" else answer.body[: answer.cut])
        to.close_connection |= answer.cut is not None

    def usual(self, path: str) -> Answer:
        """Return what a registry says."""
        kind, _, target = path.rpartition("/")
        if kind.endswith("/manifests"):
            found = self._manifest(target)
            return found or error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        blob = self.layout.top / "blobs/sha256" / target.removeprefix("sha256:")
        return Answer(body=blob.read_bytes()) if blob.is_file() else error(404, "BLOB_UNKNOWN", "blob unknown")

    def _manifest(self, target: str) -> Answer | None:
        for descriptor in self.layout.manifests:
            if descriptor["annotations"]["org.opencontainers.image.ref.name"] == target:
                target = descriptor["digest"]
        blob = self.layout.top / "blobs/sha256" / target.removeprefix("sha256:")
        if not target.startswith("sha256:") or not blob.is_file():
            return None
        data = blob.read_bytes()
        headers = {"Content-Type": json.loads(data).get("mediaType", INDEX), "Docker-Content-Digest": digest(data)}
        return Answer(body=data, headers=headers)

    def asked(self, word: str) -> list[str]:
        """Return the paths asked for that contain ``word``."""
        return [request.path for request in self.requests if word in request.path]


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    """Return an error in the words of the distribution spec."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, body, {key.replace("_", "-"): value for key, value in headers.items()})


def spoilt(layout: Layout, data: bytes) -> None:
    """Flip a bit of a blob in a layout, so that it no longer is what its name says."""
    path: Path = layout.top / "blobs/sha256" / digest(data)[7:]
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
