"""Sparse files in tar: which stretches of a file are there, in each of the four ways GNU tar has written it down.

    old GNU     in the header itself and in blocks after it
    PAX 0.0     pairs of GNU.sparse.offset and GNU.sparse.numbytes records
    PAX 0.1     one GNU.sparse.map record: offset,length,offset,length…
    PAX 1.0     a list of decimal numbers, a line each, before the data

Source: GNU tar manual, "Storing Sparse Files".
"""

from itertools import pairwise

from msgspec import Struct

from minirt.images.stream import Stream
from minirt.images.tarfields import number

BLOCK = 512
MOST_STRETCHES = 1 << 16
Stretch = tuple[int, int]


class Layout(Struct, frozen=True):
    """A sparse file: (offset, length) of each stretch, in order; all else up to ``size_bytes`` is a hole."""

    stretches: tuple[Stretch, ...]
    size_bytes: int
    stored_bytes: int
    name: str = ""


def layout(header: bytes, is_old: bool, pax: tuple[tuple[str, bytes], ...], size: int, stream: Stream) -> Layout | None:
    """Return how a file is stored, None for one that is not sparse; read what of it lies before the data.

    ``size`` is what the archive holds of the file, in bytes.

    Raises:
        ValueError: the stretches overlap, leave the file, or are not what is stored.
    """
    keys = {key: value for key, value in pax if key.startswith("GNU.sparse.")}
    if not is_old and not keys:
        return None
    if is_old:
        numbers, real = _old_map(header, stream)
    elif keys.get("GNU.sparse.major") == b"1":
        before = stream.position
        numbers, real = _map_before_data(stream), int(keys["GNU.sparse.realsize"])
        size -= stream.position - before
    else:
        numbers, real = _pax_map(pax, keys), int(keys.get("GNU.sparse.size", b"0"))
    name = keys.get("GNU.sparse.name", b"").decode(errors="surrogateescape")
    return _checked(tuple(zip(numbers[::2], numbers[1::2], strict=True)), real, size, name)


def _old_map(header: bytes, stream: Stream) -> tuple[list[int], int]:
    real = number(header[483:495])
    found, more, part = [], header[482], header[386:482]
    while True:
        found += [number(part[at : at + 12]) for at in range(0, len(part), 12) if part[at]]
        if not more:
            return found, real
        block = stream.exactly(BLOCK)
        more, part = block[504], block[:504]
        _bounded(len(found))


def _pax_map(pax: tuple[tuple[str, bytes], ...], keys: dict[str, bytes]) -> list[int]:
    if "GNU.sparse.map" in keys:
        return [int(number) for number in keys["GNU.sparse.map"].split(b",")]
    return [int(value) for key, value in pax if key in ("GNU.sparse.offset", "GNU.sparse.numbytes")]


def _map_before_data(stream: Stream) -> list[int]:
    text = b""
    needed = 1
    while (lines := text.split(b"\n"))[:-1] == [] or len(lines) - 1 < needed:
        text += stream.exactly(BLOCK)
        first, newline, _ = text.partition(b"\n")
        needed = 1 + 2 * _bounded(int(first)) if newline else 1
    return [int(line) for line in lines[1:needed]]


def _bounded(count: int) -> int:
    if not 0 <= count <= MOST_STRETCHES:
        raise ValueError(f"a sparse file of {count} stretches")
    return count


def _checked(stretches: tuple[Stretch, ...], real: int, size: int, name: str) -> Layout:
    for (offset, length), (following, _) in pairwise((*stretches, (real, 0))):
        if offset < 0 or length < 0 or offset + length > following:
            raise ValueError("the stretches of a sparse file overlap or leave it")
    if sum(length for _, length in stretches) != size:
        raise ValueError("a sparse file holds more or less than its stretches")
    return Layout(stretches, real, size, name)
