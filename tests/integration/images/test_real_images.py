"""Real images, attribute for attribute: Debian as mmdebstrap makes it and busybox, packed by umoci, unpacked by each.

What is compared of every file: type, mode, owner, size and content, mtime to the nanosecond, xattrs, device number, and
which names are links to the same file.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minirt.images.snapshots import Snapshots
from minirt.images.store import ImageStore
from minirt.linux import mount
from tests import isolation
from tests.integration.images.making import directory, entry, layer, symlink
from tests.integration.images.tree import Mounted, facts
from tests.peers.containerd import Containerd
from tests.peers.daemon import output

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.slow, pytest.mark.needs("umoci", "mmdebstrap", "busybox")]
SUITE = "bookworm"
CHANGES = layer(
    directory("etc", mtime=1_700_000_100),
    entry("etc/debian_version", b"replaced\n"),
    entry("etc/.wh.issue"),
    entry("usr/share/.wh.doc"),
    directory("var/log/apt", mode=0o700),
    entry("var/log/apt/.wh..wh..opq"),
    entry("var/log/apt/new", b"n"),
    symlink("etc/resolv.conf", "/run/resolv.conf"),
    entry("opt", b"a file in a directory's place"),
)
"""One more layer on top of Debian's: things replaced, deleted, emptied and added."""
IMPLIED = {"usr", "usr/share", "var", "var/log"}
"""Directories that CHANGES writes in and has no entry of: containerd gives them the time of the unpacking, umoci and
minirt leave them the time they have below."""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout that holds Debian (``debian:latest``, two layers). The mirror is in the machine's own network."""
    where = tmp_path_factory.mktemp("debian")
    tree = where / "debian.tar"
    network = f"--net=/proc/{os.getpid()}/fd/{isolation.outside[0]}"
    make = ["nsenter", network, "mmdebstrap", "--quiet", "--variant=essential", SUITE, tree]
    made = subprocess.run(make, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"mmdebstrap: no mirror of Debian is in reach: {made.stderr.strip()[-200:]}")
    (where / "changes.tar").write_bytes(CHANGES)
    return _packed(where / "debian", tree, where / "changes.tar")


def _packed(layout: Path, *archives: Path) -> Path:
    output("umoci", "init", "--layout", layout)
    output("umoci", "new", "--image", f"{layout}:latest")
    for archive in archives:
        output("umoci", "raw", "add-layer", "--image", f"{layout}:latest", archive)
    return layout


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, busybox_root: Path) -> Path:
    """An OCI layout that holds busybox (``bare:latest``)."""
    layout = tmp_path_factory.mktemp("bare") / "bare"
    output("umoci", "init", "--layout", layout)
    output("umoci", "new", "--image", f"{layout}:latest")
    output("umoci", "insert", "--image", f"{layout}:latest", busybox_root, "/")
    return layout


@pytest.fixture(params=["debian", "bare"])
def image(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def _ours(layout: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    store = ImageStore(tmp_path / "store")
    (found,) = store.load(layout)
    with Mounted(Snapshots(store.root).prepare("parity", found), tmp_path / "merged") as merged:
        return facts(merged)


def differences(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> list[str]:
    """Return each name that only one has, and each attribute that differs.

    The root's time is that of the upper directory, for overlayfs.
    """
    ours["."]["mtime_ns"] = theirs["."]["mtime_ns"]
    found = [f"{name}: only {'ours' if name in ours else 'theirs'}" for name in ours.keys() ^ theirs.keys()]
    for name in ours.keys() & theirs.keys():
        for key, value in ours[name].items():
            if value != theirs[name][key]:
                found.append(f"{name}: {key} is {value!r} and theirs {theirs[name][key]!r}"[:300])
    return sorted(found)


def test_umoci_unpacks_the_same(image: Path, tmp_path: Path) -> None:
    output("umoci", "raw", "unpack", "--image", f"{image}:latest", tmp_path / "umoci")
    mine, theirs = _ours(image, tmp_path), facts(tmp_path / "umoci")
    assert len(mine) > 250
    assert differences(mine, theirs) == []


@pytest.mark.needs("containerd")
def test_containerd_unpacks_the_same(containerd: Containerd, image: Path, tmp_path: Path) -> None:
    packed, point = tmp_path / "parity.tar", tmp_path / "containerd"
    output("tar", "-C", image, "-cf", packed, ".")
    containerd.output("images", "import", "--base-name", "localhost/real", packed)
    point.mkdir()
    containerd.output("images", "mount", "localhost/real:latest", point)
    try:
        theirs = facts(point)
    finally:
        mount.umount2(str(point))
        containerd.output("snapshots", "rm", str(point))
        containerd.output("images", "rm", "localhost/real:latest")
    mine = _ours(image, tmp_path)
    for name in IMPLIED & mine.keys():
        assert theirs[name].pop("mtime_ns") >= mine[name].pop("mtime_ns")
    assert differences(mine, theirs) == []
