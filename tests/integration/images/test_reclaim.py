"""Room on the disk: prune, gc, df; and tag and history, which say what there is."""

import json
import os
import time
from pathlib import Path

import pytest

from minirt.cli.pullprogress import megabytes
from minirt.images import reclaim
from minirt.images.snapshots import Snapshots
from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.images.making import Layout, directory, entry, layer
from tests.peers.daemon import output
from tests.peers.docker import Dockerd

pytestmark = pytest.mark.root
BIG = os.urandom(1 << 20)


def _image(store: ImageStore, layout: Layout, name: str, content: bytes) -> str:
    """Load an image of one layer and return its id."""
    made = Layout(layout.top.with_name(name))
    made.top.mkdir()
    store.load(made.tag(made.image([layer(entry("f", content))]), name).top)
    return store.get(f"localhost/{name}:{name}").id


def test_prune_takes_what_has_no_name_and_no_container(minirt: Minirt, layout: Layout) -> None:
    store = ImageStore(minirt.root)
    unnamed, used = _image(store, layout, "one", BIG), _image(store, layout, "two", b"2")
    named = _image(store, layout, "three", b"3")
    Snapshots(store.root).prepare("c", store.get(used))
    store.tag(named, "localhost/one:one")
    store.tag(named, "localhost/two:two")
    pruned = minirt.output("image", "prune").splitlines()
    assert f"Deleted: {unnamed}" in pruned
    assert pruned[-1].startswith("Total reclaimed space: 2.1")
    assert {one.id for one in store.list()} == {used, named}
    minirt.output("image", "prune", "--all")
    assert [one.id for one in store.list()] == [used]
    assert Snapshots(store.root).get("c").lowers[0].exists()
    assert minirt.output("image", "prune", "-a") == "Total reclaimed space: 0B"


def test_gc_removes_the_longest_unused_until_there_is_room(minirt: Minirt, layout: Layout, tmp_path: Path) -> None:
    """On a disk of 20 MB: three images of 2 MB each on the disk, and a file that fills the rest."""
    small = tmp_path / "small"
    small.mkdir()
    output("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small)
    try:
        own = Minirt(small / "root", minirt.state)
        store = ImageStore(own.root)
        ids = [_image(store, layout, name, os.urandom(1 << 20)) for name in ("old", "used", "new")]
        for age_s, image_id in zip((300, 3000, 200), ids, strict=True):
            when = time.time() - age_s
            os.utime(store.root / "blobs/sha256" / image_id[7:], (when, when))
        Snapshots(store.root).prepare("c", store.get(ids[1]))
        assert own.output("image", "gc").startswith("Total reclaimed space: 0B; the disk is 3")
        (small / "filler").write_bytes(b"x" * (10 << 20))
        full = reclaim.percent_used(store.root)
        assert full == pytest.approx(81, abs=3)
        assert own.output("image", "gc", "--high", "85").startswith("Total reclaimed space: 0B")
        said = own.output("image", "gc", "--high", "80", "--low", "75")
        assert "Untagged: localhost/old:old" in said
        assert {one.id for one in store.list()} == {ids[1], ids[2]}
        own.output("image", "gc", "--high", "10", "--low", "1", "--min-age", "1000")
        assert {one.id for one in store.list()} == {ids[1], ids[2]}
        own.output("image", "gc", "--high", "10", "--low", "1")
        assert [one.id for one in store.list()] == [ids[1]], "what a container stands on stays, however full it is"
        assert "--low 90 is above --high 80" in own("image", "gc", "--high", "80", "--low", "90").stderr
    finally:
        output("umount", small)


def test_a_container_makes_its_image_used_now(store: ImageStore, layout: Layout) -> None:
    image_id = _image(store, layout, "one", b"1")
    blob = store.root / "blobs/sha256" / image_id[7:]
    os.utime(blob, (1, 1))
    Snapshots(store.root).prepare("c", store.get(image_id))
    assert blob.stat().st_mtime == pytest.approx(time.time(), abs=60)


def test_df(minirt: Minirt, layout: Layout) -> None:
    store = ImageStore(minirt.root)
    _image(store, layout, "one", BIG)
    overlay = Snapshots(store.root).prepare("c", store.get(_image(store, layout, "two", b"2")))
    (overlay.upper / "file").write_bytes(BIG)
    images, containers, kept = json.loads(minirt.output("system", "df", "--json"))
    assert (images["total"], images["active"], containers["total"], kept["total"]) == (2, 1, 1, 0)
    assert images["size_bytes"] > images["reclaimable_bytes"] > 2 * len(BIG)
    assert containers["size_bytes"] >= len(BIG)
    assert containers["reclaimable_bytes"] == kept["size_bytes"] == 0
    head, *rows = minirt.output("system", "df").splitlines()
    assert head.split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert rows[0].startswith("Images")
    assert "2.1" in rows[0].split()[3]


def test_tag(minirt: Minirt, layout: Layout) -> None:
    store = ImageStore(minirt.root)
    first, second = _image(store, layout, "one", b"1"), _image(store, layout, "two", b"2")
    minirt.output("image", "tag", "localhost/one:one", "example.com/a/b")
    assert store.get("example.com/a/b:latest").id == first
    minirt.output("image", "tag", second[7:19], "example.com/a/b")
    assert store.get("example.com/a/b").id == second
    assert store.get(first).names == ("localhost/one:one",)
    refused = minirt("image", "tag", first, f"example.com/a@{first}")
    assert (refused.returncode, "a digest cannot be given" in refused.stderr) == (125, True)
    assert "it is not in the store" in minirt("image", "tag", "nothing", "x").stderr


@pytest.mark.peer
def test_history_is_dockers(minirt: Minirt, layout: Layout, dockerd: Dockerd, tmp_path: Path) -> None:
    steps = [
        {"created": "2024-05-01T10:00:00Z", "created_by": "COPY a / # buildkit", "comment": "first"},
        {"created": "2024-05-01T10:00:01Z", "created_by": "ENV A=1", "empty_layer": True},
        {"created": "2024-05-01T10:00:02Z", "created_by": "RUN " + "x" * 60},
    ]
    layers = [layer(directory("d"), entry("d/f", b"x" * 2000)), layer(entry("g", b"y" * 30_000), entry("h", b"1"))]
    layout.tag(layout.image_with_history(layers, steps), "latest")
    archive = tmp_path / "docker.tar"
    output("skopeo", "copy", f"oci:{layout.top}:latest", f"docker-archive:{archive}:localhost/layout:latest")
    minirt.output("image", "load", "-q", layout.top)
    dockerd.output("load", "--input", archive)
    form = "{{.CreatedBy}}|{{.Size}}|{{.Comment}}"
    theirs = dockerd.output("history", "--no-trunc", "--format", form, "localhost/layout").splitlines()
    told = ImageStore(minirt.root).history("localhost/layout")
    ours = [f"{one.created_by}|{megabytes(one.size_bytes)}|{one.comment}" for one in told]
    assert ours == theirs
    head, last, *_ = minirt.output("image", "history", "localhost/layout").splitlines()
    assert head.split() == ["LAYER", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert "xxx…" in last
    assert "30kB" in last
    assert len(minirt.output("image", "history", "-q", "localhost/layout").split()) == 2
