"""The engine's side of a shim's socket: blocking calls, one request at a time."""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

from minirt import paths
from minirt.errors import ShimError, from_wire
from minirt.linux import sockets
from minirt.shim import protocol
from minirt.shim.protocol import AnyRequest, Envelope


class NoAnswer(ShimError):
    """A shim that lives, and does not answer in the time that it was given."""


class ShimClient:
    """A connection to the shim of one sandbox."""

    def __init__(self, sandbox_id: str, within_s: float | None = None) -> None:
        """Connect; wait for each answer, or for ``within_s`` seconds at most.

        Raises:
            ShimError: no shim listens there any more.
        """
        self.sandbox_id = sandbox_id
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(within_s)
        self._next_id = 0
        try:
            with short_address(sandbox_id) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise gone(sandbox_id) from error

    def __enter__(self) -> "ShimClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait for events on."""
        return self._socket.fileno()

    def call(self, request: AnyRequest, descriptors: list[int] | None = None) -> dict[str, Any]:
        """Send a request and return its answer; descriptors that come with it are closed.

        Raises:
            MinirtError: what the shim raised.
            ShimError: the shim ended before it answered.
        """
        ok, received = self.call_with_fds(request, descriptors)
        for fd in received:
            os.close(fd)
        return ok

    def call_with_fds(
        self, request: AnyRequest, descriptors: list[int] | None = None
    ) -> tuple[dict[str, Any], list[int]]:
        """Send a request; return its answer and the descriptors that came with it."""
        return self.answer_to(self.send(request, descriptors))

    def answer_to(self, number: int) -> tuple[dict[str, Any], list[int]]:
        """Wait for the answer to what ``send`` has sent; return it and the descriptors that came with it.

        Raises NoAnswer: time is up.
        """
        while True:
            answer, received = self._receive()
            if answer.id == number or answer.is_refusal:
                break
        if answer.error is not None:
            raise from_wire(answer.error)
        return answer.ok or {}, received

    def send(self, request: AnyRequest, descriptors: list[int] | None = None) -> int:
        """Send a request without waiting; return its id."""
        self._next_id += 1
        envelope = Envelope(id=self._next_id, v=protocol.VERSION, request=request)
        try:
            sockets.send(self._socket, protocol.encode(envelope), descriptors)
        except OSError as error:
            raise gone(self.sandbox_id) from error
        return self._next_id

    def next_event(self) -> dict[str, Any]:
        """Return the next event after Subscribe, or an answer to ``send``. Raises ShimError at the end."""
        answer, _ = self._receive()
        return answer.event if answer.event is not None else {"id": answer.id, "ok": answer.ok, "error": answer.error}

    def _receive(self) -> tuple[protocol.Answer, list[int]]:
        try:
            data, received = sockets.receive(self._socket)
        except TimeoutError as error:
            what = f"reach the shim of sandbox {self.sandbox_id}"
            raise NoAnswer(what, "it does not answer", "is it stopped, or traced by somebody?") from error
        except OSError as error:
            raise gone(self.sandbox_id) from error
        if not data:
            raise gone(self.sandbox_id)
        return protocol.decode_answer(data), received


def gone(sandbox_id: str) -> ShimError:
    """Return the error of a shim that has ended."""
    return ShimError(
        f"reach the shim of sandbox {sandbox_id}",
        "it has ended",
        "its containers go on without it; remove them with minirt rm -f, or minirt pod rm -f",
    )


@contextlib.contextmanager
def short_address(sandbox_id: str) -> Iterator[str]:
    """Yield an address of the shim's socket that fits into sockaddr_un, however long the state directory's path is."""
    directory = os.open(paths.sandbox_path(sandbox_id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/shim.sock"
    finally:
        os.close(directory)
