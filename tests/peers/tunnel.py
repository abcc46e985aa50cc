"""A proxy for HTTPS as companies have them: CONNECT, and then bytes both ways that it does not understand."""

import contextlib
import select
import socket
import socketserver
import threading
from typing import NamedTuple


class Asked(NamedTuple):
    """One CONNECT: to where, and the line of its Proxy-Authorization ("" for none)."""

    target: str
    authorization: str


class Tunnel:
    """The proxy, on loopback; a context manager. Wherever it is asked for, it leads to ``address``."""

    def __init__(self, address: str) -> None:
        tunnel = self
        self.asked: list[Asked] = []

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                words = self.rfile.readline().decode().split()
                headers = [line.decode().strip() for line in iter(self.rfile.readline, b"\r\n")]
                said = [line.partition(": ")[2] for line in headers if line.lower().startswith("proxy-authorization")]
                tunnel.asked.append(Asked(words[1], "".join(said)))
                host, _, port = address.rpartition(":")
                with socket.create_connection((host, int(port))) as there:
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    _splice(self.connection, there)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Tunnel":
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _splice(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on until either side ends."""
    with contextlib.suppress(OSError):
        while True:
            for source in select.select([one, other], [], [])[0]:
                if not (data := source.recv(1 << 16)):
                    return
                (other if source is one else one).sendall(data)
