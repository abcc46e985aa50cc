"""What the journal says of the one step that it cannot see: init's last, in C."""

import errno

import pytest

from minirt import journal
from minirt.errors import MinirtError, NotExecutable, StepFailed
from minirt.linux import process
from minirt.oci.executor import note_last_step
from minirt.security.seccomp import Filter

LEFT = ("prctl", "35, 14", 0)
LOADED = ("seccomp", "1, 4, 2", 0)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[journal.Record]:
    """What is written to the journal, on a kernel that lets a process leave its executable."""
    monkeypatch.setattr(process, "can_leave_executable", lambda: True)
    found: list[journal.Record] = []
    monkeypatch.setattr(journal, "sink", found.append)
    return found


@pytest.mark.parametrize(
    ("filter", "error", "said"),
    [
        (None, None, [LEFT, ("execve", "sh", 0)]),
        (Filter(bytes(16), 4), None, [LEFT, LOADED, ("execve", "sh", 0)]),
        (
            Filter(bytes(16), 4),
            StepFailed("x", "y", errno=errno.EPERM, step="prctl"),
            [("prctl", "35, 14", errno.EPERM)],
        ),
        (
            Filter(bytes(16), 4),
            NotExecutable("x", "y", errno=errno.ENOEXEC, step="execve"),
            [LEFT, LOADED, ("execve", "sh", errno.ENOEXEC)],
        ),
        (
            Filter(bytes(16), 4),
            StepFailed("x", "y", errno=errno.EINVAL, step="seccomp"),
            [LEFT, ("seccomp", "1, 4, 2", errno.EINVAL)],
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
