"""The tar reader on archives of Python's tarfile, and on anything at all."""

import io
import tarfile
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minirt.errors import ImageError
from minirt.images import tar, tarfields
from minirt.images.stream import Stream
from minirt.images.unpack import split

BLOCK = tar.BLOCK
Read = list[tuple[tar.Entry, bytes]]


def read(data: bytes) -> Read:
    stream = Stream(io.BytesIO(data), "it")
    return [(entry, stream.exactly(entry.size)) for entry in tar.entries(stream, "it")]


def made(*entries: tuple[str, bytes, dict[str, Any]], format: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=format) as archive:
        for name, content, fields in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_of_each_format(format: int) -> None:
    fields = {"mode": 0o4755, "uid": 1000, "gid": 2000, "mtime": 1_700_000_000}
    (entry, content), (link, _) = read(
        made(("a/b", b"hello", fields), ("l", b"", {"type": tarfile.SYMTYPE, "linkname": "x"}), format=format)
    )
    assert (entry.name, entry.kind, content) == ("a/b", tar.REGULAR, b"hello")
    assert (entry.mode, entry.uid, entry.gid, entry.mtime_ns) == (0o4755, 1000, 2000, 1_700_000_000 * 10**9)
    assert (link.kind, link.linkname) == (tar.SYMLINK, "x")


def test_ustars_prefix() -> None:
    name = "/".join(["p" * 40] * 5)
    assert read(made((name, b"", {}), format=tarfile.USTAR_FORMAT))[0][0].name == name


def test_gnus_binary_numbers() -> None:
    fields = {"uid": 2**31 + 5, "mtime": 2**34}
    (entry, _) = read(made(("f", b"", fields), format=tarfile.GNU_FORMAT))[0]
    assert (entry.uid, entry.mtime_ns) == (2**31 + 5, 2**34 * 10**9)


def test_old_directories_are_told_by_their_slash() -> None:
    data = made(("d/", b"", {"type": tarfile.AREGTYPE}), ("f", b"", {"type": tarfile.AREGTYPE}))
    assert [entry.kind for entry, _ in read(data)] == [tar.DIRECTORY, tar.REGULAR]


def test_only_regular_files_have_data() -> None:
    """A FIFO's header may state a size; what follows is the next header, not data."""
    data = bytearray(made(("d", b"", {"type": tarfile.FIFOTYPE}), ("f", b"x", {})))
    data[124:136] = b"00000001000\0"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:BLOCK])
    assert [entry.name for entry, _ in read(bytes(data))] == ["d", "f"]


def test_unread_data_is_passed_over() -> None:
    stream = Stream(io.BytesIO(made(("a", b"x" * 5000, {}), ("b", b"y", {}))), "it")
    assert [entry.name for entry in tar.entries(stream, "it")] == ["a", "b"]


@pytest.mark.parametrize("end", [0, BLOCK, 2 * BLOCK, 20 * BLOCK])
def test_an_archive_may_end_without_its_mark(end: int) -> None:
    body = made(("f", b"x", {}))[: 2 * BLOCK]
    assert [content for _, content in read(body + bytes(end))] == [b"x"]


def test_the_last_padding_may_be_missing() -> None:
    """umoci 0.4.7's insert leaves it out."""
    assert [content for _, content in read(made(("f", b"x", {}))[: BLOCK + 1])] == [b"x"]


@pytest.mark.parametrize("length", [1, 511, BLOCK + 1, BLOCK + 512])
def test_cut_short(length: int) -> None:
    with pytest.raises(ImageError, match=r"cut short, after \d+ bytes"):
        read(made(("f", b"x" * 2000, {}))[:length])


def test_a_global_header_is_passed_over() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", pax_headers={"comment": "from git archive", "path": "evil"}) as archive:
        archive.addfile(tarfile.TarInfo("f"))
    assert [entry.name for entry, _ in read(data.getvalue())] == ["f"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"    644 ", 0o644),
        (b"\0" * 8, 0),
        (b"\x80" + b"\0" * 6 + b"\x05", 5),
        (b"\xff" * 8, -1),
        (b"\xff" * 7 + b"\xfe", -2),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert tarfields.number(field) == value


@pytest.mark.parametrize(
    "field", [b"0o644\0\0\0", b"-644\0\0\0\0", b"6_44\0\0\0\0", b"999\0\0\0\0\0", b"abc\0\0\0\0\0"]
)
def test_no_numbers(field: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        tarfields.number(field)


@pytest.mark.parametrize(
    ("time", "value"),
    [
        (b"1", 10**9),
        (b"1.5", 1_500_000_000),
        (b"1.123456789123", 1_123_456_789),
        (b"-1.25", -1_250_000_000),
        (b"0.", 0),
    ],
)
def test_times(time: bytes, value: int) -> None:
    assert tarfields.nanoseconds(time) == value


@pytest.mark.parametrize("time", [b"", b".5", b"1e3", b"--1", b"1.x", b"+1", b"nan"])
def test_no_times(time: bytes) -> None:
    with pytest.raises(ValueError, match="no number"):
        tarfields.nanoseconds(time)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a", ("", "a")),
        ("a/b/c", ("a/b", "c")),
        ("/a/", ("", "a")),
        ("./a", (".", "a")),
        ("./", ("", "")),
        (".", ("", "")),
        ("/", ("", "")),
        ("a/.", ("", "a")),
        ("a//b", ("a", "b")),
        ("a/../b", ("a/..", "b")),
    ],
)
def test_split(path: str, parts: tuple[str, str]) -> None:
    assert split(path) == parts


@pytest.mark.parametrize("path", ["..", "a/..", "../", "a/../."])
def test_split_refuses_dot_dot_as_a_name(path: str) -> None:
    with pytest.raises(ValueError, match=r"'\.\.'"):
        split(path)


@given(st.binary(max_size=4000))
@example(b"\x1f\x8b\x08\x00")
@example(b"\x28\xb5\x2f\xfd")
@example(b"\xfd7zXZ\0")
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        read(data)
    except ImageError as error:
        assert str(error).startswith("cannot ")


WHOLE = made(
    ("dir", b"", {"type": tarfile.DIRTYPE}),
    ("long" * 60, b"x" * 700, {"pax_headers": {"SCHILY.xattr.user.a": "b", "mtime": "1.5"}}),
    ("sparse", b"12345678", {"pax_headers": {"GNU.sparse.map": "0,4,8,4", "GNU.sparse.size": "20"}}),
    ("link", b"", {"type": tarfile.LNKTYPE, "linkname": "dir"}),
)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_a_damaged_archive_is_read_or_refused(changes: list[tuple[int, int]], mend: bool) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
        if mend:
            header = at // BLOCK * BLOCK
            data[header + 148 : header + 156] = b" " * 8
            data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + BLOCK])
    try:
        read(bytes(data))
    except ImageError as error:
        assert str(error).startswith("cannot ")
