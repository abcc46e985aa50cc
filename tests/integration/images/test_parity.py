"""The same layers through docker, containerd and umoci: what a container sees must be what it sees here."""

import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import HostileLayer
from minirt.images.snapshots import Overlay, Snapshots
from minirt.images.store import ImageStore
from minirt.linux import mount
from tests.integration.images.making import Layout, directory, entry, hardlink, layer, symlink
from tests.integration.images.tree import Mounted, facts
from tests.peers.containerd import Containerd
from tests.peers.daemon import output
from tests.peers.docker import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.peer]
Facts = dict[str, dict[str, Any]]
NS = {"mtime": "1700000000.123456789"}
CAPABILITY = {"SCHILY.xattr.security.capability": struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode(), **NS}

ORDINARY = (
    layer(
        directory("./", pax_headers=NS),
        directory("bin", pax_headers=NS),
        entry("bin/ping", b"\x7fELF", mode=0o755, uid=3, gid=4, pax_headers=CAPABILITY),
        entry("bin/su", b"\x7fELF", mode=0o4755, uid=3, gid=4, pax_headers=NS),
        hardlink("bin/doas", "bin/su", mode=0o4755, uid=3, gid=4, pax_headers=NS),
        symlink("lib", "usr/lib", pax_headers=NS),
        directory("usr", pax_headers=NS),
        directory("usr/lib", pax_headers=NS),
        entry("usr/lib/libc.so", b"c", pax_headers=NS),
        directory("tmp", mode=0o1777, pax_headers=NS),
        directory("old", pax_headers=NS),
        entry("old/a", pax_headers=NS),
        entry("old/b", pax_headers=NS),
        directory("hidden", pax_headers=NS),
        entry("hidden/below", pax_headers=NS),
        entry("file-then-dir", b"f", pax_headers=NS),
        directory("dir-then-file", pax_headers=NS),
        entry("dir-then-file/x", pax_headers=NS),
        entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, pax_headers=NS),
        entry("fifo", type=tarfile.FIFOTYPE, pax_headers=NS),
        symlink("dangling", "/no/such/place", uid=9, pax_headers=NS),
    ),
    layer(
        directory("old", pax_headers=NS),
        entry("old/.wh.a"),
        directory("hidden", pax_headers=NS),
        entry("hidden/.wh..wh..opq"),
        entry("hidden/above", pax_headers=NS),
        entry(".wh.fifo"),
        directory("file-then-dir", mode=0o700, pax_headers=NS),
        entry("dir-then-file", b"f", pax_headers=NS),
        directory("bin", mode=0o711, uid=1, pax_headers=NS),
        entry("bin/new", b"n", pax_headers=NS),
    ),
)
OVER_A_SYMLINK = (ORDINARY[0], layer(directory("lib", pax_headers=NS), entry("lib/x", b"x", pax_headers=NS)))
OVER_A_SYMLINK_IMPLIED = (ORDINARY[0], layer(entry("lib/x", b"x", pax_headers=NS)))
THROUGH_OWN_SYMLINK = (
    layer(*(directory(d) for d in ("usr", "usr/lib")), symlink("lib", "usr/lib"), entry("lib/x", b"x")),
)
THROUGH_ABSOLUTE_SYMLINK = (
    layer(*(directory(d) for d in ("usr", "usr/lib")), symlink("lib", "/usr/lib"), entry("lib/x", b"x")),
)


def archive(where: Path, layers: tuple[bytes, ...], name: str) -> Path:
    """Return a docker archive of these layers, which every peer and minirt load."""
    layout = Layout(where / f"layout-{name}")
    layout.top.mkdir(parents=True)
    layout.tag(layout.image(layers, how="gzip"), "latest")
    target = where / f"{name}.tar"
    output("skopeo", "copy", f"oci:{layout.top}:latest", f"docker-archive:{target}:localhost/parity-{name}:latest")
    return target


def ours(store: ImageStore, image_archive: Path, tmp_path: Path) -> Facts:
    (image,) = store.load(image_archive)
    with Mounted(Snapshots(store.root).prepare("parity", image), tmp_path / "merged") as merged:
        return facts(merged)


def dockers(dockerd: Dockerd, image_archive: Path, name: str, tmp_path: Path) -> Facts:
    dockerd.output("load", "--input", image_archive)
    data = json.loads(dockerd.output("image", "inspect", f"localhost/parity-{name}"))[0]["GraphDriver"]["Data"]
    lowers = [Path(data["UpperDir"]), *map(Path, filter(None, data.get("LowerDir", "").split(":")))]
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    with Mounted(Overlay(tuple(lowers), tmp_path / "upper", tmp_path / "work"), tmp_path / "docker") as merged:
        return facts(merged)


