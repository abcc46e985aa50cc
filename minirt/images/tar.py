"""Tar, read as a stream: what is in the headers, in plain fields, and nothing decided about it.

Understood are ustar, PAX (long names, sizes, ids, nanosecond times, xattrs), GNU (long names, base-256 numbers) and
sparse files in all four of their forms. A damaged header is an error, never an end.

    header ─ data, padded to 512 ─ header ─ data … ─ two blocks of zeros

Source: tar(5) of FreeBSD; POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

import os
import struct
from collections.abc import Iterator

from msgspec import Struct, field, structs

from minirt.errors import HostileLayer, ImageError
from minirt.images import sparse
from minirt.images.stream import Stream, too_much
from minirt.images.tarfields import decimal, nanoseconds, number, pax_records, text

BLOCK = 512
LONGEST_EXTENSION = 1 << 20
MOST_ENTRIES = 1 << 20
LARGEST_FILE = 1 << 40
"""Of a sparse file, in bytes: more than any image needs. What is not sparse is bounded by the layer's own size."""
REGULAR, HARDLINK, SYMLINK, CHAR_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
OLD_REGULAR, CONTIGUOUS, GNU_SPARSE = b"\0", b"7", b"S"
PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK = b"x", b"g", b"L", b"K"
XATTR = "SCHILY.xattr."
KINDS = frozenset({REGULAR, HARDLINK, SYMLINK, CHAR_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO})

_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 32s 32s 8s 8s 155s 12x")
_USTAR = b"ustar\x0000"


class Entry(Struct):
    """One thing of an archive. Names are as stored (undecodable bytes as surrogates); ``size`` is of the data here."""

    name: str
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: str
    major: int
    minor: int
    xattrs: dict[str, bytes] = field(default_factory=dict)
    layout: sparse.Layout | None = None


class _Extensions(Struct, frozen=True):
    """What the headers before an entry's own say of it."""

    pax: tuple[tuple[str, bytes], ...] = ()
    name: bytes | None = None
    linkname: bytes | None = None


def entries(stream: Stream, what: str) -> Iterator[Entry]:
    """Yield every entry; its data is next in ``stream`` until the following entry is asked for.

    Raises:
        ImageError: a header is damaged, of an unknown kind, or the archive is cut short.
        HostileLayer: there are more than a million entries, or more data than a layer of its size can have.
    """
    extensions, count = _Extensions(), 0
    while (block := _next_header(stream, what)) is not None:
        try:
            entry = _entry(block)
            if entry.kind in (PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK):
                extensions = _extended(extensions, entry, stream)
                continue
            entry = _complete(entry, extensions, block, stream)
        except (ValueError, OverflowError, struct.error) as error:
            why = f"the header before byte {stream.position} is damaged: {error}"
            raise ImageError(f"read {what}", why, "get it again, or have it made anew") from error
        extensions = _Extensions()
        count += 1
        end = stream.position + entry.size
        if count > MOST_ENTRIES or end > stream.most_bytes:
            why = too_much(stream.most_bytes) if count <= MOST_ENTRIES else f"it has more than {MOST_ENTRIES} entries"
            raise HostileLayer(f"read {what}", f"entry {entry.name!r}: {why}", "do not trust where it comes from")
        yield entry
        stream.skip(end - stream.position)
        if not stream.at_end():  # umoci leaves out the last padding
            stream.skip(-entry.size % BLOCK)


def _next_header(stream: Stream, what: str) -> bytes | None:
    """Return the next header, None at the end of the archive: zeros, or a stream that ends between entries."""
    if stream.at_end():
        return None
    block = stream.exactly(BLOCK)
    if block.count(0) != BLOCK:
        return block
    if not stream.at_end() and stream.exactly(BLOCK).count(0) != BLOCK:
        raise ImageError(f"read {what}", f"something follows the end mark at byte {stream.position}", "get it again")
    return None


