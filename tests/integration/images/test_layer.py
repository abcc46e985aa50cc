"""The layer that an overlay's upper directory becomes: unpacked again above the same layers it shows the same tree."""

import os
import socket
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import ImageError
from minirt.images.image import Image, ImageConfig, Platform, chain_ids
from minirt.images.layer import commit
from minirt.images.snapshots import Overlay, Snapshots
from minirt.images.stream import Stream
from minirt.images.workspace import workspace
from tests.integration.images.tree import Mounted, facts

pytestmark = pytest.mark.root
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def image(*diff_ids: str) -> Image:
    return Image("sha256:" + "0" * 64, (), (), 0, ImageConfig(), "", Platform("linux", "amd64"), diff_ids)


def looked_at(top: Path) -> dict[str, dict[str, Any]]:
    """Return facts of a tree; the root's time is that of the container's own directory."""
    found = facts(top)
    del found["."]["mtime_ns"]
    return found


class Above:
    """Layers one above the other, each made by changing the merged view of those below."""

    def __init__(self, root: Path, point: Path) -> None:
        self.snapshots = Snapshots(root)
        self.diff_ids: list[str] = []
        self._root, self._point = root, point

    def __call__(self, change: Callable[[Path], object]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        """Return what the merged view held after ``change``, what the new layer shows there, and its entries."""
        overlay = self.snapshots.prepare(f"layer-{len(self.diff_ids)}", image(*self.diff_ids))
        with Mounted(overlay, self._point) as merged:
            change(merged)
            before = looked_at(merged)
        with workspace(self._root) as job:
            made = commit(overlay.upper, job, overlay.lowers[0])
            again = commit(overlay.upper, job, overlay.lowers[0])
            assert made == again, "the same directory gives the same bytes"
            blob = self._root / "blobs/sha256" / made.descriptor.digest[7:]
            with blob.open("rb") as file:
                assert Stream(file, "layer").finish() == made.diff_id
            with tarfile.open(blob) as tar:
                names = tar.getnames()
            self.diff_ids.append(made.diff_id)
            self.snapshots.unpack(blob, made.diff_id, chain_ids(self.diff_ids), job)
            with Mounted(self._view(), self._point) as merged:
                return before, looked_at(merged), names

    def _view(self) -> Overlay:
        return self.snapshots.prepare(f"view-{len(self.diff_ids)}", image(*self.diff_ids))


@pytest.fixture
def above(tmp_path: Path) -> Above:
    return Above(tmp_path / "store", tmp_path / "merged")


def base(top: Path) -> None:
    for name in ("etc/deep/er", "gone/sub", "opaque/old"):
        (top / name).mkdir(parents=True)
    for name in ("etc/issue", "etc/deep/er/file", "gone/sub/file", "opaque/old/file", "opaque/kept"):
        (top / name).write_text(name)
    os.link(top / "etc/issue", top / "linked")


def test_every_kind_of_file(above: Above) -> None:
    def make(top: Path) -> None:
        (top / "dir").mkdir(mode=0o750)
        file = top / "dir/file"
        file.write_bytes(os.urandom(3_000_000))
        os.chown(file, 1000, 3_000_000_000)
        os.chmod(file, 0o6755)
        os.setxattr(file, "security.capability", CAPABILITY)
        os.setxattr(file, "user.note", b"\xff\x00bytes")
        os.link(file, top / "a-link-before")
        os.link(file, top / "dir/another")
        os.symlink("/nowhere/" + "x" * 200, top / "dir/symlink")
        os.lchown(top / "dir/symlink", 5, 6)
        os.mkfifo(top / "fifo")
        os.mknod(top / "null", 0o20666, os.makedev(1, 3))
        (top / "ünï\udcff").write_text("a name of any bytes")
        (top / ("long" * 60)).mkdir()
        (top / ("long" * 60) / ("name" * 60)).write_text("a long path")
        (top / "empty").write_text("")
        os.utime(top / "empty", ns=(0, -1_500_000_000))
        os.utime(file, ns=(0, 1_700_000_000_123_456_789))

    before, after, _ = above(make)
    assert after == before


def test_what_is_deleted_and_what_hides_it(above: Above) -> None:
    above(base)

    def change(top: Path) -> None:
        subprocess.run(["rm", "-r", top / "gone", top / "opaque", top / "etc/issue"], check=True)
        (top / "opaque").mkdir()
        (top / "opaque/new").write_text("new")
        (top / "gone").write_text("a file where a directory was")

    before, after, names = above(change)
    assert after == before
    assert sorted(names) == ["etc", "etc/.wh.issue", "gone", "opaque", "opaque/.wh..wh..opq", "opaque/new"]


def test_attributes_alone(above: Above) -> None:
    above(base)

    def change(top: Path) -> None:
        os.chmod(top / "etc/deep", 0o700)
        os.chmod(top, 0o711)
        os.chown(top / "linked", 7, 8)

    before, after, names = above(change)
    assert after == before
    assert sorted(names) == [".", "etc", "etc/deep", "linked"]


def test_nothing_changed(above: Above) -> None:
    above(base)
    assert above(lambda _: None)[2] == []


def test_a_socket_is_left_out(above: Above) -> None:
    def make(top: Path) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            here = os.open(top, os.O_RDONLY)
            one.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)

    assert above(make)[2] == []


def test_what_would_not_stand_for_itself(tmp_path: Path) -> None:
    for name, mark in (("moved", "trusted.overlay.redirect"), (".wh.x", "")):
        upper = tmp_path / f"upper{name}"
        (upper / name).mkdir(parents=True)
        if mark:
            os.setxattr(upper / name, mark, b"/elsewhere")
        with workspace(tmp_path / "store") as job, pytest.raises(ImageError, match=f"make a layer of {name}"):
            commit(upper, job)
    assert not list((tmp_path / "store").glob("blobs/sha256/*"))
