"""The lists of a server: what they showed last time, shown again for as long as the kernel says that nothing changed.

    a call ── changed? ─┬─ no ───▶ the answer that the same request had, as the bytes that were sent then
                        └─ yes ──▶ what changed is read anew from the disk, the answer is made anew

Truth is on the disk and in the process table, and no process keeps it unverified: this one asks the kernel at each call
(watching.py), and forgets everything where the kernel cannot tell. Where it may not be asked (a limit on watches or
descriptors is met) every list is read anew, as the face alone does it.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from minirt.crimessages import api_pb2 as cri
from minirt.engine import containers, messages, store
from minirt.engine.filters import chosen
from minirt.engine.watching import CONTAINERS, SANDBOXES, Key, Lost, Watch
from minirt.errors import NotFound

MOST_ANSWERS = 256
"""Of requests that differ by their filters; a kubelet has a handful."""

log = logging.getLogger(__name__)


class Lists:
    """The lists of one owner, asked for by any thread. ``face`` is who reads them all where nothing can be watched."""

    def __init__(self, face: Any, owner: str) -> None:
        self._face = face
        self._owner = owner
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._is_possible = True
        self._stale: set[Key] = set()
        self._items: dict[Key, Any] = {}
        self._answers: dict[tuple[str, bytes], bytes] = {}

    def close(self) -> None:
        """Watch nothing any more; who asks again has everything read anew."""
        with self._lock:
            self._forget_all()

    def again(self, name: str, request: bytes) -> bytes | None:
        """Return an RPC's answer if the same request has had it and nothing has changed; at once, in any thread."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._answers.get((name, request)) if self._is_watching() else None
        finally:
            self._lock.release()

    def answer(self, name: str, request: bytes) -> bytes:
        """Return an RPC's answer; both are messages as they are sent. Raises ValueError: the request is none."""
        kind, make = METHODS[name]
        asked = kind.FromString(request)
        with self._lock:
            if not self._is_fresh():
                return bytes(getattr(self._face, name)(asked).SerializeToString())
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            answer: bytes = make(self, asked).SerializeToString()
            self._answers[name, request] = answer
        return answer

    def _containers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        pod = request.filter.pod_sandbox_id
        found = [item for item in self._sorted(CONTAINERS) if pod in {"", item.pod_sandbox_id}]
        return cri.ListContainersResponse(containers=chosen(found, request.filter))

    def _sandboxes(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        return cri.ListPodSandboxResponse(items=chosen(self._sorted(SANDBOXES), request.filter))

    def _sorted(self, kind: str) -> list[Any]:
        """Return all of a kind, the oldest first."""
        found = [item for (of, _), item in self._items.items() if of == kind]
        return sorted(found, key=lambda item: (item.created_at, item.id))

    # --- what is known

    def _is_watching(self) -> bool:
        """Take note of what has changed; say whether all that may have is known."""
        try:
            changed = self._watch.changed() if self._watch else None
        except (Lost, OSError):
            self._forget_all()
            return False
        if changed:
            self._answers.clear()
            self._stale |= changed
        return changed is not None

    def _is_fresh(self) -> bool:
        """Read what has changed, or everything; say whether that is all of the world."""
        try:
            if not self._is_watching():
                self._begin()
            while self._stale:
                key = next(iter(self._stale))
                self._read(key)
                self._stale.discard(key)
        except Lost:
            self._forget_all()
        except OSError as error:
            self._forget_all()
            self._is_possible = False
            log.warning("lists are read from the disk each time from now on: %s", error)
        return self._watch is not None

    def _begin(self) -> None:
        """Watch, and have everything read: in this order."""
        if self._is_possible:
            self._watch = Watch()
            self._stale = self._watch.all()

    def _forget_all(self) -> None:
        if self._watch:
            self._watch.close()
        self._watch = None
        self._stale, self._items = set(), {}
        self._answers.clear()

    def _read(self, key: Key) -> None:
        """Read one sandbox or container: what the list shows of it, if anything."""
        assert self._watch
        item = None
        if self._watch.follow(key):
            try:
                item = self._sandbox(key) if key[0] == SANDBOXES else self._container(key)
            except (NotFound, ValueError):
                item = None
        else:
            self._watch.forget(key)
        if item is None:
            self._items.pop(key, None)
        else:
            self._items[key] = item

    def _sandbox(self, key: Key) -> cri.PodSandbox | None:
        assert self._watch
        record = store.sandbox(key[1])
        if record.config.owner != self._owner:
            self._watch.forget(key)
        if record.config.owner != self._owner or record.state == "creating" or record.config.single:
            return None
        is_ready = record.state == "ready" and self._watch.follow_process(key, *record.shim)
        return messages.sandbox_item(record, is_ready)

    def _container(self, key: Key) -> cri.Container | None:
        assert self._watch
        record = store.container(key[1])
        if record.owner != self._owner:
            self._watch.forget(key)
        if record.owner != self._owner or record.id == record.sandbox_id or not store.is_made(record):
            return None
        status = containers.status(record)
        while status.state in {"created", "running"} and status.pid:
            if self._watch.follow_process(key, status.pid, status.start_time):
                break
            status = containers.status(record)  # it has ended in between
        return messages.container_item(record, status)


METHODS: dict[str, tuple[Any, Callable[[Lists, Any], Any]]] = {
    "ListContainers": (cri.ListContainersRequest, Lists._containers),
    "ListPodSandbox": (cri.ListPodSandboxRequest, Lists._sandboxes),
}
"""The RPCs that are answered here: what they take, and who makes the answer."""
