"""Waiting for bytes in the event loop: from the network to a reader, and from descriptors that do not block."""

import asyncio
import os
from collections import deque
from collections.abc import Callable

CHUNK = 32 * 1024
FULL = 1 << 20
"""Bytes that may wait for their reader before the other end has to."""


class Inlet:
    """Bytes that have come from the other end, on their way to one reader."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._is_over = False
        self._changed = asyncio.Condition()

    async def put(self, data: bytes) -> None:
        """Add some bytes, once there is room; after the end they are dropped."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < FULL or self._is_over)
            if data and not self._is_over:
                self._pieces.append(data)
                self._size += len(data)
                self._changed.notify_all()

    async def end(self) -> None:
        """Say that there will be no more."""
        async with self._changed:
            self._is_over = True
            self._changed.notify_all()

    async def get(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._pieces or self._is_over)
            if not self._pieces:
                return b""
            data = self._pieces.popleft()
            self._size -= len(data)
            self._changed.notify_all()
            return data


async def readable(fd: int) -> None:
    """Wait until a descriptor can be read, or is at its end."""
    loop = asyncio.get_running_loop()
    await _until(lambda ready: loop.add_reader(fd, ready), lambda: loop.remove_reader(fd))


async def writable(fd: int) -> None:
    """Wait until a descriptor takes something."""
    loop = asyncio.get_running_loop()
    await _until(lambda ready: loop.add_writer(fd, ready), lambda: loop.remove_writer(fd))


async def _until(watch: Callable[[Callable[[], None]], None], forget: Callable[[], object]) -> None:
    ready = asyncio.Event()
    watch(ready.set)
    try:
        await ready.wait()
    finally:
        forget()


def read_now(fd: int) -> bytes | None:
    """Return what a descriptor has, b"" at its end, None if it has nothing for now. It must not block."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:  # EIO: the last process has closed its side of the terminal
        return b""


async def read(fd: int) -> bytes:
    """Return the next bytes of a descriptor that does not block, b"" at its end."""
    while (data := read_now(fd)) is None:
        await readable(fd)
    return data


async def write(fd: int, data: bytes) -> bool:
    """Write all to a descriptor that does not block; return False if nobody reads any more."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            await writable(fd)
        except OSError:  # EPIPE, or EIO of a terminal
            return False
    return True