def without_root(found: Facts) -> Facts:
    """Leave out the root directory: docker's image layers have it with the time they were unpacked."""
    return {name: values for name, values in found.items() if name != "."}


@pytest.mark.needs("docker", "skopeo")
@pytest.mark.parametrize(("name", "layers"), [("ordinary", ORDINARY), ("oversymlink", OVER_A_SYMLINK)])
def test_a_container_sees_what_it_sees_in_docker(
    dockerd: Dockerd, store: ImageStore, tmp_path: Path, name: str, layers: tuple[bytes, ...]
) -> None:
    made = archive(tmp_path, layers, name)
    mine = without_root(ours(store, made, tmp_path))
    assert mine == without_root(dockers(dockerd, made, name, tmp_path))
    if name == "oversymlink":
        assert mine["lib"]["target"] == "", "a real directory now hides the symlink below"
        assert "lib/libc.so" not in mine
        assert mine["usr/lib/libc.so"]["content"] == b"c"


@pytest.mark.needs("docker", "skopeo")
def test_an_implied_directory_over_a_symlink_of_a_lower_layer(
    dockerd: Dockerd, store: ImageStore, tmp_path: Path
) -> None:
    """A layer with lib/x alone, over a lower layer's symlink lib: lib becomes a directory, in docker and here."""
    made = archive(tmp_path, OVER_A_SYMLINK_IMPLIED, "implied")
    mine, theirs = ours(store, made, tmp_path), dockers(dockerd, made, "implied", tmp_path)
    for found in (mine, theirs):
        assert found["lib"]["target"] == ""
        assert found["lib/x"]["content"] == b"x"
        assert "usr/lib/x" not in found
    assert mine["lib"]["mode"] == "0o40755"


@pytest.mark.needs("docker", "skopeo")
def test_a_symlink_of_the_same_layer(dockerd: Dockerd, store: ImageStore, tmp_path: Path) -> None:
    """Docker follows it, inside of its chroot: so do we while it is relative and stays inside."""
    made = archive(tmp_path, THROUGH_OWN_SYMLINK, "through")
    for found in (ours(store, made, tmp_path), dockers(dockerd, made, "through", tmp_path)):
        assert found["lib"]["target"] == "usr/lib"
        assert found["usr/lib/x"]["content"] == b"x"


@pytest.mark.needs("docker", "skopeo")
def test_an_absolute_symlink_of_the_same_layer(dockerd: Dockerd, store: ImageStore, tmp_path: Path) -> None:
    """Docker follows this one too, as its root is the layer; here it leads out of the layer, and is refused."""
    made = archive(tmp_path, THROUGH_ABSOLUTE_SYMLINK, "absolute")
    assert dockers(dockerd, made, "absolute", tmp_path)["usr/lib/x"]["content"] == b"x"
    with pytest.raises(HostileLayer, match="entry 'lib/x'"):
        store.load(made)


@pytest.mark.needs("umoci")
def test_a_container_sees_what_umoci_unpacks(store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    layout.tag(layout.image(ORDINARY), "parity")
    output("umoci", "raw", "unpack", "--image", f"{layout.top}:parity", tmp_path / "umoci")
    (image,) = store.load(layout.top)
    with Mounted(Snapshots(store.root).prepare("parity", image), tmp_path / "merged") as merged:
        mine, theirs = facts(merged), facts(tmp_path / "umoci")
    for path in ("old", "hidden", "."):
        assert mine[path].pop("mtime_ns")
        assert theirs[path].pop("mtime_ns")
    assert mine == theirs


@pytest.mark.needs("containerd")
def test_a_container_sees_what_it_sees_in_containerd(containerd: Containerd, store: ImageStore, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.top.mkdir()
    layout.tag(layout.image(ORDINARY), "latest")
    packed = tmp_path / "parity.tar"
    output("tar", "-C", layout.top, "-cf", packed, ".")
    containerd.output("images", "import", "--base-name", "localhost/parity", packed)
    (tmp_path / "containerd").mkdir()
    containerd.output("images", "mount", "localhost/parity:latest", tmp_path / "containerd")
    try:
        theirs = facts(tmp_path / "containerd")
    finally:
        mount.umount2(str(tmp_path / "containerd"))
        containerd.output("snapshots", "rm", str(tmp_path / "containerd"))
        containerd.output("images", "rm", "localhost/parity:latest")
    assert without_root(ours(store, packed, tmp_path)) == without_root(theirs)
