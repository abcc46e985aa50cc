"""Pulling from Debian's docker-registry, with skopeo as the producer."""

import os
import socket
from pathlib import Path

import pytest

from minirt.errors import ImageError, NotFound, RegistryError
from minirt.images.image import chain_ids
from minirt.images.snapshots import Snapshots
from minirt.images.store import ImageStore, Progress
from tests.command import Minirt
from tests.integration.images.conftest import Push
from tests.integration.images.making import Layout, digest, directory, entry, layer
from tests.integration.images.tree import Mounted

pytestmark = [pytest.mark.root, pytest.mark.needs("registry", "skopeo")]
BASE = layer(directory("etc"), entry("etc/issue", b"base"), entry("keep", os.urandom(200_000)))
ABOVE = layer(entry("etc/.wh.issue"), entry("etc/motd", b"above"))


def merged_names(store: ImageStore, name: str, tmp_path: Path) -> list[str]:
    with Mounted(Snapshots(store.root).prepare("look", store.get(name)), tmp_path / "merged") as merged:
        return sorted(str(path.relative_to(merged)) for path in merged.rglob("*"))


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_pull(push: Push, store: ImageStore, layout: Layout, tmp_path: Path, how: str) -> None:
    descriptor = layout.image([BASE, ABOVE], how=how, Cmd=["/bin/sh"], Env=["A=1"], User="7", WorkingDir="/w")
    name = push(layout.tag(descriptor, "latest"))
    image = store.pull(name)
    assert image.names == (name,)
    assert image.digests == (f"{name.rpartition(':')[0]}@{descriptor['digest']}",)
    assert image.diff_ids == (digest(BASE), digest(ABOVE))
    assert (image.config.cmd, image.config.env, image.config.user) == (("/bin/sh",), ("A=1",), "7")
    assert str(image.platform) == "linux/amd64"
    assert store.get(name) == store.get(image.id) == store.get(image.id[7:19]) == store.get(image.digests[0]) == image
    assert store.list() == [image]
    assert merged_names(store, name, tmp_path) == ["etc", "etc/motd", "keep"]


def test_docker_schema_2(push: Push, store: ImageStore, layout: Layout) -> None:
    name = push(layout.tag(layout.image([BASE]), "latest"), docker=True)
    assert store.pull(name).diff_ids == (digest(BASE),)


def test_an_index_by_platform(push: Push, store: ImageStore, layout: Layout) -> None:
    variants = [("amd64", ""), ("arm64", "v8"), ("arm", "v6"), ("arm", "v7")]
    made = {key: layout.image([layer(entry("".join(key)))], arch=key[0], variant=key[1]) for key in variants}
    name = push(layout.tag(layout.index(*made.values()), "latest"))
    for text, key in (
        (None, ("amd64", "")),
        ("linux/amd64", ("amd64", "")),
        ("linux/arm64", ("arm64", "v8")),
        ("linux/arm/v7", ("arm", "v7")),
        ("linux/arm", ("arm", "v6")),
    ):
        image = store.pull(name, platform=text)
        assert image.diff_ids == (digest(layer(entry("".join(key)))),), text
    with pytest.raises(ImageError, match=r"not there for linux/s390x \(it is for linux/amd64, linux/arm/v6"):
        store.pull(name, platform="linux/s390x")


def test_another_platform_than_asked_for_without_an_index(push: Push, store: ImageStore, layout: Layout) -> None:
    name = push(layout.tag(layout.image([BASE], arch="arm64"), "latest"))
    assert store.pull(name).platform.architecture == "arm64"
    with pytest.raises(ImageError, match="it is for linux/arm64, not linux/amd64"):
        store.pull(name, platform="linux/amd64")


def test_by_digest(push: Push, store: ImageStore, layout: Layout) -> None:
    descriptor = layout.image([BASE])
    name = push(layout.tag(descriptor, "v1"), "v1")
    by_digest = f"{name.rpartition(':')[0]}@{descriptor['digest']}"
    assert store.pull(by_digest).names == ()
    assert store.get(by_digest).digests == (by_digest,)
    both = f"{name}@{descriptor['digest']}"
    assert store.pull(both).names == (name,)
    assert store.get(both) == store.get(name)


