"""What a layer becomes on disk, entry by entry, and what overlayfs then shows."""

import os
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from minirt.errors import DigestMismatch, ImageError
from minirt.images.marks import is_opaque, is_whiteout
from minirt.images.unpack import unpack
from minirt.linux import mount
from tests.integration.images.making import TIME, compressed, digest, directory, entry, hardlink, layer, symlink
from tests.integration.images.tree import facts

pytestmark = pytest.mark.root
NS = 123_456_789
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""security.capability, version 2, effective: cap_net_bind_service."""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "layers").mkdir(mode=0o700)
    return tmp_path / "layers"


def unpacked(work: Path, plain: bytes, *lowers: Path, how: str = "plain") -> Path:
    blob = work / f"blob-{digest(plain)[7:19]}"
    blob.write_bytes(compressed(plain, how))
    target = work / f"fs-{digest(plain)[7:19]}"
    unpack(blob, target, digest(plain), lowers)
    return target


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_each_compression(work: Path, how: str) -> None:
    top = unpacked(work, layer(entry("big", os.urandom(3_000_000)), entry("small", b"x")), how=how)
    assert (top / "big").stat().st_size == 3_000_000
    assert (top / "small").read_bytes() == b"x"


def test_gzip_of_several_members(work: Path) -> None:
    plain = layer(entry("a", b"1" * 5000), entry("b", b"2" * 5000))
    blob = work / "blob"
    blob.write_bytes(compressed(plain[:3000], "gzip") + compressed(plain[3000:], "gzip"))
    unpack(blob, work / "fs", digest(plain))
    assert (work / "fs/b").read_bytes() == b"2" * 5000


def test_modes_owners_and_times(work: Path) -> None:
    pax = {"mtime": f"{TIME}.{NS}"}
    top = unpacked(
        work,
        layer(
            directory("d", mode=0o1777, uid=5, gid=6, pax_headers=pax),
            entry("d/setuid", b"#!", mode=0o6755, uid=1000, gid=2000, pax_headers=pax),
            symlink("d/link", "/etc/nowhere", uid=7, gid=8, pax_headers=pax),
            entry("huge-id", uid=3_000_000_000, gid=4_000_000_000),
            entry("ancient", mtime=0),
            entry("before-1970", pax_headers={"mtime": "-1.5"}),
        ),
    )
    for name, mode, owner in (("d", 0o1777, (5, 6)), ("d/setuid", 0o6755, (1000, 2000)), ("d/link", 0o777, (7, 8))):
        info = (top / name).lstat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (mode, *owner)
        assert info.st_mtime_ns == TIME * 10**9 + NS, name
    assert (top / "huge-id").stat().st_uid == 3_000_000_000
    assert (top / "ancient").stat().st_mtime_ns == 0
    assert (top / "before-1970").stat().st_mtime_ns == -1_500_000_000


def test_a_restrictive_umask_changes_nothing(work: Path) -> None:
    before = os.umask(0o077)
    try:
        top = unpacked(work, layer(entry("implied/f", mode=0o666)))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((top / name).stat().st_mode) for name in (".", "implied", "implied/f")] == [
        0o755,
        0o755,
        0o666,
    ]


def test_devices_fifos_and_links(work: Path) -> None:
    top = unpacked(
        work,
        layer(
            entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=17, mode=0o660, gid=6),
            entry("fifo", type=tarfile.FIFOTYPE, mode=0o600),
            directory("a"),
            directory("b"),
            entry("a/one", b"same", mode=0o4711),
            hardlink("b/two", "a/one"),
            hardlink("three", "./b/two"),
        ),
    )
    null, disk = (top / "null").stat(), (top / "disk").stat()
    assert stat.S_ISCHR(null.st_mode)
    assert (os.major(null.st_rdev), os.minor(null.st_rdev), stat.S_IMODE(null.st_mode)) == (1, 3, 0o666)
    assert stat.S_ISBLK(disk.st_mode)
    assert (os.major(disk.st_rdev), os.minor(disk.st_rdev), disk.st_gid) == (8, 17, 6)
    assert (top / "fifo").is_fifo()
    assert (top / "a/one").stat().st_ino == (top / "b/two").stat().st_ino == (top / "three").stat().st_ino
    assert stat.S_IMODE((top / "three").stat().st_mode) == 0o4711


def test_xattrs_and_capabilities(work: Path) -> None:
    headers = {
        "SCHILY.xattr.security.capability": CAPABILITY.decode(errors="surrogateescape"),
        "SCHILY.xattr.user.note": "line\nand = sign",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
    }
    top = unpacked(
        work, layer(entry("ping", b"x", mode=0o755, uid=3, pax_headers=headers), directory("d", pax_headers=headers))
    )
    assert os.getxattr(top / "ping", "security.capability") == CAPABILITY
    for name in ("ping", "d"):
        assert os.getxattr(top / name, "user.note") == b"line\nand = sign"
        assert not [key for key in os.listxattr(top / name) if "overlay" in key], "the layer must not steer overlayfs"


def test_long_and_odd_names(work: Path) -> None:
    deep = "/".join(["d" * 100] * 5)
    names = [f"{deep}/{'f' * 200}", "späte ñamen", os.fsdecode(b"not \xff utf-8"), "new\nline", "-rf", "back\\slash"]
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        (work / str(kind)).mkdir()
        entries = [*(entry(name, name.encode(errors="surrogateescape")) for name in names), symlink("l", "t" * 300)]
        top = unpacked(work / str(kind), layer(*entries, format=kind))
        for name in names:
            assert (top / name).read_bytes() == os.fsencode(name)
        assert os.readlink(top / "l") == "t" * 300


def test_names_are_below_the_root_however_they_are_written(work: Path) -> None:
    top = unpacked(
        work, layer(directory("./"), entry("/abs", b"1"), entry("./dot", b"2"), entry("a/../b/./c//d", b"3"))
    )
    assert {name: (top / name).read_bytes() for name in ("abs", "dot", "b/c/d")} == {
        "abs": b"1",
        "dot": b"2",
        "b/c/d": b"3",
    }


def test_the_root_entry_has_attributes(work: Path) -> None:
    info = unpacked(work, layer(directory("./", mode=0o700, uid=9, gid=10))).stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o700, 9, 10, TIME)


def test_later_entries_replace_earlier_ones(work: Path) -> None:
    top = unpacked(
        work,
        layer(
            entry("f", b"old, and longer"),
            entry("f", b"new"),
            directory("dir-then-file"),
            entry("dir-then-file/x"),
            entry("dir-then-file", b"file"),
            entry("file-then-dir"),
            directory("file-then-dir"),
            entry("file-then-dir/x", b"x"),
            symlink("link-then-dir", "file-then-dir"),
            directory("link-then-dir"),
            entry("link-then-dir/y"),
            directory("twice", mode=0o700),
            entry("twice/kept"),
            directory("twice", mode=0o711),
            entry("a", b"a"),
            hardlink("b", "a"),
            entry("b", b"b"),
            hardlink("a", "a"),
        ),
    )
    assert (top / "f").read_bytes() == b"new"
    assert (top / "dir-then-file").read_bytes() == b"file"
    assert (top / "file-then-dir/x").read_bytes() == b"x"
    assert not (top / "link-then-dir").is_symlink()
    assert not (top / "file-then-dir/y").exists()
    assert stat.S_IMODE((top / "twice").stat().st_mode) == 0o711
    assert (top / "twice/kept").exists()
    assert ((top / "a").read_bytes(), (top / "b").read_bytes()) == (b"a", b"b"), "a hardlink's other name is untouched"


def test_symlinks_are_stored_as_they_are(work: Path) -> None:
    targets = ("/etc/shadow", "../../../../etc", "/proc/self/root", "self", ".", "x" * 4095)
    top = unpacked(work, layer(*(symlink(f"l{count}", target) for count, target in enumerate(targets))))
    assert tuple(os.readlink(top / f"l{count}") for count in range(len(targets))) == targets


def test_whiteouts_take_overlayfs_form(work: Path) -> None:
    lower = unpacked(work, layer(entry("gone"), directory("emptied"), entry("emptied/x"), directory("d"), entry("d/y")))
    upper = unpacked(
        work,
        layer(
            entry(".wh.gone"),
            entry("emptied/.wh..wh..opq"),
            entry("emptied/new"),
            entry("d/.wh.y"),
            entry(".wh..wh.plnk"),
        ),
        lower,
    )
    assert is_whiteout((upper / "gone").lstat())
    assert is_whiteout((upper / "d/y").lstat())
    assert is_opaque(upper / "emptied")
    assert not is_opaque(upper / "d")
    assert sorted(os.listdir(upper)) == ["d", "emptied", "gone"]


def test_a_whiteout_of_nothing_makes_nothing(work: Path) -> None:
    """A device 0:0 in a directory that overlayfs does not merge would be listed, and not be there."""
    lower = unpacked(work, layer(directory("d"), symlink("l", "d")))
    upper = unpacked(work, layer(entry("d/.wh.never-there"), entry("l/.wh.x"), entry(".wh.d2")), lower)
    assert [name for _, _, files in os.walk(upper) for name in files] == []


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_hides_what_is_below_and_not_what_its_layer_has(work: Path, whiteout_first: bool) -> None:
    lower = unpacked(work, layer(directory("d"), entry("d/old"), entry("f", b"old")))
    marks, things = [entry(".wh.d"), entry(".wh.f")], [directory("d"), entry("d/new"), entry("f", b"new")]
    upper = unpacked(work, layer(*(marks + things if whiteout_first else things + marks)), lower)
    assert is_opaque(upper / "d")
    assert os.listdir(upper / "d") == ["new"]
    assert (upper / "f").read_bytes() == b"new"


def test_a_file_below_a_whiteout_of_its_own_layer(work: Path) -> None:
    lower = unpacked(work, layer(directory("d"), entry("d/old")))
    upper = unpacked(work, layer(entry(".wh.d"), entry("d/new")), lower)
    assert is_opaque(upper / "d")
    assert os.listdir(upper / "d") == ["new"]


def test_a_parent_without_an_entry_looks_as_it_does_below(work: Path) -> None:
    bottom = unpacked(work, layer(directory("tmp", mode=0o1777, uid=1, gid=2), directory("srv", mode=0o700)))
    middle = unpacked(work, layer(directory("srv", mode=0o750, gid=3)), bottom)
    top = unpacked(work, layer(entry("tmp/x"), entry("srv/x"), entry("fresh/x")), middle, bottom)
    shown = {name: (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, int(info.st_mtime)) for name in
             ("tmp", "srv") for info in [(top / name).stat()]}  # fmt: skip
    assert shown == {"tmp": (0o1777, 1, 2, TIME), "srv": (0o750, 0, 3, TIME)}
    assert stat.S_IMODE((top / "fresh").stat().st_mode) == 0o755


def test_a_relative_symlink_of_the_same_layer_is_followed_as_docker_does(work: Path) -> None:
    """dockerd 20.10 unpacks in a chroot and follows it too; see test_parity.py."""
    top = unpacked(work, layer(directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), entry("lib/x", b"x")))
    assert (top / "lib").is_symlink()
    assert (top / "usr/lib/x").read_bytes() == b"x"


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files(work: Path, version: str) -> None:
    original = work / "sparse"
    with original.open("wb") as file:
        for offset in range(0, 40 << 20, 1 << 20):
            file.seek(offset)
            file.write(os.urandom(5000))
        file.truncate(50 << 20)
    kind = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    archive = work / "sparse.tar"
    subprocess.run(["tar", "-C", work, "--sparse", *kind, "-cf", archive, "sparse"], check=True)
    unpack(archive, work / "fs", digest(archive.read_bytes()))
    assert (work / "fs/sparse").read_bytes() == original.read_bytes()
    assert (work / "fs/sparse").stat().st_blocks * 512 < 2 << 20


def test_the_wrong_diff_id_leaves_nothing(work: Path) -> None:
    (work / "blob").write_bytes(layer(entry("f", b"f")))
    with pytest.raises(DigestMismatch, match="do not fit"):
        unpack(work / "blob", work / "fs", digest(b"something else"))
    assert os.listdir(work) == ["blob"]


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_a_layer_cut_short_leaves_nothing(work: Path, how: str) -> None:
    plain = layer(entry("a", os.urandom(100_000)), entry("b", os.urandom(100_000)))
    whole = compressed(plain, how)
    for length in (len(whole) // 3, len(whole) - 20):
        (work / "blob").write_bytes(whole[:length])
        with pytest.raises(ImageError):
            unpack(work / "blob", work / "fs", digest(plain))
        assert os.listdir(work) == ["blob"]


def test_damaged_gzip_is_said_to_be_damaged(work: Path) -> None:
    data = bytearray(compressed(layer(entry("a", os.urandom(500_000))), "gzip"))
    data[200_000] ^= 0xFF
    (work / "blob").write_bytes(data)
    with pytest.raises(ImageError):
        unpack(work / "blob", work / "fs", digest(b""))
    assert os.listdir(work) == ["blob"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    plain = layer(directory("d"), entry("d/too-big", bytes(3 << 20)))
    (tmp_path / "blob").write_bytes(plain)
    mount.mount("tmpfs", str(small), "tmpfs", 0, "size=1m")
    try:
        with pytest.raises(ImageError, match=r"entry 'd/too-big': No space left on device \(free space there"):
            unpack(tmp_path / "blob", small / "fs", digest(plain))
        assert os.listdir(small) == []
    finally:
        mount.umount2(str(small))


def test_what_tar_made_is_what_comes_out(work: Path) -> None:
    """GNU tar reads a tree of this machine, /usr/lib's symlinks and hardlinks and all; unpacked, it is that tree."""
    source = Path("/usr/share/perl5") if Path("/usr/share/perl5").exists() else Path("/etc")
    archive = work / "tree.tar"
    flags = ["--format=posix", "--pax-option=delete=atime,delete=ctime", "--xattrs", "--xattrs-include=*"]
    subprocess.run(["tar", "-C", source, *flags, "-cf", archive, "."], check=True)
    unpack(archive, work / "fs", digest(archive.read_bytes()))
    assert facts(work / "fs") == facts(source)


def test_an_empty_layer(work: Path) -> None:
    assert os.listdir(unpacked(work, layer())) == []
    (work / "nothing").write_bytes(b"")
    unpack(work / "nothing", work / "fs2", digest(b""))
    assert os.listdir(work / "fs2") == []


def test_no_descriptor_is_left_after_failure(work: Path) -> None:
    (work / "blob").write_bytes(layer(entry("a"))[:100])
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(ImageError):
            unpack(work / "blob", work / "fs", digest(b""))
    assert len(os.listdir("/proc/self/fd")) == len(before)
