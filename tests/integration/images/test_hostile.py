"""Layers that mean harm: each is refused with the name of its entry, writes nothing outside, and leaves nothing."""

import contextlib
import os
import tarfile
import threading
from pathlib import Path

import pytest
import zstandard

from minirt.errors import HostileLayer, ImageError
from minirt.images.tar import BLOCK, MOST_ENTRIES
from minirt.images.unpack import unpack
from tests.integration.images.making import compressed, digest, directory, entry, hardlink, layer, symlink

pytestmark = pytest.mark.root
Entry = tuple[tarfile.TarInfo, bytes]

LEAVING: dict[str, list[Entry]] = {
    "dot-dot": [entry("../outside/f", b"!")],
    "deep dot-dot": [directory("a"), entry("a/../../outside/f", b"!")],
    "absolute dot-dot": [entry("/../outside/f", b"!")],
    "dot-dot as a name": [directory("a/..")],
    "only dot-dot": [entry("..", b"!")],
    "absolute symlink": [symlink("l", "/OUTSIDE"), entry("l/f", b"!")],
    "relative symlink": [symlink("l", "../outside"), entry("l/f", b"!")],
    "symlink to the root": [symlink("l", "/"), entry("l/f", b"!")],
    "chain of symlinks": [symlink("a", "b"), symlink("b", "../outside"), entry("a/f", b"!")],
    "symlink within a symlink": [directory("d"), symlink("d/l", "../.."), entry("d/l/outside/f", b"!")],
    "symlink swapped in": [directory("d"), entry("d/f"), symlink("d", "/OUTSIDE"), entry("d/f", b"!")],
    "swapped in behind the kept parent": [entry("d/f"), symlink("d", "../outside"), entry("d/g", b"!")],
    "directory through a symlink": [symlink("l", "../outside"), directory("l/made")],
    "symlink through a symlink": [symlink("l", "../outside"), symlink("l/f", "x")],
    "device through a symlink": [symlink("l", "../outside"), entry("l/f", type=tarfile.CHRTYPE)],
    "whiteout through a symlink": [symlink("l", "../outside"), entry("l/.wh.kept")],
    "opaque through a symlink": [symlink("l", "../outside"), entry("l/.wh..wh..opq")],
    "whiteout of dot-dot": [directory("d"), entry("d/.wh...")],
    "whiteout of dot": [entry(".wh..")],
    "whiteout of nothing": [entry(".wh.")],
    "symlink to itself": [symlink("l", "l"), entry("l/f", b"!")],
    "symlink to nowhere": [symlink("l", "missing"), entry("l/f", b"!")],
    "magic link": [symlink("l", "/proc/self/cwd"), entry("l/f", b"!")],
    "file as a parent": [entry("f", b"x"), entry("f/g", b"!")],
    "hardlink outside": [hardlink("h", "../outside/kept")],
    "hardlink outside, absolute": [hardlink("h", "/OUTSIDE/kept")],
    "hardlink through a symlink": [symlink("l", "../outside"), hardlink("h", "l/kept")],
    "hardlink to nothing": [hardlink("h", "missing")],
    "hardlink to dot-dot": [hardlink("h", "..")],
    "hardlink to a directory": [directory("d"), hardlink("h", "d")],
    "hardlink as the root": [entry("a"), hardlink("./", "a")],
    "file as the root": [entry("./", b"!")],
    "symlink as the root": [symlink(".", "/OUTSIDE"), entry("f", b"!")],
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("kept")
    return tmp_path


def refuse(work: Path, blob: bytes, kind: type[ImageError], *words: str) -> None:
    """Unpack, which must fail with ``kind`` and these words, and leave all as it was."""
    (work / "blob").write_bytes(blob)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(kind) as caught:
        unpack(work / "blob", work / "fs", digest(blob))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert sorted(os.listdir(work)) == ["blob", "outside"]
    assert os.listdir(work / "outside") == ["kept"]
    assert (work / "outside/kept").read_text() == "kept"
    assert (work / "outside/kept").stat().st_nlink == 1
    assert os.listxattr(work / "outside") == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("name", LEAVING)
def test_leaving_the_layer(work: Path, name: str) -> None:
    entries = LEAVING[name]
    for info, _ in entries:
        info.linkname = info.linkname.replace("/OUTSIDE", str(work / "outside"))
    guilty = entries[0 if name == "symlink as the root" else -1][0]
    refuse(work, layer(*entries), HostileLayer, f"entry '{guilty.name.rstrip('/')}")


def test_a_symlink_of_a_layer_below_is_never_followed(work: Path) -> None:
    """The layer's own directory wins over the symlink below, as in docker: its attributes are not the target's."""
    lower, plain = work / "lower", layer(entry("lib/x", b"x"))
    lower.mkdir()
    (lower / "lib").symlink_to(work / "outside")
    (work / "blob").write_bytes(plain)
    unpack(work / "blob", work / "fs", digest(plain), [lower])
    assert (work / "fs/lib/x").read_bytes() == b"x"
    assert not (work / "fs/lib").is_symlink()
    assert os.listdir(work / "outside") == ["kept"]


def damaged(plain: bytes, at: int, replacement: bytes, *, mend_checksum: bool = True) -> bytes:
    """Return an archive with bytes of its first header replaced."""
    header = bytearray(plain[:BLOCK])
    header[at : at + len(replacement)] = replacement
    if mend_checksum:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + plain[BLOCK:]


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (124, b"\xff" * 12, "size -1"),
        (124, b"\x80" + b"\x7f" * 11, "holds more than"),
        (124, b"-0000000010\0", "no number"),
        (124, b"0x000000010\0", "no number"),
        (124, b"77777777777\0", "holds more than"),
        (124, b"00007777777\0", "cut short"),
        (108, b"\xff" * 8, "owner -1"),
        (108, b"\x80\0\0\0\xff\xff\xff\xff", "owner 4294967295"),
        (136, b"\x80" + b"\x7f" * 11, "time"),
        (156, b"Z", "unknown kind"),
        (156, b"x", "PAX record"),
        (0, b"\0" * 100, "no name"),
    ],
)
def test_damaged_headers(work: Path, at: int, value: bytes, why: str) -> None:
    plain = layer(entry("file", b"50 hello=world, this is no PAX record"), entry("g"))
    refuse(work, damaged(plain, at, value), ImageError, why)


