"""Signals by name, as docker and the CRI write them: TERM, SIGTERM, 15, RTMIN+3."""

import re
import signal

from minirt.errors import InvalidInput

_REALTIME = re.compile(r"(?:SIG)?RT(MIN|MAX)(?:([+-])(\d+))?")


def number_of(name: str) -> int:
    """Return a signal's number.

    Raises:
        InvalidInput: there is no such signal.
    """
    text = name.strip().upper()
    if text.isdigit() and 1 <= int(text) <= int(signal.SIGRTMAX):
        return int(text)
    if found := _REALTIME.fullmatch(text):
        base = signal.SIGRTMIN if found[1] == "MIN" else signal.SIGRTMAX
        value = base + int(f"{found[2] or '+'}{found[3] or 0}")
        if signal.SIGRTMIN <= value <= signal.SIGRTMAX:
            return int(value)
    known = getattr(signal, f"SIG{text.removeprefix('SIG')}", None)
    if isinstance(known, signal.Signals):
        return int(known)
    raise InvalidInput(f"send the signal {name!r}", "there is none of this name", "for example TERM, SIGKILL or 9")
