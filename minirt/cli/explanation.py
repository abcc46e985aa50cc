"""Journal records as lines to read: who did what, with which outcome, how long it took, and because of what."""

import errno
from collections.abc import Iterable, Iterator

from minirt.journal import Record


def lines(records: Iterable[Record]) -> Iterator[str]:
    """Yield a heading whenever another process acts, and a line for each step. Times are since the first step."""
    begun, actor = 0, ("", 0)
    for record in records:
        begun = begun or record.at_ns
        if (record.stage, record.pid) != actor:
            actor = (record.stage, record.pid)
            yield f"\n{record.stage} (pid {record.pid})"
        yield _line(record, begun)


def _line(record: Record, begun: int) -> str:
    at_ms = (record.at_ns - begun) / 1e6
    outcome = f" = {record.result}" if record.result else ""
    if record.errno:
        outcome = f" = -1 {errno.errorcode.get(record.errno, record.errno)}"
    because = f"   # {record.cause}" if record.cause else ""
    took = f" <{record.took_ns / 1e6:.3f} ms>" if record.took_ns else ""
    return f"  {at_ms:9.3f} ms  {record.step}({record.arguments}){outcome}{took}{because}"
