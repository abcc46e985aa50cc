import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt import journal
from minirt.errors import Conflict
from minirt.journal import Record


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Record]]:
    found: list[Record] = []
    monkeypatch.setattr(journal, "sink", found.append)
    yield found


def fail(error: Exception) -> None:
    raise error


def test_without_a_sink_it_is_the_call_alone() -> None:
    assert journal.sink is None
    assert journal.step("divmod", divmod, 7, 2) == (3, 1)
    with pytest.raises(OSError, match="x"):
        journal.step("open", fail, OSError(2, "x"))


def test_a_step(records: list[Record]) -> None:
    assert journal.step("divmod", divmod, 7, 2) == (3, 1)
    (record,) = records
    assert (record.step, record.arguments, record.result, record.errno) == ("divmod", "7, 2", "(3, 1)", 0)
    assert (record.pid, record.stage, record.cause) == (os.getpid(), "cli", "")
    assert record.source.endswith(f"tests/unit/journal/test_journal.py:{test_a_step.__code__.co_firstlineno + 1}")
    assert record.took_ns >= 0


@pytest.mark.parametrize(
    ("error", "number"), [(OSError(17, "x"), 17), (OSError("x"), -1), (Conflict("a", "b"), -1), (KeyError("a"), -1)]
)
def test_a_step_that_fails_goes_on_to_the_caller(records: list[Record], error: Exception, number: int) -> None:
    with pytest.raises(type(error)):
        journal.step("mount", fail, error)
    assert [(record.step, record.errno, record.result) for record in records] == [("mount", number, "")]


def test_a_fork_is_recorded_by_the_parent_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal.kept_in(str(tmp_path / "journal")):
        if (pid := journal.step("fork", os.fork)) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    (record,) = journal.read_file(str(tmp_path / "journal"))
    assert (record.pid, record.step, record.result) == (os.getpid(), "fork", str(pid))


@pytest.mark.parametrize(("name", "value"), [("fork", 0), ("clone3", (0, -1))])
def test_the_second_return_is_no_step(records: list[Record], name: str, value: object) -> None:
    assert journal.step(name, lambda: value) == value
    assert journal.step("umask", lambda: 0) == 0
    assert [record.step for record in records] == ["umask"]


def test_causes_nest_and_an_empty_one_changes_nothing(records: list[Record]) -> None:
    with journal.because("spec.volumes[0]"):
        journal.step("a", int)
        with journal.because(""):
            journal.step("b", int)
        with journal.because("spec.hostname"):
            journal.step("c", int)
    journal.step("d", int)
    assert [record.cause for record in records] == ["spec.volumes[0]", "spec.volumes[0]", "spec.hostname", ""]


def test_a_note_of_what_another_process_did(records: list[Record]) -> None:
    journal.note("execve", "true", 2, pid=77, of="init")
    journal.note("shim", "ended")
    assert [(one.step, one.pid, one.stage, one.errno) for one in records] == [
        ("execve", 77, "init", 2),
        ("shim", os.getpid(), "cli", 0),
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((), ""),
        (("a", 1, None), "'a', 1, None"),
        ((b"bytes",), "'bytes'"),
        ((b"\xff",), "'\ufffd'"),
        (("x" * 300,), repr("x" * 197 + "...")),
        (((1, 2),), "(1, 2)"),
    ],
)
def test_arguments_as_a_reader_wants_them(values: tuple[object, ...], text: str) -> None:
    assert journal.shown(values) == text


def test_a_file_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    late = Record(9, 1, 2, "init", "late", "", "", 0, "", "")
    early = Record(3, 1, 2, "shim", "early", "'ü'", "", 5, "minirt/x.py:1", "spec")
    with journal.kept_in(str(tmp_path / "journal")):
        assert journal.sink
        journal.sink(late)
        journal.sink(early)
    assert journal.sink is None
    assert journal.read_file(str(tmp_path / "journal")) == [early, late]
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_several_share_a_file(tmp_path: Path) -> None:
    file = str(tmp_path / "journal")
    for step in ("one", "two"):
        with journal.kept_in(file):
            journal.step(step, int)
    assert [record.step for record in journal.read_file(file)] == ["one", "two"]


def test_kept_nowhere() -> None:
    with journal.kept_in(""):
        assert journal.sink is None


def test_a_journal_that_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), journal.kept_in(str(tmp_path / "none/journal")):
        pass
    with pytest.raises(FileNotFoundError):
        journal.open_file(str(tmp_path / "none/journal"))
    assert journal.sink is None
