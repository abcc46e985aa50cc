"""What a tmpfs begins with under ``tmpcopyup``: all of the directory it covers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.namespaces import copyup


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[int, int]]:
    fds = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        fds.append(os.open(tmp_path / name, os.O_PATH | os.O_DIRECTORY))
    yield fds[0], fds[1]
    for fd in fds:
        os.close(fd)


def test_everything_with_its_mode_and_time(tmp_path: Path, ends: tuple[int, int]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "in/deep").mkdir(parents=True)
    (old / "in").chmod(0o1750)
    (old / "in/deep/file").write_text("text")
    (old / "in/deep/file").chmod(0o4711)
    (old / "empty").touch()
    (old / "link").symlink_to("/etc/../nowhere")
    os.mkfifo(old / "pipe", 0o600)
    os.utime(old / "empty", ns=(1, 2))
    os.utime(old / "in", ns=(3, 4))
    copyup.copy_contents(*ends)
    assert sorted(path.relative_to(new) for path in new.rglob("*")) == sorted(
        path.relative_to(old) for path in old.rglob("*")
    )
    for path in old.rglob("*"):
        found, made = path.lstat(), (new / path.relative_to(old)).lstat()
        assert (found.st_mode, found.st_uid, found.st_mtime_ns) == (made.st_mode, made.st_uid, made.st_mtime_ns), path
    assert (new / "in/deep/file").read_text() == "text"
    assert (new / "link").readlink() == Path("/etc/../nowhere")


def test_the_directorys_own_mode(tmp_path: Path, ends: tuple[int, int]) -> None:
    (tmp_path / "old").chmod(0o1777)
    copyup.copy_mode(*ends)
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o1777