def test_a_wrong_checksum(work: Path) -> None:
    refuse(work, damaged(layer(entry("f", b"x")), 0, b"g", mend_checksum=False), ImageError, "checksum")


def test_an_extension_without_end(work: Path) -> None:
    """A PAX header that claims a gigabyte is not read into memory."""
    plain = damaged(layer(entry("f", b"x")), 156, b"x")
    refuse(work, damaged(plain, 124, b"07777777777\0"), ImageError, "an extension of")


@pytest.mark.parametrize(
    "record",
    [
        b"12 size=-100\n",
        b"11 uid=1e3\n",
        b"99 path=short\n",
        b"0 a=b\n",
        b"x path=f\n",
        b"18 path=a\0b\0c\0d\0e\n",
        b"10 no-eql\n",
    ],
)
def test_damaged_pax_records(work: Path, record: bytes) -> None:
    extension = damaged(layer(entry("pax", record)), 156, b"x")[: 2 * BLOCK]
    refuse(work, extension + layer(entry("f", b"x")), ImageError, "damaged")


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "0,10,5,10", "GNU.sparse.size": "20"},
        {"GNU.sparse.map": "0,-1", "GNU.sparse.size": "20"},
        {"GNU.sparse.map": "0,4,100,4", "GNU.sparse.size": "50"},
        {"GNU.sparse.map": "0,3", "GNU.sparse.size": "50"},
        {"GNU.sparse.map": "0", "GNU.sparse.size": "50"},
        {"GNU.sparse.map": "a,b", "GNU.sparse.size": "50"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "50"},
    ],
)
def test_damaged_sparse_maps(work: Path, headers: dict[str, str]) -> None:
    refuse(work, layer(entry("s", b"12345678", pax_headers=headers)), ImageError)


def test_garbage_after_the_end(work: Path) -> None:
    plain = layer(entry("f", b"x"))
    end = 2 * BLOCK
    refuse(work, plain[:end] + bytes(BLOCK) + b"x" * BLOCK, ImageError, "follows the end mark")


def test_a_name_that_is_too_long(work: Path) -> None:
    refuse(work, layer(entry("n" * 300, b"x")), ImageError, "File name too long")


def test_a_very_deep_path(work: Path) -> None:
    refuse(work, layer(entry("d/" * 3000 + "f", b"x")), ImageError, "File name too long")


def test_a_tree_deeper_than_recursion_and_paths_go(work: Path) -> None:
    """Through symlinks a layer nests deeper than PATH_MAX; what was unpacked of it must still go away."""
    step = "d/" * 1900
    entries = [entry(step + "f"), symlink("s", step.rstrip("/")), entry("s/" + step + "f")]
    refuse(work, layer(*entries, entry("../outside/f")), HostileLayer, "../outside/f")


