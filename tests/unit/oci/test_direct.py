"""Operations as system calls: they are what their execution does, and what becomes of them is told as init tells it."""

import errno
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from minirt import journal
from minirt.linux.operation import Operation
from minirt.namespaces.kinds import FLAGS
from minirt.oci import direct, sync
from minirt.oci.direct import Message
from minirt.oci.init import Chdir, Execute, FindExecutable, FindHome, Init, NewSession, SetUmask, Stdio
from minirt.oci.joining import JoinProcess


@pytest.fixture
def context() -> Iterator[Init]:
    shims, inits = sync.pair()
    with shims, inits:
        yield Init(inits, (0, 1, 2))


def test_joining_is_one_call() -> None:
    found = JoinProcess(3, FLAGS["uts"]).calls(None)
    assert [(call.name, call.arguments) for call in found] == [("setns", (3, FLAGS["uts"]))]


def made(context: Init, *plan: Operation[Init]) -> tuple[list[Message], int]:
    """Have a child do it all without Python; return what is told of it, and its status."""
    ahead = direct.ahead([*plan, Execute(("true",), ("PATH=/bin",))], context, "init")
    assert ahead
    pid, pidfd = ahead.launch(0, -1)
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    return list(ahead.messages()), os.waitstatus_to_exitcode(status)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "sink", lambda _: None)


TRUE = FindExecutable("true", ("/none", "/bin"))


@pytest.mark.usefixtures("records")
def test_a_program_is_executed(context: Init) -> None:
    (session, ready), status = made(context, Stdio(), NewSession(), TRUE)
    assert ready == {"type": "ready"}
    assert journal.Record(*session["record"]).step == "setsid"
    assert journal.Record(*session["record"]).source.startswith("minirt/oci/init.py:")
    assert status == 0


def test_signals_are_as_a_program_expects(context: Init) -> None:
    """SIGPIPE, which Python ignores, ends it; nothing is blocked, and handlers of the caller's are nobody's."""
    script = FindExecutable("/bin/sh", ())
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        ahead = direct.ahead([script, Execute(("sh", "-c", "kill -PIPE $$"))], context, "init")
        assert ahead
        pid, pidfd = ahead.launch(0, -1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGPIPE
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (Chdir("/none"), {"class": "StepFailed", "errno": errno.ENOENT, "step": "Chdir", "what": "chdir /none"}),
        (FindExecutable("/none", ()), {"class": "CommandNotFound", "errno": errno.ENOENT}),
        (FindExecutable("none", ("/bin",)), {"class": "CommandNotFound", "why": "executable file not found in $PATH"}),
        (FindExecutable("passwd", ("/none", "/etc")), {"class": "NotExecutable", "errno": errno.EACCES}),
        (FindExecutable("etc", ("/",)), {"class": "NotExecutable", "errno": errno.EISDIR, "what": "execute '//etc'"}),
    ],
)
def test_what_is_refused(context: Init, operation: Operation[Init], told: dict[str, Any]) -> None:
    messages, status = made(context, operation, SetUmask())
    assert [message["type"] for message in messages] == ["failed"]
    assert told.items() <= messages[0].items()
    assert status == 125


def test_a_program_that_the_kernel_refuses(context: Init, tmp_path: Any) -> None:
    text = tmp_path / "text"
    text.write_text("neither a program nor a script")
    text.chmod(0o755)
    shims, inits = sync.pair()
    context.sync = inits
    messages, status = made(context, FindExecutable(str(text), ()))
    assert messages == [{"type": "ready"}]
    assert sync.receive(shims)[0] == {"type": "failed", "step": "execve", "errno": errno.ENOEXEC}
    assert status == 127
    for end in (shims, inits):
        end.close()


def test_an_operation_that_needs_python(context: Init) -> None:
    assert direct.ahead([NewSession(), FindHome(0), Execute(("true",))], context, "init") is None
