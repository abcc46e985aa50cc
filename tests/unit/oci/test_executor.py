"""What the journal says of the one step that it cannot see: init's last, in C."""

import errno

import pytest

from minirt import journal
from minirt.errors import MinirtError, NotExecutable, StepFailed
from minirt.oci.executor import note_last_step
from minirt.security.seccomp import Filter

LOADED = ("seccomp", "1, 4, 2", 0)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[journal.Record]:
    found: list[journal.Record] = []
    monkeypatch.setattr(journal, "sink", found.append)
    return found


@pytest.mark.parametrize(
    ("filter", "error", "said"),
    [
        (None, None, [("execve", "sh", 0)]),
        (Filter(bytes(16), 4), None, [LOADED, ("execve", "sh", 0)]),
        (
            Filter(bytes(16), 4),
            NotExecutable("x", "y", errno=errno.ENOEXEC, step="execve"),
            [LOADED, ("execve", "sh", errno.ENOEXEC)],
        ),
        (
            Filter(bytes(16), 4),
            StepFailed("x", "y", errno=errno.EINVAL, step="seccomp"),
            [("seccomp", "1, 4, 2", errno.EINVAL)],
        ),
    ],
)
def test_the_last_step_is_told(
    records: list[journal.Record],
    filter: Filter | None,
    error: MinirtError | None,
    said: list[tuple[str, str, int]],
) -> None:
    note_last_step(filter, "sh", 7, error)
    assert [(one.step, one.arguments, one.errno) for one in records] == said
    assert {(one.pid, one.stage) for one in records} == {(7, "init")}
