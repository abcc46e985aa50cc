"""Images mounted to be looked at; and images that cannot be removed because somebody does."""

import os
from pathlib import Path

import pytest

from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.images.making import Layout, entry, layer
from tests.integration.images.tree import facts
from tests.peers.daemon import output

pytestmark = pytest.mark.root
LAYERS = [layer(entry("one", b"1"), entry("two", b"2")), layer(entry("three", b"3"), entry(".wh.one"))]
NAME = "localhost/layout:x"


@pytest.mark.parametrize("count", [1, 2])
def test_mount(minirt: Minirt, layout: Layout, tmp_path: Path, count: int) -> None:
    minirt.output("image", "load", "-q", layout.tag(layout.image(LAYERS[:count]), "x").top)
    target = tmp_path / "a target"
    target.mkdir()
    minirt.output("image", "mount", NAME, target)
    try:
        assert sorted(os.listdir(target)) == (["one", "two"] if count == 1 else ["three", "two"])
        with pytest.raises(OSError, match="Read-only"):
            (target / "new").touch()
        assert "one is mounted there" in minirt("image", "mount", NAME, target).stderr
        assert "stands on it" in minirt("image", "rm", NAME).stderr
        minirt.output("image", "prune", "--all")
        minirt.output("system", "prune")
        minirt.output("image", "rm", "-f", NAME)
        assert (target / "two").read_bytes() == b"2", "its layers stay as long as it is mounted"
        assert minirt.output("image", "fsck") == "nothing is wrong"
        busy = os.open(target, os.O_RDONLY)
        refused = minirt("image", "unmount", target)
        os.close(busy)
        assert (refused.returncode, "busy" in refused.stderr) == (125, True)
    finally:
        minirt.output("image", "unmount", target)
    assert os.listdir(target) == []
    assert os.listdir(minirt.root / "snapshots") == ["containers"]
    assert "no image is mounted there" in minirt("image", "unmount", target).stderr


def test_unmounted_by_hand(minirt: Minirt, layout: Layout, tmp_path: Path) -> None:
    """As after a reboot: the next prune gives the layers back, and the image can be mounted again."""
    minirt.output("image", "load", "-q", layout.tag(layout.image(LAYERS), "x").top)
    minirt.output("image", "mount", NAME, tmp_path)
    output("umount", tmp_path)
    minirt.output("image", "mount", NAME, tmp_path)
    output("umount", tmp_path)
    assert "removed writable layer of mount-" in minirt.output("system", "prune")
    assert facts(minirt.root / "snapshots/containers").keys() == {"."}


def test_mounts_that_cannot_be(minirt: Minirt, layout: Layout, tmp_path: Path) -> None:
    minirt.output("image", "load", "-q", layout.tag(layout.image(LAYERS), "x").top)
    assert "it is no directory" in minirt("image", "mount", NAME, tmp_path / "none").stderr
    assert "it is not in the store" in minirt("image", "mount", "localhost/other", tmp_path).stderr
    assert ImageStore(minirt.root).get(NAME)
    assert not (minirt.root / "snapshots/containers").exists()


@pytest.mark.needs("cgroup2_tree", "busybox")
def test_an_image_with_a_container_goes_by_force_only(minirt: Minirt, busybox: str) -> None:
    container = minirt.output("run", "-d", "--network", "none", busybox, "sleep", "60")
    minirt.output("image", "tag", busybox, "localhost/other")
    minirt.output("image", "rm", "localhost/other")
    refused = minirt("image", "rm", busybox)
    assert refused.returncode == 1
    assert f"container {container[:12]} stands on it (remove it first, or remove the image by force" in refused.stderr
    assert minirt.output("image", "inspect", busybox)
    minirt.output("image", "rm", "-f", busybox)
    assert minirt.output("exec", container, "echo", "lives") == "lives"
    minirt.output("rm", "-f", container)
    assert os.listdir(minirt.root / "snapshots") == ["containers"]
