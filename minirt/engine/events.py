"""Container events of one owner: what the shims of its sandboxes tell, in one stream.

shim ── event ──┐
shim ── event ──┴▶ poll ─▶ (container id, sandbox id, state)   ◀── wake pipe: a sandbox has come; what is told
"""

import contextlib
import os
import select
import threading
from collections.abc import Iterator
from typing import Any

from minirt.engine import store
from minirt.errors import MinirtError
from minirt.shim import protocol
from minirt.shim.client import ShimClient

LAST = "deleted"
"""The state that comes after all that a shim tells of a container."""


class EventStream:
    """Subscriptions to shims. ``follow`` may be called from any thread, ``events`` is one thread's."""

    def __init__(self, owner: str) -> None:
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._wake_r, select.POLLIN)
        self._shims: dict[int, ShimClient] = {}
        self._new: list[str] = []
        self._told: list[tuple[str, str, str]] = []
        self._over = False
        self._lock = threading.Lock()  # the pipe's number is another file's as soon as it is closed
        for record in store.sandboxes(owner):
            self.follow(record.id)

    def follow(self, sandbox_id: str) -> None:
        """Have the stream tell of a sandbox's containers from now on."""
        self._new.append(sandbox_id)
        self._ring()

    def tell(self, container_id: str, sandbox_id: str, state: str) -> None:
        """Add what no shim knows: that a container has been made, or deleted."""
        self._told.append((container_id, sandbox_id, state))
        self._ring()

    def _ring(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._wake_w >= 0:
                os.write(self._wake_w, b"+")

    def _close(self) -> None:
        for shim in self._shims.values():
            shim.close()
        self._shims.clear()
        with self._lock:
            os.close(self._wake_r)
            os.close(self._wake_w)
            self._wake_w = -1

    def events(self) -> Iterator[tuple[str, str, str]]:
        """Yield (container id, sandbox id, new state), until ``cancel``."""
        try:
            yield from self._read_on()
        finally:
            self._close()

    def cancel(self) -> None:
        """End the stream, from any thread: whoever reads ``events`` sees their end."""
        self._over = True
        self._ring()

    def _read_on(self) -> Iterator[tuple[str, str, str]]:
        while not self._over:
            ready = [fd for fd, _ in self._poll.poll()]
            told = self._awake() if self._wake_r in ready else []
            yield from (event for event in told if event[2] != LAST)
            for fd in ready:
                if fd in self._shims:
                    sandbox_id = self._shims[fd].sandbox_id
                    event = self._read(fd)
                    if event:
                        yield event["container"], sandbox_id, event["state"]
            yield from (event for event in told if event[2] == LAST)

    def _awake(self) -> list[tuple[str, str, str]]:
        """Take what the wake pipe was rung for."""
        os.read(self._wake_r, 512)
        self._subscribe()
        told, self._told = self._told, []
        return told

    def _subscribe(self) -> None:
        while self._new:
            sandbox_id = self._new.pop()
            if any(shim.sandbox_id == sandbox_id for shim in self._shims.values()):
                continue  # it was listed, and told of as well: it was being made when the stream began
            with contextlib.suppress(MinirtError):
                shim = ShimClient(sandbox_id)
                shim.call(protocol.Subscribe())
                self._shims[shim.fileno()] = shim
                self._poll.register(shim.fileno(), select.POLLIN)

    def _read(self, fd: int) -> dict[str, Any] | None:
        shim = self._shims[fd]
        try:
            return shim.next_event()
        except MinirtError:
            self._poll.unregister(fd)
            del self._shims[fd]
            shim.close()
            return None
