"""What minirt-oci keeps of a container, and the status that follows from it."""

import os
from pathlib import Path

import pytest

from minirt.errors import Conflict, InvalidInput, NotFound
from minirt.linux import process
from minirt.oci.runtime import state
from minirt.oci.runtime.lifecycle import cgroup_path
from minirt.oci.runtime.state import State
from minirt.oci.spec import Linux, Process, Root, Spec


def made(**changes: object) -> State:
    fields: dict[str, object] = {"id": "one", "bundle": "/b", "rootfs": "/b/r", "created": "2026-01-01T00:00:00Z"}
    return State(**(fields | changes))  # type: ignore[arg-type]


def test_there_and_back(tmp_path: Path) -> None:
    place = state.place(str(tmp_path / "root"), "one")
    place.make(made(annotations={"a": "b"}))
    assert place.load() == made(annotations={"a": "b"})
    assert state.places(str(tmp_path / "root")) == [place]
    with pytest.raises(Conflict, match="this id exists"):
        place.make(made())
    place.remove()
    with pytest.raises(NotFound, match="does not exist"):
        place.load()
    with pytest.raises(NotFound), place.locked():
        pass


def test_the_status_follows_from_what_is_there(tmp_path: Path) -> None:
    place = state.place(str(tmp_path), "one")
    place.make(made())
    assert place.status(made()) == "creating"
    alive = made(pid=os.getpid(), start_time=process.start_time(os.getpid()))
    Path(place.gate).touch()
    assert place.status(alive) == "created"
    Path(place.gate).unlink()
    assert place.status(alive) == "running"
    assert place.status(made(pid=os.getpid(), start_time=1)) == "stopped", "another process has that pid now"


def test_a_stopped_container_has_no_pid() -> None:
    assert state.document(made(pid=5), "stopped")["pid"] == 0
    assert state.document(made(pid=5), "running")["pid"] == 5


@pytest.mark.parametrize("odd", ["", ".", "..", "a/b", "a b", "ä", "a\0b"])
def test_an_id_becomes_a_files_name(odd: str) -> None:
    with pytest.raises(InvalidInput, match="an id is"):
        state.place("/r", odd)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("", "/one"),
        ("/a/b", "/a/b"),
        ("a/b", "/a/b"),
        ("system.slice:docker:x", "/system.slice/docker-x.scope"),
        ("a-b.slice:cri:x", "/a.slice/a-b.slice/cri-x.scope"),
        (":p:x", "/system.slice/p-x.scope"),
        ("a.slice:p:x.slice", "/a.slice/x.slice"),
    ],
)
def test_the_cgroups_path_in_both_forms(asked: str, path: str) -> None:
    spec = Spec("1.2.0", Process(("true",)), Root("r"), linux=Linux(cgroups_path=asked))
    assert cgroup_path(spec, "one") == path
