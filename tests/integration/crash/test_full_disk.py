"""A full disk, at every file in turn: whoever needs the file says so, and leaves nothing."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minirt.linux import mount
from tests import leaks
from tests.command import Minirt
from tests.integration.crash.lab import KINDS, POD, Done, Lab

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("cgroup2_tree", "nft", "busybox")]
ENOUGH = 3
"""So many times in a row it must work before it is believed that every file was the last one to fit."""
PATIENCE_S = 5.0


@pytest.fixture(params=["state", "root"])
def place(request: pytest.FixtureRequest, minirt: Minirt) -> Iterator[Path]:
    """MINIRT_STATE or MINIRT_ROOT, with a file system of its own."""
    found: Path = getattr(minirt, request.param)
    found.mkdir(exist_ok=True)
    mount.mount("tmpfs", str(found), "tmpfs", 0)
    yield found
    mount.umount2(str(found), mount.MNT_DETACH)


def leave_room(place: Path, files: int) -> None:
    """Let there be so many files more than there are."""
    usage = os.statvfs(place)
    options = f"remount,nr_inodes={usage.f_files - usage.f_ffree + files}"
    subprocess.run(["mount", "-o", options, place], check=True)


@pytest.mark.parametrize(
    "command",
    [
        "run --rm --network none localhost/busybox true",
        "run --rm localhost/busybox true",
        "run -d --name web --network none localhost/busybox sleep 60",
        "pod run --backoff-cap 0.1 pod.yaml",
        "pod run --backoff-cap 0.1 -d pod.yaml",
    ],
)
def test_no_room_for_one_more_file(place: Path, lab: Lab, tmp_path: Path, command: str) -> None:
    (tmp_path / "pod.yaml").write_text(POD % "true")
    words = command.replace("pod.yaml", str(tmp_path / "pod.yaml")).split()
    lab.output(*words)
    assert lab.tidy_up() == []
    seen, there = leaks.look(KINDS), lab.files()
    wrong, refused, worked = [], 0, 0
    for files in range(100):
        leave_room(place, files)
        done = patient(lab, place, words)
        missed = any(words in done.output for words in ("No space left on device", "is that disk full?"))
        worked = worked + 1 if done.code == 0 and not missed else 0
        refused += missed
        told = [*lab.tidy_up(), *lab.remains(seen, there)]
        if "Traceback" in done.output or (done.code and not missed):
            told.append(f"it said {done}")
        if told:
            wrong += [f"with room for {files} files:", *told]
        if worked == ENOUGH:
            break
    print(f"{refused} files did not fit")
    assert not wrong, "\n".join(wrong)
    assert refused
    assert worked == ENOUGH


def patient(lab: Lab, place: Path, words: list[str]) -> Done:
    """Run a command; make room when it waits for some: the worker of a pod that began tries again."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lab, *words)
        try:
            return running.result(PATIENCE_S)
        except TimeoutError:
            assert words[0] == "pod"
            leave_room(place, 1000)
            return running.result()