def test_a_bomb_is_not_let_off(work: Path) -> None:
    """A file that says it has a terabyte is refused by its header; zeros without end, where they pass the bound."""
    header = damaged(layer(entry("bomb")), 124, b"\x80\0\0\0\0\0\1\0\0\0\0\0")[:BLOCK]
    refuse(work, zstandard.compress(header + bytes(1 << 20)), HostileLayer, "entry 'bomb'", "holds more than")
    zeros = zstandard.ZstdCompressor().compressobj()
    pieces = [zeros.compress(layer(entry("small", b"x"))[: 2 * BLOCK] + bytes(2 * BLOCK))]
    pieces += [zeros.compress(bytes(1 << 20)) for _ in range(1025)]
    refuse(work, b"".join([*pieces, zeros.flush()]), HostileLayer, "holds more than 1073741824 bytes")


def test_an_honest_layer_that_compresses_well(work: Path) -> None:
    blob = zstandard.compress(layer(entry("zeros", bytes(50 << 20))))
    (work / "blob").write_bytes(blob)
    unpack(work / "blob", work / "fs", digest(zstandard.decompress(blob)))
    assert (work / "fs/zeros").stat().st_size == 50 << 20


def test_a_million_entries(work: Path) -> None:
    """Here of the kind that unpacking passes over: their number alone is refused."""
    many = layer(entry(".wh..wh.x"))[:BLOCK] * (MOST_ENTRIES + 1)
    refuse(work, zstandard.compress(many), HostileLayer, "entry '.wh..wh.x'", "more than 1048576 entries")


@pytest.mark.parametrize("size", [(1 << 40) + 1, 1 << 62, 1 << 80])
def test_a_giant_sparse_file(work: Path, size: int) -> None:
    headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(size)}
    refuse(work, layer(entry("giant", b"x", pax_headers=headers)), ImageError, "'giant' is a sparse file of")


@pytest.mark.parametrize("loop", ["self", "pair", "parent"])
def test_loops(work: Path, loop: str) -> None:
    entries = {
        "self": [hardlink("h", "h")],
        "pair": [symlink("a", "b"), symlink("b", "a"), hardlink("h", "a/x")],
        "parent": [directory("d"), symlink("d/up", "."), entry("d/" + "up/" * 50 + "f")],
    }[loop]
    refuse(work, layer(*entries), HostileLayer, f"entry '{entries[-1][0].name}'")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.REGTYPE])
def test_names_with_nul(work: Path, kind: bytes) -> None:
    """Only PAX could carry one; in a header's own field the name ends there."""
    record = b"linkpath=a\0b\n" if kind != tarfile.REGTYPE else b"path=a\0b\n"
    length = len(record) + 3
    plain = layer(entry("pax", b"%d " % length + record))
    extension = damaged(plain, 156, b"x")[: 2 * BLOCK]
    refuse(work, extension + layer(entry("f", type=kind, linkname="x")), ImageError, "is no name")


def test_a_huge_gnu_long_name(work: Path) -> None:
    plain = layer(entry("n" * (1 << 20), b"x"), format=tarfile.GNU_FORMAT)
    refuse(work, plain, ImageError, "an extension of")


@pytest.mark.parametrize("how", ["gzip", "zstd"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_compressed_stream_cut_short(work: Path, how: str, part: float) -> None:
    whole = compressed(layer(entry("a", os.urandom(100_000)), entry("b", os.urandom(100_000))), how)
    refuse(work, whole[: int(len(whole) * part)], ImageError)


def test_somebody_swaps_directories_meanwhile(work: Path) -> None:
    """A race that cannot be in real life, for the tree is root's own: even so nothing is written outside."""
    target, over = work / "fs", threading.Event()
    plain = layer(*(entry(f"d/{number}", b"!") for number in range(3000)))
    (work / "blob").write_bytes(plain)

    def swap() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                (target / "d").rename(target / "old")
                (target / "d").symlink_to(work / "outside")
            with contextlib.suppress(OSError):
                (target / "d").unlink()
                (target / "old").rename(target / "d")

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        with contextlib.suppress(ImageError, OSError):  # OSError: it lost the race while it removed what it had made
            unpack(work / "blob", target, digest(plain))
    finally:
        over.set()
        racer.join()
    assert os.listdir(work / "outside") == ["kept"]
