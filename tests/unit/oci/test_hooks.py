"""Hooks: real programs, run as any user."""

from pathlib import Path

import pytest

from minirt.errors import StepFailed
from minirt.oci import hooks
from minirt.oci.hooks import Hook

STATE = '{"id": "one", "pid": 5}'


def script(text: str, *, timeout: int | None = None, env: tuple[str, ...] = ()) -> Hook:
    return Hook("/bin/sh", ("sh", "-c", text), env, timeout)


def test_the_state_is_on_stdin_and_nothing_else_is_inherited(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    hooks.run("prestart", (script(f"cat > {seen}; echo $A ${{HOME-none}} >> {seen}", env=("A=b=c",)),), STATE)
    assert seen.read_text() == f"{STATE}b=c none\n"


def test_in_order_until_one_fails(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    moments = tuple(script(text) for text in (f"echo 1 >> {seen}", "exit 4", f"echo 3 >> {seen}"))
    with pytest.raises(StepFailed, match="cannot run the prestart hook /bin/sh: it ended with exit status 4"):
        hooks.run("prestart", moments, STATE)
    assert seen.read_text() == "1\n"
    failures = hooks.run_all("poststop", moments, STATE)
    assert seen.read_text() == "1\n1\n3\n"
    assert [str(failure).partition(":")[0] for failure in failures] == ["cannot run the poststop hook /bin/sh"]


def test_one_that_takes_too_long_is_killed() -> None:
    with pytest.raises(StepFailed, match="did not end within its timeout of 1 s"):
        hooks.run("prestart", (script("exec sleep 100", timeout=1),), STATE)


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (Hook("/none"), "No such file"),
        (Hook("sh"), "not absolute"),
        (script("kill -9 $$"), "signal 9"),
    ],
)
def test_what_went_wrong_is_said(hook: Hook, why: str) -> None:
    with pytest.raises(StepFailed, match=why):
        hooks.run("poststart", (hook,), STATE)
