"""kill -9 between any two changes of the store: what fsck says of it, what it repairs, and that nothing whole is lost.

After each death every blob that is what its name says is still there once the store has been repaired; after the repair
nothing is wrong, and the command can be repeated to the same end as if nobody had died.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Minirt
from tests.integration.crash.lab import Lab, but_few_of_a_row
from tests.integration.images.making import Layout, directory, entry, layer
from tests.integration.images.serving import Server
from tests.peers.daemon import output

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("cgroup2_tree", "nft", "busybox")]
LAYERS = [
    layer(directory("d"), entry("d/one", b"1" * 5000), entry("two", b"2")),
    layer(entry("d/one", b"new"), entry(".wh.two"), entry("three", b"3")),
]
KILLS = 16
Words = tuple[str | Path, ...]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "layout").mkdir()
    made = Layout(tmp_path / "layout")
    return made.tag(made.image(LAYERS), "latest")


@pytest.fixture
def server(layout: Layout) -> Iterator[Server]:
    with Server(layout) as running:
        yield running


def die_everywhere(lab: Lab, minirt: Minirt, command: Words, *first: Words) -> None:
    """Have ``command`` die at each change of a file, on a store on which ``first`` was done."""
    base = minirt.root.with_name("base")
    for words in first:
        lab.output(*words)
    output("cp", "-a", minirt.root, base)
    steps, end = _play(lab, minirt, base, command)
    points = but_few_of_a_row(steps)
    assert len(points) > 3, steps
    for point in points:
        _restore(minirt.root, base)
        lab.fuse.arm("cli", point, files=True)
        died = lab(*command)
        lab.fuse.point = -1
        told = f"{command} died before step {point} ({steps[point] if point < len(steps) else '?'}): {died}"
        assert lab.fuse.blown or died.code == 0, told
        whole = _whole(minirt.root)
        repaired = lab("image", "fsck", "--repair")
        assert repaired.code == 0, f"{told}\n{repaired.output}"
        assert lab.output("image", "fsck") == "nothing is wrong", f"{told}\n{repaired.output}"
        if "rm" not in command and "prune" not in command:
            assert _whole(minirt.root) >= whole, f"{told}\n{repaired.output}"
        again = lab(*command)
        assert again.code == 0 or ("rm" in command and "not in the store" in again.output), f"{told}\n{again}"
        assert _images(lab) == end, told
        assert lab.output("image", "fsck") == "nothing is wrong", told


def _play(lab: Lab, minirt: Minirt, base: Path, command: Words) -> tuple[list[str], list[str]]:
    """Return the steps where nobody dies, and the images that are there then."""
    _restore(minirt.root, base)
    lab.fuse.arm("cli", files=True)
    lab.output(*command)
    steps = lab.fuse.names
    return steps, _images(lab)


def _restore(root: Path, base: Path) -> None:
    shutil.rmtree(root)
    output("cp", "-a", base, root)


def _whole(root: Path) -> set[str]:
    blobs = root / "blobs/sha256"
    names = os.listdir(blobs) if blobs.exists() else []
    return {name for name in names if hashlib.sha256((blobs / name).read_bytes()).hexdigest() == name}


def _images(lab: Lab) -> list[str]:
    """Return names and layers of all images that have names: whoever imports twice has one without."""
    ids = lab.output("image", "ls", "-q").split()
    found = json.loads(lab.output("image", "inspect", *ids)) if ids else []
    return sorted(f"{one['RepoTags']} {one['RootFS']['Layers']}" for one in found if one["RepoTags"])


def test_pull(lab: Lab, minirt: Minirt, server: Server) -> None:
    die_everywhere(lab, minirt, ("image", "pull", "-q", f"{server.host}/x"))


def test_load(lab: Lab, minirt: Minirt, layout: Layout) -> None:
    die_everywhere(lab, minirt, ("image", "load", "-q", layout.top))


def test_import(lab: Lab, minirt: Minirt, tmp_path: Path) -> None:
    (tmp_path / "one.tar").write_bytes(LAYERS[0])
    die_everywhere(lab, minirt, ("image", "import", tmp_path / "one.tar", "localhost/one"))


def test_rm(lab: Lab, minirt: Minirt, layout: Layout) -> None:
    die_everywhere(lab, minirt, ("image", "rm", "localhost/layout"), ("image", "load", "-q", layout.top))


def test_prune(lab: Lab, minirt: Minirt, layout: Layout) -> None:
    die_everywhere(lab, minirt, ("image", "prune", "--all"), ("image", "load", "-q", layout.top))


def test_tag(lab: Lab, minirt: Minirt) -> None:
    die_everywhere(lab, minirt, ("image", "tag", "localhost/busybox", "localhost/other"))


def test_commit(lab: Lab, minirt: Minirt) -> None:
    work = "echo x > /new; rm /etc/passwd"
    first = ("run", "--name", "web", "--network", "none", "localhost/busybox", "sh", "-c", work)
    die_everywhere(lab, minirt, ("commit", "web", "localhost/made"), first)
    lab.output("rm", "web")


def test_killed_at_any_moment(minirt: Minirt, layout: Layout) -> None:
    """Not between two changes but in the middle of one: of a blob that is written, a layer that is unpacked."""
    many = [layer(*(entry(f"{top}/{number}", os.urandom(20_000)) for number in range(150))) for top in range(4)]
    layout.tag(layout.image(many), "large")
    with Server(layout) as server:
        pull = ("image", "pull", "-q", f"{server.host}/x:large")
        begun = time.monotonic()
        minirt.output(*pull)
        took_s = time.monotonic() - begun
        killed = 0
        for moment in range(KILLS):
            minirt.output("image", "rm", pull[-1])
            with minirt.start(*pull) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(took_s * (moment + 0.5) / KILLS)
                process.kill()
                killed += process.wait() == -signal.SIGKILL
            whole = _whole(minirt.root)
            minirt.output("image", "fsck", "--repair")
            assert minirt.output("image", "fsck") == "nothing is wrong"
            assert _whole(minirt.root) >= whole
            minirt.output(*pull)
            assert os.listdir(minirt.root / "tmp") == [".lock"]
    assert killed > KILLS / 2


@pytest.mark.parametrize("damage", ["blob", "layer", "index"])
def test_fsck_itself(lab: Lab, minirt: Minirt, layout: Layout, damage: str) -> None:
    def spoil() -> None:
        if damage == "blob":
            next((minirt.root / "blobs/sha256").iterdir()).write_bytes(b"spoilt")
        elif damage == "layer":
            shutil.rmtree(next(path for path in (minirt.root / "snapshots").iterdir() if path.name != "containers"))
        else:
            (minirt.root / "images.json").write_text("{")

    lab.output("image", "load", "-q", layout.top)
    spoil()
    die_in_repair(lab, minirt)


def die_in_repair(lab: Lab, minirt: Minirt) -> None:
    base = minirt.root.with_name("base")
    output("cp", "-a", minirt.root, base)
    repair: Words = ("image", "fsck", "--repair")
    steps, end = _play(lab, minirt, base, repair)
    for point in but_few_of_a_row(steps):
        _restore(minirt.root, base)
        whole = _whole(minirt.root)
        lab.fuse.arm("cli", point, files=True)
        lab(*repair)
        lab.fuse.point = -1
        lab.output(*repair)
        assert lab.output("image", "fsck") == "nothing is wrong", f"died before step {point} ({steps[point]})"
        assert _images(lab) == end
        assert _whole(minirt.root) == whole
