"""The store's books: names and ids, leases and garbage, without root."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minirt.errors import Conflict, DigestMismatch, ImageError, InvalidInput, NotFound, Unsupported
from minirt.images import disk, garbage
from minirt.images.blobs import Blobs, digest_of
from minirt.images.catalog import Catalog, Record, put
from minirt.images.image import ImageConfig, Platform
from minirt.images.make import make_config, make_manifest
from minirt.images.snapshots import Snapshots
from minirt.images.store import ImageStore
from minirt.images.workspace import LEASE, leases, locked, workspace

JOB = """
import sys
from pathlib import Path
from minirt.images.workspace import workspace
with workspace(Path(sys.argv[1])) as job:
    (job.path / "f").write_text("x")
    print(job.path, flush=True)
    input()
"""


def add(store: ImageStore, *names: str, content: str = "x") -> str:
    """Put an image without layers into the store; return its id."""
    with workspace(store.root) as job:
        config = make_config(ImageConfig(user=content), Platform("linux", "amd64"), [], "a test")
        data = make_manifest(config, [], job)
        blobs = [Blobs(store.root).add(data, job), digest_of(config)]
        with Catalog(store.root).changing() as records:
            put(records, Record(blobs[1], blobs[0], blobs, [], 5, list(names), [f"host.io/x@{blobs[0]}"]))
    return blobs[1]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def test_an_image_by_name_and_id(store: ImageStore) -> None:
    image_id = add(store, "docker.io/library/x:latest", "host.io/x:1")
    for text in ("x", "docker.io/x:latest", "host.io/x:1", image_id, image_id[7:], image_id[7:13], image_id[:12]):
        assert store.get(text).id == image_id
    assert store.get(store.get("x").digests[0]).id == image_id


def test_what_is_no_image(store: ImageStore) -> None:
    image_id = add(store, "x")
    for text in ("y", "x:2", "0" * 64, f"x@sha256:{'0' * 64}", "zz" + image_id[7:20]):
        with pytest.raises(NotFound, match="minirt image pull"):
            store.get(text)
    with pytest.raises(InvalidInput):
        store.get("NOT A NAME")


def test_a_beginning_that_several_ids_have(store: ImageStore) -> None:
    ids = {add(store, f"docker.io/library/x:{count}", content=str(count))[7] for count in range(17)}
    assert len(ids) < 17
    with pytest.raises(Conflict, match="image ids begin like this"):
        for first in ids:
            store.get(first)


def test_a_name_moves_to_the_last_who_was_given_it(store: ImageStore) -> None:
    first, second = add(store, "host.io/x:1", content="a"), add(store, "host.io/x:1", "host.io/x:2", content="b")
    assert store.get("host.io/x:1").id == second
    assert store.get(first).names == ()
    assert add(store, "host.io/x:3", content="b").startswith("sha256:")


def test_removing_a_name_and_the_last_name(store: ImageStore) -> None:
    image_id = add(store, "host.io/x:1", "host.io/x:2")
    assert store.remove("host.io/x:1") == ["Untagged: host.io/x:1"]
    assert store.get("host.io/x:2").id == image_id
    assert store.remove("host.io/x:2")[0] == "Untagged: host.io/x:2"
    assert store.list() == []
    assert os.listdir(store.root / "blobs/sha256") == []
    with pytest.raises(NotFound):
        store.remove("host.io/x:2")


def test_removing_by_id_what_has_several_names(store: ImageStore) -> None:
    image_id = add(store, "host.io/x:1", "host.io/x:2")
    with pytest.raises(Conflict, match="it has 2 names"):
        store.remove(image_id)
    lines = store.remove(image_id, force=True)
    assert lines[:2] == ["Untagged: host.io/x:1", "Untagged: host.io/x:2"]
    assert f"Deleted: {image_id}" in lines


def test_a_damaged_catalogue_is_said_to_be_damaged(store: ImageStore) -> None:
    store.root.mkdir()
    for text, words in (("{", "truncated"), ('{"images":[{}]}', "missing"), ('{"version":2}', "of version 2")):
        (store.root / "images.json").write_text(text)
        with pytest.raises(ImageError, match=words):
            store.list()


def test_a_change_that_fails_changes_nothing(store: ImageStore) -> None:
    add(store, "host.io/x:1")
    before = (store.root / "images.json").read_bytes()
    with pytest.raises(RuntimeError), Catalog(store.root).changing() as records:
        records.clear()
        raise RuntimeError
    assert (store.root / "images.json").read_bytes() == before


def test_a_blob_is_what_its_digest_says_or_is_not_there(store: ImageStore) -> None:
    blobs = Blobs(store.root)
    with workspace(store.root) as job:
        for digest, size in ((digest_of(b"other"), 4), (digest_of(b"data"), 5), (digest_of(b"data"), 3)):
            with pytest.raises(DigestMismatch):
                blobs.write([b"da", b"ta"], job, digest, size)
        assert blobs.write([b"da", b"ta"], job, digest_of(b"data"), 4) == (digest_of(b"data"), 4)
        assert blobs.read(digest_of(b"data")) == b"data"
        assert sorted(os.listdir(job.path)) == [LEASE]
    with pytest.raises(Unsupported, match="only sha256"):
        blobs.path("sha256:../../../etc/passwd")


def test_a_source_that_breaks_leaves_no_blob(store: ImageStore) -> None:
    def pieces():  # type: ignore[no-untyped-def]
        yield b"some"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), workspace(store.root) as job:
        Blobs(store.root).write(pieces(), job)
    assert not (store.root / "blobs").exists()
    assert os.listdir(store.root / "tmp") == [".lock"]


def test_garbage_is_what_nobody_uses(store: ImageStore) -> None:
    add(store, "host.io/x:1")
    with workspace(store.root) as job:
        leased = Blobs(store.root).add(b"leased", job)
        for name in ("stray", "a" * 64):
            (store.root / "blobs/sha256" / name).write_text("stray")
        (store.root / "snapshots" / ("b" * 64) / "fs/deep").mkdir(parents=True)
        assert sorted(garbage.collect(store.root)) == ["sha256:" + "a" * 64, "sha256:stray"]
        assert Blobs(store.root).has(leased)
    assert store.get("host.io/x:1").names
    assert os.listdir(store.root / "snapshots") == []
    assert os.listdir(store.root / "trash") == []
    assert garbage.collect(store.root) == [leased]


def test_a_failed_job_keeps_its_lease_for_a_day(store: ImageStore) -> None:
    with pytest.raises(RuntimeError), workspace(store.root) as job:
        kept = Blobs(store.root).add(b"kept", job)
        (job.path / "half").write_text("written")
        raise RuntimeError
    assert os.listdir(job.path) == [LEASE]
    assert garbage.collect(store.root) == []
    with workspace(store.root):
        assert leases(store.root) == {kept}
    long_ago = time.time() - 25 * 3600
    os.utime(job.path / LEASE, (long_ago, long_ago))
    with workspace(store.root):
        assert leases(store.root) == set()
    assert garbage.collect(store.root) == [kept]


def test_a_repeated_job_that_succeeds_drops_the_old_lease(store: ImageStore) -> None:
    with pytest.raises(RuntimeError), workspace(store.root) as job:
        job.lease([digest_of(b"a")])
        raise RuntimeError
    with workspace(store.root) as again:
        again.lease([digest_of(b"a"), digest_of(b"b")])
    assert os.listdir(store.root / "tmp") == [".lock"]


def test_a_dead_jobs_files_are_swept_and_a_living_ones_are_not(store: ImageStore) -> None:
    command = [sys.executable, "-c", JOB, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        path = Path(process.stdout.readline().strip())
        with workspace(store.root):
            assert (path / "f").exists()
        process.kill()
    with workspace(store.root):
        assert not path.exists()


def test_the_lock_keeps_others_out(store: ImageStore) -> None:
    with locked(store.root):
        assert disk.is_flocked(store.root / "images.lock")
    assert not disk.is_flocked(store.root / "images.lock")
    with pytest.raises(FileNotFoundError):
        disk.is_flocked(store.root / "gone")
    assert not (store.root / "gone").exists(), "asking makes nothing"


def test_removal_goes_deeper_than_recursion(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    top = os.dup(here)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.symlink("/etc", "link", dir_fd=here)
    os.close(here)
    os.close(top)
    disk.remove_tree(tmp_path / "d")
    assert os.listdir(tmp_path) == []


def test_removal_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk.remove_tree(tmp_path / "none")
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(NotADirectoryError):
        disk.remove_tree(tmp_path / "link")


def test_snapshots(store: ImageStore) -> None:
    image = store.get(add(store, "host.io/x:1"))
    snapshots = Snapshots(store.root)
    overlay = snapshots.prepare("one", image)
    assert snapshots.get("one") == overlay == snapshots.preview("one", image)
    assert overlay.upper.is_dir()
    assert overlay.work.is_dir()
    assert [list(lower.iterdir()) for lower in overlay.lowers] == [[]]
    with pytest.raises(Conflict):
        snapshots.prepare("one", image)
    with pytest.raises(ValueError, match="not an id"):
        snapshots.prepare("../x", image)
    assert snapshots.keys() == ["one"]
    snapshots.remove("one")
    snapshots.remove("one")
    with pytest.raises(NotFound):
        snapshots.get("one")
    assert snapshots.keys() == []


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from minirt.cli.image import image\n"
        "assert CliRunner().invoke(image, ['pull', '--help']).exit_code == 0\n"
        "print([name for name in ('urllib3', 'rich', 'zstandard', 'isal', 'msgspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_reading_an_image_imports_no_http() -> None:
    script = (
        "import sys; from minirt.images.store import ImageStore; ImageStore().list()\n"
        "print([name for name in ('urllib3', 'rich', 'zstandard', 'gzip', 'tempfile') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
