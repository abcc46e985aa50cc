"""How long to wait before something that failed is tried again: twice as long each time, up to a cap.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
"""

from msgspec import Struct

_NS = 1_000_000_000


class _Entry(Struct, frozen=True):
    delay_ns: int
    tried_ns: int


class Backoff:
    """Remembers by key (a container's name, an image) how often it was tried in vain.

    The first try after a failure is free; a key that went well for twice the cap (10 minutes) starts afresh.
    """

    def __init__(self, initial_s: float = 10, cap_s: float = 300) -> None:
        self._initial_ns = int(initial_s * _NS)
        self._cap_ns = int(cap_s * _NS)
        self._entries: dict[str, _Entry] = {}

    def ready_at_ns(self, key: str, failed_ns: int) -> int:
        """Return when a thing that failed at ``failed_ns`` may be tried again."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, failed_ns):
            return failed_ns
        return failed_ns + entry.delay_ns

    def tried(self, key: str, failed_ns: int, now_ns: int) -> None:
        """Note that what failed at ``failed_ns`` is tried again now: the next wait is longer."""
        entry = self._entries.get(key)
        fresh = entry is None or self._expired(entry, failed_ns)
        delay_ns = self._initial_ns if entry is None or fresh else min(2 * entry.delay_ns, self._cap_ns)
        self._entries[key] = _Entry(min(delay_ns, self._cap_ns), now_ns)

    def _expired(self, entry: _Entry, failed_ns: int) -> bool:
        return failed_ns - entry.tried_ns > 2 * self._cap_ns
