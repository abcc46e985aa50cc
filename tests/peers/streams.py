"""Clients of streaming URLs that know nothing of minirt: channels over SPDY and over a WebSocket."""

import base64
import contextlib
import json
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from minirt.crimessages import api_pb2 as cri
from tests.peers.cri import Pods, Runtime
from tests.peers.spdy import SpdyClient

V1, V2, V3, V4, V5 = "channel.k8s.io", *(f"v{number}.channel.k8s.io" for number in range(2, 6))
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)


def exec_url(pods: Pods, container: str, *command: str, tty: bool = False, **fields: Any) -> str:
    fields = {"stdout": True, "stderr": not tty} | fields
    request = cri.ExecRequest(container_id=container, cmd=command, tty=tty, **fields)
    return str(pods.runtime.Exec(request).url)


def attach_url(pods: Pods, container: str, **fields: Any) -> str:
    request = cri.AttachRequest(container_id=container, **{"stdout": True, "stderr": True} | fields)
    return str(pods.runtime.Attach(request).url)


class Spdy:
    """An exec or attach over SPDY."""

    def __init__(self, url: str, *, stdin: bool = False, tty: bool = False, protocol: str = V4) -> None:
        self.client = SpdyClient(url, *filter(None, [protocol]))
        resizes = tty and protocol in (V3, V4)
        names = ["error", "stdout"] + ["stdin"] * stdin + ["resize"] * resizes + ["stderr"] * (not tty)
        self.streams = {name: self.client.open(streamtype=name) for name in names}

    def __enter__(self) -> "Spdy":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def send(self, data: bytes, *, fin: bool = False) -> None:
        self.client.send(self.streams["stdin"], data, fin=fin)

    def resize(self, width: int, height: int) -> None:
        self.client.send(self.streams["resize"], json.dumps({"Width": width, "Height": height}).encode() + b"\n")

    def wait_for(self, text: bytes) -> None:
        self.client.read_for(self.streams["stdout"], text)

    def end(self) -> tuple[bytes, bytes, dict[str, Any]]:
        """Wait for the end; return stdout, stderr, status."""
        stdout, stderr, status = self.end_before_v4()
        return stdout, stderr, json.loads(status)

    def end_before_v4(self) -> tuple[bytes, bytes, bytes]:
        """Wait for the end; return stdout, stderr, and what the error stream has."""
        while not {self.streams["error"], self.streams["stdout"]} <= self.client.ended and self.client.read_frame():
            pass  # containerd ends the connection, and not each stream
        found = {name: bytes(self.client.received[number]) for name, number in self.streams.items()}
        return found["stdout"], found.get("stderr", b""), found["error"]


class Socket:
    """An exec or attach over a WebSocket."""

    def __init__(self, url: str, *, stdin: bool = False, tty: bool = False, protocol: str = V4) -> None:
        self._open = contextlib.ExitStack()
        where = url.replace("http:", "ws:")
        offered = [Subprotocol(protocol)] if protocol else None
        connecting = connect(where, subprotocols=offered, max_size=None, proxy=None, compression=None)
        self._is_text = "base64" in protocol
        self.connection: ClientConnection = self._open.enter_context(connecting)
        self.received = {number: bytearray() for number in range(5)}
        self.first: bytes | None = None

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def send(self, data: bytes, *, fin: bool = False) -> None:
        if data:
            self._send(STDIN, data)
        if fin:
            self.connection.send(bytes([255, STDIN]))

    def resize(self, width: int, height: int) -> None:
        self._send(RESIZE, json.dumps({"Width": width, "Height": height}).encode())

    def _send(self, channel: int, data: bytes) -> None:
        whole = f"{channel}{base64.b64encode(data).decode()}" if self._is_text else bytes([channel]) + data
        self.connection.send(whole)

    def _read(self) -> None:
        found = self.connection.recv(timeout=20)
        assert isinstance(found, str) == self._is_text
        message = found if isinstance(found, bytes) else bytes([int(found[0])]) + base64.b64decode(found[1:])
        self.first = message if self.first is None else self.first
        self.received[message[0]] += message[1:]

    def wait_for(self, text: bytes) -> None:
        while text not in self.received[STDOUT]:
            self._read()

    def end(self) -> tuple[bytes, bytes, dict[str, Any]]:
        """Wait for the end; return stdout, stderr, status."""
        stdout, stderr, status = self.end_before_v4()
        return stdout, stderr, json.loads(status)

    def end_before_v4(self) -> tuple[bytes, bytes, bytes]:
        """Wait for the end; return stdout, stderr, and what the error channel has."""
        try:
            while True:
                self._read()
        except ConnectionClosed:
            pass
        return bytes(self.received[STDOUT]), bytes(self.received[STDERR]), bytes(self.received[ERROR])


def code(status: dict[str, Any]) -> int:
    """Return the exit code that a Status tells."""
    if status["status"] == "Success":
        return 0
    assert status["reason"] == "NonZeroExitCode"
    return int(next(cause["message"] for cause in status["details"]["causes"] if cause["reason"] == "ExitCode"))


def forward_url(runtime: Runtime, sandbox: str, *ports: int) -> str:
    return str(runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=sandbox, port=ports)).url)
