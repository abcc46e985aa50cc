"""The one door to msgspec's typed decoding: only one thread at a time is the first to use a type.

When a type is first decoded into, msgspec looks at its fields, running Python on the way, and hangs what it has found
so far on the class. Another thread that decodes into it meanwhile takes the half for the whole, and reads through a
null pointer: the process dies. What has been looked at once is safe for every thread.
"""

import _thread
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_looking = _thread.allocate_lock()


def from_json(data: bytes | str, kind: type[T]) -> T:
    """Return JSON as a ``kind``. Raises msgspec.DecodeError (it is none), UnicodeDecodeError."""
    found: T = _decoder(kind).decode(data)
    return found


def convert(value: Any, kind: type[T], dec_hook: Callable[[type, Any], Any] | None = None) -> T:
    """Return plain data as a ``kind``. Raises msgspec.ValidationError: it is none."""
    _decoder(kind)
    return msgspec.convert(value, kind, dec_hook=dec_hook)


def _decoder(kind: type[T]) -> "msgspec.json.Decoder[T]":
    if found := _decoders.get(kind):
        return found
    with _looking:
        return _decoders.setdefault(kind, msgspec.json.Decoder(kind))
