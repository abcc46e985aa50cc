"""Which ids of the host a user namespace gets; the files of subordinate ids are the test's own."""

import os
from pathlib import Path
from typing import Any

import pytest

from minirt import paths
from minirt.engine import idranges, store
from minirt.engine.idranges import DEFAULT, SIZE, Ids
from minirt.engine.records import SandboxConfig, SandboxRecord
from minirt.errors import Conflict, InvalidInput
from minirt.namespaces.idmap import Map


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories of this test's own, and no file of subordinate ids."""
    monkeypatch.setenv("MINIRT_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("MINIRT_STATE", str(tmp_path / "state"))
    given(monkeypatch, "")


def given(monkeypatch: pytest.MonkeyPatch, subuid: str, subgid: str | None = None) -> None:
    """Let the two files of subordinate ids have this content."""
    texts = {"/etc/subuid": subuid, "/etc/subgid": subuid if subgid is None else subgid}
    read = Path.read_text

    def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
        return texts[str(path)] if str(path) in texts else read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)


def record(sandbox_id: str, lines: Map) -> None:
    """Put a sandbox with these ids on record."""
    config = SandboxConfig(sandbox_id, sandbox_id, uid_map=lines, gid_map=lines)
    store.create(SandboxRecord(sandbox_id, config, paths.boot_id(), "ready", 0))


def first(ids: Ids) -> tuple[int, int]:
    """Return the host's id of root, as a user and as a group."""
    assert {len(ids.uid_map), len(ids.gid_map)} == {1}
    assert (ids.uid_map[0][0], ids.uid_map[0][2]) == (ids.gid_map[0][0], ids.gid_map[0][2]) == (0, SIZE)
    return ids.uid_map[0][1], ids.gid_map[0][1]


def test_without_subordinate_ids_there_is_a_default() -> None:
    assert first(idranges.free()) == (DEFAULT[0], DEFAULT[0])


def test_those_of_minirt_come_before_those_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "somebody:1:65536\ncontainers:300000:65536\n")
    assert first(idranges.free()) == (300_000, 300_000)
    given(monkeypatch, "containers:300000:65536\nminirt:500000:65536\n", "minirt:700000:65536\n")
    assert first(idranges.free()) == (500_000, 700_000)


def test_what_a_sandbox_has_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, f"minirt:100000:{3 * SIZE}\n")
    record("one", ((0, 100_000, SIZE),))
    assert first(idranges.free()) == (100_000 + SIZE,) * 2
    record("two", ((0, 100_000 + 2 * SIZE - 1, 1),))
    assert first(idranges.free()) == (100_000 + 2 * SIZE,) * 2
    store.remove_directory(paths.sandbox_dir("one"))
    assert first(idranges.free()) == (100_000,) * 2


def test_a_pod_keeps_its_ids_beside_its_volumes() -> None:
    for uid in ("one", "two"):
        paths.volumes_dir(uid).mkdir(parents=True)
    one, two = idranges.of_pod("one"), idranges.of_pod("two")
    assert first(two)[0] == first(one)[0] + SIZE
    assert idranges.of_pod("one") == one
    assert first(idranges.free())[0] == first(two)[0] + SIZE


def test_a_file_that_is_torn_is_written_anew() -> None:
    file = paths.volumes_dir("one") / idranges.POD_FILE
    file.parent.mkdir(parents=True)
    file.write_text('{"uid_map": [[0, 1')
    assert idranges.of_pod("one") == idranges.of_pod("one")


@pytest.mark.parametrize("text", ["minirt:100000:65535\n", f"minirt:100000:{SIZE}\n"], ids=["too small", "taken"])
def test_none_is_free(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    given(monkeypatch, text)
    record("one", ((0, 100_000, SIZE),))
    with pytest.raises(Conflict, match=r"/etc/subuid .*are all taken"):
        idranges.free()


def test_only_who_asks_for_ids_gets_some() -> None:
    with idranges.allotted(SandboxConfig("a", "a")) as config:
        assert config.uid_map == ()
    with idranges.allotted(SandboxConfig("a", "a", auto_ids=True)) as config:
        assert config.uid_map == config.gid_map == ((0, DEFAULT[0], SIZE),)


def test_all_that_a_user_has_is_mapped_from_0_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "me:1000:10\nbad line\nme:x:1\nme:5:0\nme:5000:5\n")
    assert idranges.of_user("me", "/etc/subuid") == ((0, 1000, 10), (10, 5000, 5))
    with pytest.raises(InvalidInput, match="/etc/subgid has none for this user"):
        idranges.of_user("you", "/etc/subgid")


def test_ids_outside_of_the_map() -> None:
    lines = ((0, 1000, 10), (20, 5000, 2))
    assert [idranges.outside(lines, number) for number in (0, 9, 10, 21, 22)] == [1000, 1009, None, 5001, None]
    assert idranges.outside((), os.getpid()) == os.getpid()
    with pytest.raises(InvalidInput, match=r"cannot run as group 22: .* has no id 22"):
        idranges.check_in(lines, [0, 22], "group")
