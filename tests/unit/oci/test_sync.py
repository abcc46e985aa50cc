import errno
import os

import pytest

from minirt import journal
from minirt.errors import CommandNotFound, InvalidInput, NotExecutable, StepFailed
from minirt.journal import Record
from minirt.oci import sync

RECORD = Record(1, 2, 3, "init", "mount", "'a', 'b'", "", 0, "minirt/x.py:1", "spec.volumes[0]")


def test_messages_go_both_ways_one_at_a_time() -> None:
    shims, inits = sync.pair()
    with shims, inits:
        sync.send(inits, {"type": "ready"})
        sync.send(inits, {"type": "warning", "text": "zwölf"})
        sync.send(shims, {"type": "start"})
        assert sync.receive(shims) == ({"type": "ready"}, [])
        assert sync.receive(shims) == ({"type": "warning", "text": "zwölf"}, [])
        assert sync.receive(inits) == ({"type": "start"}, [])


def test_a_descriptor_comes_along_and_is_closed_by_exec() -> None:
    shims, inits = sync.pair()
    with shims, inits, open("/dev/null") as null:
        sync.send(inits, {"type": "terminal"}, null.fileno())
        message, (received,) = sync.receive(shims)
        assert message == {"type": "terminal"}
        assert os.fstat(received).st_rdev == os.fstat(null.fileno()).st_rdev
        assert not os.get_inheritable(received)
        os.close(received)


def test_the_end_is_none() -> None:
    shims, inits = sync.pair()
    with shims:
        inits.close()
        assert sync.receive(shims) == (None, [])


def test_last_words_are_heard_although_ours_were_not() -> None:
    shims, inits = sync.pair()
    with shims:
        sync.send(shims, {"type": "start"})
        sync.send(inits, {"type": "step"})
        sync.send(inits, {"type": "failed"})
        inits.close()
        assert sync.receive(shims) == ({"type": "step"}, [])
        assert sync.receive(shims) == ({"type": "failed"}, [])
        assert sync.receive(shims) == (None, [])


def test_steps_cross_as_records_with_the_hosts_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    shims, inits = sync.pair()
    with shims, inits:
        monkeypatch.setattr(journal, "sink", None)
        sync.send_steps_to(inits)
        assert journal.sink
        journal.sink(RECORD)
        message, _ = sync.receive(shims)
        assert message
        assert sync.record_of(message, 4711) == RECORD._replace(pid=4711)


@pytest.mark.parametrize(
    ("number", "kind", "code", "remedy"),
    [
        (errno.ENOENT, CommandNotFound, 127, "not in the image"),
        (errno.EACCES, NotExecutable, 126, "executable?"),
        (errno.ENOEXEC, NotExecutable, 126, "#! line"),
        (errno.EISDIR, NotExecutable, 126, "a file"),
        (errno.ELOOP, NotExecutable, 126, "a file"),
    ],
)
def test_what_an_execve_says_to_who_typed_the_command(
    number: int, kind: type[StepFailed], code: int, remedy: str
) -> None:
    error = sync.failure({"type": "failed", "step": "execve", "errno": number}, "tool")
    assert type(error) is kind
    assert error.exit_code == code
    assert "'tool'" in str(error)
    assert remedy in error.do


def test_a_filter_that_is_refused_is_no_matter_of_the_command() -> None:
    error = sync.failure({"type": "failed", "step": "seccomp", "errno": errno.EINVAL}, "tool")
    assert type(error) is StepFailed
    assert (error.step, error.errno, error.exit_code) == ("seccomp", errno.EINVAL, 125)


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("a", "b", "c"),
        CommandNotFound("a", "b", errno=2, stage="init", step="execve"),
        StepFailed("mount x", "no", errno=1, stage="init", step="MountFilesystem"),
    ],
)
def test_errors_cross_as_themselves(error: StepFailed) -> None:
    found = sync.failure({"type": "failed", **error.to_wire()}, "tool")
    assert type(found) is type(error)
    assert found.to_wire() == error.to_wire()
