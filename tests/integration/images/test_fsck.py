"""``minirt image fsck``: each kind of damage is found, said in words, and repaired; what is whole is kept."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.images.making import Layout, compressed, digest, entry, layer
from tests.integration.images.serving import Server

pytestmark = pytest.mark.root
LAYERS = [layer(entry("one", b"1" * 5000)), layer(entry("two", b"2"), entry(".wh.one"))]
TOP = digest(compressed(LAYERS[1], "gzip"))[7:]
NAME = "localhost/layout:latest"


@pytest.fixture
def root(minirt: Minirt, layout: Layout) -> Path:
    """The root of a store that holds an image of two layers."""
    minirt.output("image", "load", "-q", layout.tag(layout.image(LAYERS), "latest").top)
    assert minirt.output("image", "fsck") == "nothing is wrong"
    return minirt.root


def _layer_of(root: Path, name: str) -> Path:
    return next(path.parents[1] for path in root.glob(f"snapshots/*/fs/{name}"))


def _truncate(root: Path) -> None:
    os.truncate(root / "blobs/sha256" / TOP, 10)


def _flip_a_bit(root: Path) -> None:
    path = root / "blobs/sha256" / TOP
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _lose_a_blob(root: Path) -> None:
    (root / "blobs/sha256" / TOP).unlink()


def _lose_the_config(root: Path) -> None:
    (root / "blobs/sha256" / ImageStore(root).get(NAME).id[7:]).unlink()


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit, _lose_a_blob, _lose_the_config])
def test_a_damaged_blob(minirt: Minirt, root: Path, layout: Layout, damage: Callable[[Path], None]) -> None:
    """The image goes, and the next pull fetches what is missing and nothing else."""
    before = set(os.listdir(root / "blobs/sha256"))
    damage(root)
    seen = minirt("image", "fsck")
    assert seen.returncode == 1
    assert f"image {NAME}: its blob " in seen.stdout
    assert "--repair: it is removed" in seen.stdout
    minirt.output("image", "fsck", "--repair")
    assert minirt.output("image", "fsck") == "nothing is wrong"
    assert minirt.output("image", "ls", "-q") == ""
    with Server(layout) as server:
        minirt.output("image", "pull", "-q", f"{server.host}/x")
        assert len([request for request in server.requests if "/blobs/" in request.path]) == 1
    assert set(os.listdir(root / "blobs/sha256")) == before
    assert os.listdir(root / "tmp") == [".lock"]


def _lose_a_layer(root: Path) -> None:
    shutil.rmtree(_layer_of(root, "two"))


def _halve_a_layer(root: Path) -> None:
    shutil.rmtree(_layer_of(root, "two") / "fs")


def _put_a_file_in_its_place(root: Path) -> None:
    path = _layer_of(root, "two")
    shutil.rmtree(path)
    path.write_text("?")


@pytest.mark.parametrize("damage", [_lose_a_layer, _halve_a_layer, _put_a_file_in_its_place])
def test_a_damaged_layer_is_unpacked_again(minirt: Minirt, root: Path, damage: Callable[[Path], None]) -> None:
    damage(root)
    seen = minirt("image", "fsck")
    assert (seen.returncode, f"image {NAME}: its layer " in seen.stdout) == (1, True)
    minirt.output("image", "fsck", "--repair")
    assert minirt.output("image", "fsck") == "nothing is wrong"
    assert (_layer_of(root, "two") / "fs/two").read_bytes() == b"2"


def test_a_damaged_index_is_made_anew(minirt: Minirt, root: Path) -> None:
    image = ImageStore(root).get(NAME)
    (root / "images.json").write_text('{"images": [{')
    assert "see minirt image fsck" in minirt("image", "ls").stderr
    assert minirt("image", "fsck").returncode == 1
    minirt.output("image", "fsck", "--repair")
    assert minirt.output("image", "fsck") == "nothing is wrong"
    assert (root / "images.json.damaged").read_text() == '{"images": [{'
    minirt.output("image", "tag", image.id, NAME)
    assert ImageStore(root).get(NAME).diff_ids == image.diff_ids


def test_what_crashes_leave(minirt: Minirt, root: Path) -> None:
    """Files of dead jobs, leases that are damaged or too old, trash, half-made layers of containers, garbage."""
    old, damaged, dead = (root / "tmp" / name for name in ("old", "damaged", "dead"))
    for job, lease in ((old, "[]"), (damaged, "["), (dead, '["sha256:' + "0" * 64 + '"]')):
        job.mkdir()
        (job / "lease.json").write_text(lease)
    two_days_ago = time.time() - 2 * 86400
    os.utime(old / "lease.json", (two_days_ago, two_days_ago))
    (dead / "blob-1").write_text("half")
    (root / "tmp/stray").write_text("?")
    (root / "trash/gone").mkdir(parents=True)
    (root / "snapshots/containers/c~/upper").mkdir(parents=True)
    (root / "images.json.new").write_text("{")
    (root / "blobs/sha256/not-a-digest").write_text("?")
    seen = minirt("image", "fsck")
    assert seen.returncode == 1
    said = "\n".join(sorted(seen.stdout.splitlines()))
    for line in (
        "blob not-a-digest: its content is ",
        "images.json.new: whoever began with it has died",
        "tmp/damaged: ",
        "tmp/dead/blob-1: its job has died",
        "tmp/old: its lease is 48 hours old",
        "tmp/stray: it is no job's",
        "trash/gone: whoever began with it has died",
        "writable layer c~: it is half made",
    ):
        assert line in said
    minirt.output("image", "fsck", "--repair")
    assert minirt.output("image", "fsck") == "nothing is wrong"
    assert sorted(os.listdir(root / "tmp")) == [".lock", "dead"]
    assert ImageStore(root).get(NAME)


def test_a_container_without_its_layer(minirt: Minirt, root: Path) -> None:
    """Nothing here can bring it back: it is said, and fsck fails, until the container is removed."""
    home = root / "snapshots/containers/c"
    home.mkdir(parents=True)
    (home / "layers.json").write_text(json.dumps(["sha256:" + "0" * 64]))
    done = minirt("image", "fsck", "--repair")
    assert (done.returncode, done.stdout) == (1, f"container c: its layer {'0' * 64} is not here\n")


def test_a_pull_at_work_is_left_alone(minirt: Minirt, root: Path, layout: Layout) -> None:
    from tests.integration.images.test_failures import StallOnce
    from tests.peers.daemon import await_true

    other = layout.tag(layout.image([layer(entry("three", b"3"))]), "other")
    wanted = digest(compressed(layer(entry("three", b"3")), "gzip"))
    with Server(other) as server:
        stalled = StallOnce(server, wanted)
        server.hook = stalled
        with minirt.start("image", "pull", "-q", f"{server.host}/x:other") as process:
            await_true(stalled.reached.is_set, "the layer's request")
            assert minirt.output("image", "fsck", "--repair") == "nothing is wrong"
            server.released.set()
            server.hook = lambda _: None
            process.communicate(timeout=30)
        minirt.output("image", "pull", "-q", f"{server.host}/x:other")
    assert minirt.output("image", "fsck") == "nothing is wrong"
