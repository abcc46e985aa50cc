"""Images of many layers: more than a mount's options, a page of 4096 bytes, could name."""

import io
import tarfile
from pathlib import Path

import pytest

from minirt.errors import Unsupported
from minirt.images.install import MOST_LAYERS
from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.images.making import Layout, entry, layer

pytestmark = pytest.mark.root


def _rootfs(root: Path) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(root, arcname=".")
    return made.getvalue()


def _stack(count: int) -> list[bytes]:
    """Return layers that each replace one file, add one, and delete the one that the layer below added."""
    return [
        layer(entry("top", b"%d" % number), entry(f"file{number}"), entry(f".wh.file{number - 1}"))
        for number in range(count)
    ]


@pytest.mark.needs("cgroup2_tree", "busybox")
@pytest.mark.parametrize("count", [200, MOST_LAYERS])
def test_a_container_of_many_layers(minirt: Minirt, layout: Layout, busybox_root: Path, count: int) -> None:
    layout.tag(layout.image([_rootfs(busybox_root), *_stack(count - 1)]), "many")
    minirt.output("image", "load", "-q", layout.top)
    name = "localhost/layout:many"
    told = minirt.output("run", "--rm", "--network", "none", name, "sh", "-c", "cat /top; echo; ls -d /file*")
    assert told.split() == [str(count - 2), f"/file{count - 2}"]


def test_more_layers_than_overlayfs_stacks(store: ImageStore, layout: Layout) -> None:
    layout.tag(layout.image(_stack(MOST_LAYERS + 1)), "many")
    with pytest.raises(Unsupported, match="501 layers, and overlayfs stacks no more than 500"):
        store.load(layout.top)
    assert store.list() == []