def test_layers_are_shared(push: Push, store: ImageStore, layout: Layout) -> None:
    other = layer(entry("other"))
    first = push(layout.tag(layout.image([BASE, ABOVE]), "a"), "a")
    second = push(layout.tag(layout.image([BASE, other]), "b"), "b")
    base = Snapshots(store.root).layer(chain_ids([digest(BASE)])[0])
    store.pull(first)
    inode = base.stat().st_ino
    seen: list[Progress] = []
    store.pull(second, progress=seen.append)
    assert base.stat().st_ino == inode
    assert [one.state for one in seen if one.total > 1000] == [
        "waiting",
        "present",
        "unpacking",
        "done",
    ]
    assert len(os.listdir(store.root / "snapshots")) == 3
    store.remove(first)
    assert base.exists()
    assert len(os.listdir(store.root / "snapshots")) == 2
    store.remove(second)
    assert os.listdir(store.root / "snapshots") == []
    assert os.listdir(store.root / "blobs/sha256") == []


def test_the_same_layer_twice_in_an_image(push: Push, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    name = push(layout.tag(layout.image([BASE, ABOVE, BASE]), "latest"))
    store.pull(name)
    assert merged_names(store, name, tmp_path) == ["etc", "etc/issue", "etc/motd", "keep"]


def test_an_opaque_root_hides_every_layer_below(push: Push, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    """overlayfs does not look at the mark on a layer's root: the layers below are left out of the mount."""
    name = push(layout.tag(layout.image([BASE, layer(entry(".wh..wh..opq"), entry("only"))]), "latest"))
    store.pull(name)
    assert merged_names(store, name, tmp_path) == ["only"]


def test_an_image_without_layers(push: Push, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    name = push(layout.tag(layout.image([]), "latest"))
    assert store.pull(name).diff_ids == ()
    assert merged_names(store, name, tmp_path) == []


def test_what_is_not_there(push: Push, store: ImageStore, layout: Layout) -> None:
    name = push(layout.tag(layout.image([BASE]), "latest"))
    with pytest.raises(NotFound, match="has no such tag or digest there"):
        store.pull(name.replace(":latest", ":missing"))
    with pytest.raises(NotFound, match="has no such tag or digest there"):
        store.pull(f"{name.rpartition(':')[0]}@sha256:{'0' * 64}")
    with pytest.raises(NotFound, match="has no such"):
        store.pull(f"{push.host}/no/such/repository")
    assert store.list() == []


def test_a_dead_registry(store: ImageStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RegistryError, match=rf"Connection refused \(is 127.0.0.1:{port} up"):
        store.pull(f"127.0.0.1:{port}/x")


def test_plain_http_is_for_names_of_loopback_only(push: Push, store: ImageStore, layout: Layout) -> None:
    """2130706433 is 127.0.0.1 to the resolver, and no name of loopback to us: it is spoken to over TLS."""
    name = push(layout.tag(layout.image([BASE]), "latest")).replace("127.0.0.1", "2130706433")
    with pytest.raises(RegistryError, match="TLS failed"):
        store.pull(name)
    assert store.pull(name, plain_http=True).names == (name,)


def test_the_command(push: Push, layout: Layout, tmp_path: Path) -> None:
    minirt = Minirt(tmp_path / "root", tmp_path / "state")
    name = push(layout.tag(layout.image([BASE, ABOVE], Cmd=["sh"]), "v1"), "v1")
    done = minirt("image", "pull", name)
    assert done.stdout == f"{name}\n"
    assert done.stderr.startswith(f"Pulling {name}\n")
    assert done.stderr.count("Unpacking") == done.stderr.count("Pull complete") == 2
    assert f"\n{name.rpartition(':')[0]}   v1    " in minirt.output("image", "ls")
    assert '"sh"' in minirt.output("image", "inspect", name)
    missing = minirt("image", "pull", f"{push.host}/none:x")
    assert missing.returncode == 125
    assert missing.stderr.splitlines()[-1].startswith(
        f"minirt: cannot pull {push.host}/none:x: {push.host} has no such"
    )
    removed = minirt.output("image", "rm", name)
    assert removed.startswith(f"Untagged: {name}\nDeleted: sha256:")
    assert minirt.output("image", "ls", "-q") == ""
