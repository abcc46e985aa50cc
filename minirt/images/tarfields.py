"""How tar writes texts, numbers and times into its headers.

Source: GNU tar manual, "Basic Tar Format"; POSIX.1-2017 pax, "pax Header Block".
"""

from collections.abc import Iterator


def text(field: bytes) -> bytes:
    """Return a text field up to its first NUL."""
    return field.partition(b"\0")[0]


def number(field: bytes) -> int:
    """Return a number field: octal digits, or binary in two's complement where the first bit is set.

    Raises:
        ValueError: it is neither.
    """
    if field[0] & 0x40 and field[0] & 0x80:
        return int.from_bytes(field, "big", signed=True)
    if field[0] & 0x80:
        return int.from_bytes(field, "big") - (1 << (8 * len(field) - 1))
    digits = text(field).strip()
    if digits and not digits.isdigit():
        raise ValueError(f"{field!r} is no number")
    return int(digits, 8) if digits else 0


def decimal(digits: bytes) -> int:
    """Return a number as PAX writes it. Raises ValueError for anything but decimal digits, a sign included."""
    if not digits.isdigit():
        raise ValueError(f"{digits!r} is no number")
    return int(digits)


def nanoseconds(time: bytes) -> int:
    """Return a time as PAX writes it, seconds with a fraction, in nanoseconds. Raises ValueError."""
    seconds, _, fraction = time.partition(b".")
    negative = seconds.startswith(b"-")
    total = decimal(seconds.removeprefix(b"-")) * 10**9 + (decimal(fraction[:9].ljust(9, b"0")) if fraction else 0)
    return -total if negative else total


def pax_records(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the records of a PAX header: ``length key=value newline``, the length counting all of it.

    Raises:
        ValueError: a record does not end where it says.
    """
    at = 0
    while at < len(body):
        space = body.index(b" ", at, at + 20)
        end = at + decimal(body[at:space])
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals or body[end - 1 : end] != b"\n":
            raise ValueError("a PAX record does not end where it says")
        yield key.decode(), value
        at = end
