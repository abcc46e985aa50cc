"""As much of an API server and a kubelet as kubectl needs to exec, attach and forward ports in a pod of a CRI runtime.

    kubectl ── GET  …/pods/NAME ──────────────▶ the pod, as JSON
            ── GET, POST …/pods/NAME/exec?… ──▶ CRI Exec ─▶ its URL ─▶ the upgraded connection, spliced byte for byte

That is what both do in a cluster: the runtime's streaming server and kubectl speak with each other.
"""

import json
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from minirt.crimessages import api_pb2 as cri
from tests.peers.cri import Runtime

NAMESPACE, CONTAINER = "default", "main"


class ApiServer:
    """A server with one pod, of one container; ``url`` is for ``kubectl --server``."""

    def __init__(self, runtime: Runtime, name: str, sandbox: str, container: str) -> None:
        self.runtime, self.name, self.sandbox, self.container = runtime, name, sandbox, container
        self.upgrades: list[str] = []
        """Of each stream that was asked for: SPDY/3.1 or websocket."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        """Return the class of requests to this server."""
        return type("Request", (_Request,), {"of": self})

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def document(self, path: str) -> dict[str, Any] | None:
        """Return what there is at a path, None for nothing."""
        verbs = ["get", "create"]
        resources = [{"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": verbs}]
        status = {"phase": "Running", "containerStatuses": []}
        return {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": resources},
            "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
            f"/api/v1/namespaces/{NAMESPACE}/pods/{self.name}": {
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {"name": self.name, "namespace": NAMESPACE},
                "spec": {"containers": [{"name": CONTAINER, "image": "busybox"}]},
                "status": status,
            },
        }.get(path)

    def stream(self, verb: str, asked: dict[str, list[str]]) -> str:
        """Return the runtime's URL of a stream."""
        flags = {name: asked.get(name) in (["true"], ["1"]) for name in ("stdin", "stdout", "stderr", "tty")}
        if verb == "portforward":
            request = cri.PortForwardRequest(pod_sandbox_id=self.sandbox)
            return str(self.runtime.PortForward(request).url)
        if verb == "attach":
            return str(self.runtime.Attach(cri.AttachRequest(container_id=self.container, **flags)).url)
        words = asked["command"]
        return str(self.runtime.Exec(cri.ExecRequest(container_id=self.container, cmd=words, **flags)).url)


class _Request(BaseHTTPRequestHandler):
    of: ApiServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a document, or splice."""
        parts = urlsplit(self.path)
        verb = parts.path.rpartition("/")[2]
        if verb in ("exec", "attach", "portforward"):
            self._splice(self.of.stream(verb, parse_qs(parts.query)))
            return
        found = self.of.document(parts.path)
        body = json.dumps(found or {"kind": "Status", "status": "Failure", "code": 404}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Splice: over SPDY kubectl posts."""
        self.do_GET()

    def _splice(self, url: str) -> None:
        """Put the request to the runtime instead, and pass on what both sides say."""
        self.of.upgrades.append(self.headers["Upgrade"])
        target = urlsplit(url)
        with socket.create_connection((target.hostname, target.port)) as runtime:
            query = f"?{target.query}" if target.query else ""
            lines = [f"{self.command} {target.path}{query} HTTP/1.1", f"Host: {target.netloc}"]
            lines += [f"{name}: {value}" for name, value in self.headers.items() if name.lower() != "host"]
            runtime.sendall("\r\n".join([*lines, "", ""]).encode())
            _pass_on(self.connection, runtime)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Pass on what both say until both have ended."""
    to = {one: other, other: one}
    while to:
        for source in select.select(list(to), [], [])[0]:
            try:
                data = source.recv(1 << 16)
                if data:
                    to[source].sendall(data)
                    continue
                to.pop(source).shutdown(socket.SHUT_WR)
            except OSError:
                return
