"""Images in files, to and from docker, skopeo, podman and umoci; root file systems imported."""

import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from minirt.errors import ImageError, InvalidInput, NotFound
from minirt.images.archive import whole_file
from minirt.images.image import ImageConfig
from minirt.images.snapshots import Snapshots
from minirt.images.store import ImageStore
from tests.command import COMMAND, Minirt
from tests.integration.images.making import Layout, digest, directory, entry, layer, symlink
from tests.integration.images.tree import facts
from tests.peers.daemon import output
from tests.peers.docker import Dockerd
from tests.peers.podman import Podman

pytestmark = pytest.mark.root
REPOSITORY = Path(__file__).parents[3]
LAYERS = (layer(directory("etc"), entry("etc/a", b"a")), layer(entry("etc/b", b"b")))


def save(store: ImageStore, target: Path, *names: str) -> None:
    with whole_file(target) as file:
        store.save(names or ["localhost/x:1"], file)


@pytest.fixture
def saved(layout: Layout, store: ImageStore, tmp_path: Path) -> Path:
    """An archive that minirt saved, of an image named localhost/x:1."""
    store.load(layout.tag(layout.image(LAYERS, Cmd=["sh"]), "localhost/x:1").top)
    save(store, tmp_path / "saved.tar")
    return tmp_path / "saved.tar"


def test_an_oci_layout_directory(store: ImageStore, layout: Layout) -> None:
    for name in ("localhost/one:1", "docker.io/library/two:2", "bare"):
        layout.tag(layout.image([*LAYERS, layer(entry(name.replace("/", "-")))]), name)
    images = store.load(layout.top)
    assert [image.names for image in images] == [
        ("localhost/one:1",), ("docker.io/library/two:2",), ("localhost/layout:bare",)
    ]  # fmt: skip
    assert len({image.id for image in images}) == 3


def test_what_is_saved_is_loaded_the_same(store: ImageStore, saved: Path, tmp_path: Path) -> None:
    other = ImageStore(tmp_path / "other")
    (image,) = other.load(saved)
    assert image == store.get("localhost/x:1")
    save(other, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == saved.read_bytes()


@pytest.mark.needs("skopeo")
def test_skopeo_reads_it(saved: Path, store: ImageStore) -> None:
    facts_of = json.loads(output("skopeo", "inspect", f"oci-archive:{saved}"))
    assert len(facts_of["Layers"]) == 2
    config = json.loads(output("skopeo", "inspect", "--config", f"docker-archive:{saved}"))
    assert config["config"]["Cmd"] == ["sh"]


@pytest.mark.peer
@pytest.mark.needs("docker")
def test_docker_loads_it_and_back(dockerd: Dockerd, saved: Path, store: ImageStore, tmp_path: Path) -> None:
    assert "localhost/x:1" in dockerd.output("load", "--input", saved)
    assert dockerd.output("image", "inspect", "--format", "{{.Id}}", "localhost/x:1") == store.get("localhost/x:1").id
    dockerd.output("save", "--output", tmp_path / "docker.tar", "localhost/x:1", "localhost/busybox:latest")
    images = ImageStore(tmp_path / "other").load(tmp_path / "docker.tar")
    assert {name for image in images for name in image.names} == {"localhost/x:1", "localhost/busybox:latest"}
    assert store.get("localhost/x:1").id in {image.id for image in images}


@pytest.mark.peer
@pytest.mark.needs("podman")
def test_podman_loads_it(podman: Podman, saved: Path) -> None:
    assert "localhost/x:1" in podman.output("load", "--input", saved)


@pytest.mark.peer
@pytest.mark.needs("podman")
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_podmans_archives(store: ImageStore, podman: Podman, saved: Path, tmp_path: Path, kind: str) -> None:
    podman.output("load", "--input", saved)
    podman.output("save", "--format", kind, "--output", tmp_path / "podman.tar", "localhost/x:1")
    (image,) = ImageStore(tmp_path / "other").load(tmp_path / "podman.tar")
    assert (image.names, image.diff_ids) == (("localhost/x:1",), store.get("localhost/x:1").diff_ids)


def test_two_names_of_one_image(store: ImageStore, saved: Path, tmp_path: Path) -> None:
    store.tag("localhost/x:1", "localhost/y:2")
    save(store, tmp_path / "both.tar", "localhost/y:2", "localhost/x:1")
    with tarfile.open(tmp_path / "both.tar") as tar:
        (image,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert image["RepoTags"] == ["localhost/y:2", "localhost/x:1"]
    loaded = ImageStore(tmp_path / "other").load(tmp_path / "both.tar")
    assert {name for one in loaded for name in one.names} == {"localhost/x:1", "localhost/y:2"}


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_skopeos_archives(store: ImageStore, layout: Layout, tmp_path: Path, kind: str) -> None:
    layout.tag(layout.image(LAYERS), "x")
    target = tmp_path / "skopeo.tar"
    output("skopeo", "copy", f"oci:{layout.top}:x", f"{kind}:{target}:localhost/y:2")
    (image,) = store.load(target)
    assert image.names == ("localhost/y:2",)
    assert image.diff_ids == tuple(map(digest, LAYERS))


@pytest.mark.needs("skopeo")
def test_a_compressed_archive(store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    layout.tag(layout.image(LAYERS), "x")
    output("skopeo", "copy", f"oci:{layout.top}:x", f"docker-archive:{tmp_path}/plain.tar:localhost/y:2")
    (tmp_path / "small.tar.gz").write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes()))
    assert store.load(tmp_path / "small.tar.gz")[0].diff_ids == tuple(map(digest, LAYERS))


@pytest.mark.needs("umoci")
def test_umocis_images(store: ImageStore, tmp_path: Path) -> None:
    layout = tmp_path / "umoci"
    output("umoci", "init", "--layout", layout)
    output("umoci", "new", "--image", f"{layout}:x")
    for count in (1, 2):
        (tmp_path / f"tree{count}").mkdir()
        (tmp_path / f"tree{count}/file{count}").write_text("x")
        output("umoci", "insert", "--image", f"{layout}:x", tmp_path / f"tree{count}", "/srv")
    output("umoci", "config", "--image", f"{layout}:x", "--config.cmd", "sh", "--config.user", "7:8")
    (image,) = store.load(layout)
    assert (image.config.cmd, image.config.user, image.names) == (("sh",), "7:8", ("localhost/umoci:x",))
    lowers = Snapshots(store.root).prepare("c", image).lowers
    assert [sorted(facts(lower)) for lower in lowers] == [[".", "srv", "srv/file2"], [".", "srv", "srv/file1"]]


@pytest.mark.parametrize("part", [0, 0.02, 0.3, 0.5])
def test_an_archive_cut_short(saved: Path, tmp_path: Path, part: float) -> None:
    whole = saved.read_bytes().rstrip(b"\0")
    (tmp_path / "cut.tar").write_bytes(whole[: int(len(whole) * part)])
    other = ImageStore(tmp_path / "other")
    with pytest.raises((ImageError, InvalidInput), match="cannot"):
        other.load(tmp_path / "cut.tar")
    assert other.list() == []


def test_archives_that_are_none(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 1000)
    (tmp_path / "rootfs.tar").write_bytes(LAYERS[0])
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("text", "file"),
        ("rootfs.tar", "see minirt image import"),
        ("empty", "neither"),
        ("no", "No such"),
    ):
        with pytest.raises(InvalidInput, match=words):
            store.load(tmp_path / name)


