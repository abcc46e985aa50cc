"""Waiting for a change: the runtime's container events wake the worker, and so does the clock."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from minirt.crimessages import api_pb2 as cri
from minirt.engine.podface import PodFace
from minirt.errors import MinirtError


class Alarm:
    """Wakes one sleeper. May be rung from any thread, and from a signal handler: SimpleQueue is made for both."""

    def __init__(self) -> None:
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        """Wake the sleeper, or keep it from falling asleep."""
        self._rings.put(None)

    def sleep(self, timeout_s: float) -> None:
        """Sleep until a ring, at most ``timeout_s`` seconds."""
        try:
            self._rings.get(timeout=max(timeout_s, 0))
            while True:
                self._rings.get_nowait()
        except queue.Empty:
            return


@contextmanager
def ringing(face: PodFace, alarm: Alarm) -> Iterator[None]:
    """Ring at every container event of the runtime, inside the block. A runtime without events leaves it to the clock.

    A thread reads the stream. Where the stream can be cancelled (gRPC's can) it ends with the block; else it ends with
    the next event, or with the process.
    """
    events = face.GetContainerEvents(cri.GetEventsRequest())
    over = threading.Event()

    def read() -> None:
        try:
            for _ in events:
                if over.is_set():
                    return
                alarm.ring()
        except MinirtError:
            return  # no such stream, or no more: the clock goes on

    thread = threading.Thread(target=read, name="container events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        cancel = getattr(events, "cancel", None)
        if cancel:
            cancel()
            thread.join()