def _entry(block: bytes) -> Entry:
    fields = _HEADER.unpack(block)
    name, mode, uid, gid, size, mtime, checksum, kind, linkname, magic, _, _, major, minor, prefix = fields
    if sum(block) - sum(checksum) + 8 * 0x20 != number(checksum):
        raise ValueError("its checksum is wrong")
    name = text(name)
    if magic == _USTAR and prefix[0]:
        name = text(prefix) + b"/" + name
    device = kind in (CHAR_DEVICE, BLOCK_DEVICE)
    return Entry(
        os.fsdecode(name),
        kind,
        number(mode) & 0o7777,
        number(uid),
        number(gid),
        number(size),
        number(mtime) * 10**9,
        os.fsdecode(text(linkname)),
        number(major) if device else 0,
        number(minor) if device else 0,
    )


def _extended(before: _Extensions, entry: Entry, stream: Stream) -> _Extensions:
    """Return ``before`` with what this extension header's body adds; a global one adds nothing, as in docker."""
    if not 0 <= entry.size <= LONGEST_EXTENSION:
        raise ValueError(f"an extension of {entry.size} bytes")
    body = stream.exactly(entry.size)
    stream.skip(-entry.size % BLOCK)
    if entry.kind == PAX:
        return structs.replace(before, pax=before.pax + tuple(pax_records(body)))
    if entry.kind == GNU_LONG_NAME:
        return structs.replace(before, name=text(body))
    if entry.kind == GNU_LONG_LINK:
        return structs.replace(before, linkname=text(body))
    return before


def _complete(entry: Entry, extensions: _Extensions, block: bytes, stream: Stream) -> Entry:
    if extensions.name is not None:
        entry.name = os.fsdecode(extensions.name)
    if extensions.linkname is not None:
        entry.linkname = os.fsdecode(extensions.linkname)
    for key, value in extensions.pax:
        _apply_pax(entry, key, value)
    if entry.kind in (REGULAR, OLD_REGULAR, CONTIGUOUS, GNU_SPARSE):
        entry.layout = sparse.layout(block, entry.kind == GNU_SPARSE, extensions.pax, entry.size, stream)
        entry.kind = DIRECTORY if entry.name.endswith("/") and entry.kind == OLD_REGULAR else REGULAR
    if entry.layout:
        entry.name, entry.size = entry.layout.name or entry.name, entry.layout.stored_bytes
    if entry.kind != REGULAR:
        entry.size = 0  # whatever the header says: only regular files have data
    return _checked(entry)


def _apply_pax(entry: Entry, key: str, value: bytes) -> None:
    if key == "path":
        entry.name = os.fsdecode(value)
    elif key == "linkpath":
        entry.linkname = os.fsdecode(value)
    elif key in ("size", "uid", "gid"):
        setattr(entry, key, decimal(value))
    elif key == "mtime":
        entry.mtime_ns = nanoseconds(value)
    elif key.startswith(XATTR):
        entry.xattrs[key.removeprefix(XATTR)] = value


def _checked(entry: Entry) -> Entry:
    if entry.kind not in KINDS:
        raise ValueError(f"{entry.name!r} is of the unknown kind {entry.kind!r}")
    if entry.size < 0 or not 0 <= entry.uid < 2**32 - 1 or not 0 <= entry.gid < 2**32 - 1:
        raise ValueError(f"{entry.name!r} has size {entry.size}, owner {entry.uid}:{entry.gid}")
    if entry.layout and entry.layout.size_bytes > LARGEST_FILE:
        raise ValueError(f"{entry.name!r} is a sparse file of {entry.layout.size_bytes} bytes")
    if abs(entry.mtime_ns) >= 2**62 * 10**9 or not 0 <= entry.major < 2**12 or not 0 <= entry.minor < 2**20:
        raise ValueError(f"{entry.name!r} has a time or a device number that cannot be")
    if "\0" in entry.name or "\0" in entry.linkname or not entry.name:
        raise ValueError(f"{entry.name!r} is no name")
    return entry