def test_a_docker_archive_that_reaches_out(store: ImageStore, tmp_path: Path) -> None:
    """Paths of a manifest.json are names in the archive, and nothing else; links in it stay in it."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, content in (("manifest.json", b'[{"Config":"../../etc/passwd","Layers":["/etc/passwd"]}]'),):
            info, _ = entry(name, content)
            tar.addfile(info, io.BytesIO(content))
        tar.addfile(symlink("link", "/etc/passwd")[0])
    with pytest.raises(ImageError, match="the archive has no such file"):
        store.load(tmp_path / "x.tar")


def test_saving_where_it_cannot_be(store: ImageStore, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot write .*/none/x.tar: No such file"):
        save(store, tmp_path / "none/x.tar")
    with pytest.raises(NotFound):
        save(store, tmp_path / "x.tar", "localhost/other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout", "saved.tar", "store"]


def test_saving_what_has_lost_a_blob(store: ImageStore, saved: Path, tmp_path: Path) -> None:
    for blob in (store.root / "blobs/sha256").iterdir():
        if blob.read_bytes()[:2] == b"\x1f\x8b":
            blob.unlink()
    with pytest.raises(ImageError, match="see minirt image fsck"):
        save(store, tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.peer
@pytest.mark.needs("docker", "podman", "skopeo", "umoci")
def test_several_images_in_one_archive(
    minirt: Minirt, layout: Layout, dockerd: Dockerd, podman: Podman, tmp_path: Path
) -> None:
    """What they share is in it once; docker and podman load all of it, skopeo and umoci the one that is asked for."""
    for name, layers in (("localhost/one:1", LAYERS[:1]), ("localhost/two:2", LAYERS)):
        layout.tag(layout.image(layers, Cmd=[name]), name)
    minirt.output("image", "load", "-q", layout.top)
    archive = tmp_path / "both.tar"
    minirt.output("image", "save", "-o", archive, "localhost/one:1", "localhost/two:2")
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names)) == 3 + 2 * 2 + 2
    assert dockerd.output("load", "--input", archive).count("Loaded image") == 2
    told = podman.output("load", "--input", archive)
    assert ("localhost/one:1" in told, "localhost/two:2" in told) == (True, True)
    config = output("skopeo", "inspect", "--config", f"docker-archive:{archive}:localhost/two:2")
    assert json.loads(config)["config"]["Cmd"] == ["localhost/two:2"]
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    output("tar", "-xf", archive, "-C", unpacked)
    assert len(output("umoci", "list", "--layout", unpacked).splitlines()) == 2


def test_stdin_and_stdout(minirt: Minirt, layout: Layout, tmp_path: Path) -> None:
    """As in ``docker save x | ssh … docker load``, where nothing can be sought in."""
    layout.tag(layout.image(LAYERS), "localhost/x:1")
    minirt.output("image", "load", "-q", layout.top)
    other = Minirt(tmp_path / "other", minirt.state)
    with subprocess.Popen(
        [COMMAND, "image", "save", "localhost/x:1"], env=minirt.env, stdout=subprocess.PIPE
    ) as saving:
        loading = subprocess.run(
            [COMMAND, "image", "load", "-q"],
            env=other.env,
            stdin=saving.stdout,
            capture_output=True,
            text=True,
            check=True,
        )
    assert loading.stdout == "Loaded image: localhost/x:1\n"
    assert ImageStore(other.root).get("localhost/x:1") == ImageStore(minirt.root).get("localhost/x:1")
    assert os.listdir(other.root / "tmp") == [".lock"]
    garbage = other("image", "load", "-", stdin="x" * 9999)
    assert garbage.returncode == 125
    assert "see docker save, skopeo copy, minirt image save" in garbage.stderr
    assert os.listdir(other.root / "tmp") == [".lock"]


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    top = tmp_path / "rootfs"
    (top / "bin").mkdir(parents=True)
    (top / "tmp").mkdir(mode=0o1777)
    (top / "tmp").chmod(0o1777)
    (top / "bin/busybox").write_bytes(b"\x7fELF" * 1000)
    (top / "bin/busybox").chmod(0o4755)
    os.link(top / "bin/busybox", top / "bin/cat")
    (top / "bin/sh").symlink_to("busybox")
    (top / os.fsdecode(b"odd \xff name")).write_text("odd")
    os.mkfifo(top / "fifo")
    os.chown(top / "tmp", 5, 6)
    os.setxattr(top / "bin/busybox", "user.note", b"\x00\xff=\n")
    os.setxattr(top / "bin/busybox", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(top / "tmp", "trusted.overlay.opaque", b"y")
    os.utime(top / "bin", ns=(1_600_000_000_123_456_789,) * 2)
    return top


def test_a_directory_is_imported_as_it_is(store: ImageStore, rootfs: Path) -> None:
    image = store.import_rootfs(rootfs, "localhost/x", config=ImageConfig(cmd=("sh",), env=("A=b",), user="5"))
    assert image.config == ImageConfig(cmd=("sh",), env=("A=b",), user="5")
    assert image.names == ("localhost/x:latest",)
    (lower,) = Snapshots(store.root).prepare("c", image).lowers
    os.removexattr(rootfs / "tmp", "trusted.overlay.opaque")
    assert facts(lower) == facts(rootfs)


@pytest.mark.parametrize("how", ["tar", "tar.gz", "tar.xz", "tar.zst"])
def test_an_archive_is_imported(store: ImageStore, rootfs: Path, tmp_path: Path, how: str) -> None:
    archive = tmp_path / f"rootfs.{how}"
    flags = ["--format=posix", "--xattrs", "--xattrs-include=*"]
    output("tar", "-C", rootfs, *flags, "-cf", tmp_path / "rootfs.tar", ".")
    plain = (tmp_path / "rootfs.tar").read_bytes()
    if how == "tar.zst":
        subprocess.run(["zstd", "-q", tmp_path / "rootfs.tar", "-o", archive], check=True) if shutil.which(
            "zstd"
        ) else pytest.skip("zstd: not installed")
    elif how != "tar":
        archive.write_bytes(gzip.compress(plain) if how == "tar.gz" else lzma.compress(plain))
    image = store.import_rootfs(archive, "localhost/x:1")
    assert image.diff_ids == (digest(plain),)
    (lower,) = Snapshots(store.root).prepare("c", image).lowers
    os.removexattr(rootfs / "tmp", "trusted.overlay.opaque")
    assert facts(lower) == facts(rootfs)


def test_what_cannot_be_imported(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 1000)
    with pytest.raises(ImageError, match="the header before byte 512 is damaged"):
        store.import_rootfs(tmp_path / "text", "localhost/x")
    with pytest.raises(InvalidInput, match="No such file or directory"):
        store.import_rootfs(tmp_path / "none", "localhost/x")
    with pytest.raises(InvalidInput, match="character 1, 'B'"):
        store.import_rootfs(tmp_path, "Bad")
    with pytest.raises(InvalidInput, match="a digest cannot be given"):
        store.import_rootfs(tmp_path, f"x@{digest(b'')}")
    assert store.list() == []


@pytest.mark.needs("busybox")
def test_the_example_script(tmp_path: Path) -> None:
    minirt = Minirt(tmp_path / "root", tmp_path / "state")
    script = REPOSITORY / "examples/busybox-image.sh"
    command = [script, COMMAND]
    done = subprocess.run(command, env=minirt.env, capture_output=True, text=True, check=True)
    image = ImageStore(minirt.root).get("localhost/busybox")
    assert done.stdout.strip() == image.id
    (lower,) = Snapshots(minirt.root).prepare("c", image).lowers
    said = output("chroot", lower, "/bin/sh", "-c", "id -un; ls /bin | wc -l").split()
    assert said[0] == "root"
    assert int(said[1]) > 200
