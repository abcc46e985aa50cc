"""What users do with docker and podman, on their own runtime and on minirt-oci: it must come out the same."""

import json
from pathlib import Path

import pytest

from tests.integration.engines.conftest import Engine
from tests.peers import busybox
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]

POLITE = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def running(engine: Engine, request: pytest.FixtureRequest) -> str:
    """A container that has said ready, and ends with 3 when it is asked to."""
    made = engine.background("sh", "-c", POLITE)
    request.addfinalizer(lambda: engine("rm", "--force", made))
    await_true(lambda: "ready" in engine.output("logs", made), "the container's first words")
    return made


def test_output_and_exit_code(engine: Engine) -> None:
    done = engine.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.returncode) == ("out\n", 7)
    assert "err" in done.stderr


@pytest.mark.parametrize(("command", "code"), [("nothing-of-this-name", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_executed(engine: Engine, command: str, code: int) -> None:
    assert engine.run(command).returncode == code


def test_who_and_where(engine: Engine) -> None:
    flags = ("--user", "1000:100", "--workdir", "/tmp", "--env", "A=b", "--hostname", "here")
    assert engine.run("sh", "-c", "id -u; id -g; pwd; echo $A; hostname", flags=flags).stdout.split() == [
        "1000",
        "100",
        "/tmp",
        "b",
        "here",
    ]


def test_capabilities_are_the_engines(engine: Engine) -> None:
    def bounding(*flags: str) -> str:
        return engine.run("grep", "CapBnd", "/proc/self/status", flags=flags).stdout.split()[1]

    assert bounding("--cap-drop", "ALL") == "0" * 16
    assert int(bounding("--cap-drop", "ALL", "--cap-add", "NET_RAW"), 16) == 1 << 13


def test_volumes(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("hello")
    script = "cat /v/seen; touch /v/new; touch /r/new 2>&1 | grep -o 'Read-only'"
    flags = ("--volume", f"{tmp_path}:/v", "--volume", f"{tmp_path}:/r:ro")
    assert engine.run("sh", "-c", script, flags=flags).stdout == "helloRead-only\n"
    assert (tmp_path / "new").exists()


def test_read_only_with_a_tmpfs(engine: Engine) -> None:
    script = "touch /x 2>/dev/null || echo refused; touch /scratch/x && echo written"
    done = engine.run("sh", "-c", script, flags=("--read-only", "--tmpfs", "/scratch"))
    assert done.stdout.split() == ["refused", "written"]


def test_stop_asks_first(engine: Engine, running: str) -> None:
    engine.output("stop", "--time", "20", running)
    assert engine.inspect(running, "{{.State.ExitCode}}") == "3"


def test_kill(engine: Engine, running: str) -> None:
    engine.output("kill", running)
    await_true(lambda: engine.inspect(running, "{{.State.Running}}") == "false", "the end")
    assert engine.inspect(running, "{{.State.ExitCode}}") == "137"


def test_exec(engine: Engine, running: str) -> None:
    done = engine("exec", "--env", "A=b", "--user", "1000", running, "sh", "-c", "echo $A $(id -u); exit 9")
    assert (done.stdout, done.returncode) == ("b 1000\n", 9)
    assert engine("exec", running, "nothing-of-this-name").returncode in {126, 127}, (
        "docker 20.10 says 126 of runc, too"
    )


def test_a_terminal(engine: Engine, running: str) -> None:
    assert "/dev/pts/" in engine("exec", "--tty", running, "tty").stdout
    assert "/dev/" in engine.run("tty", flags=("--tty",)).stdout


def test_pause(engine: Engine, running: str) -> None:
    engine.output("pause", running)
    assert engine.inspect(running, "{{.State.Status}}") == "paused"
    assert engine("exec", running, "true").returncode != 0
    engine.output("unpause", running)
    assert engine("exec", running, "true").returncode == 0


def test_top_shows_its_processes(engine: Engine, running: str) -> None:
    await_true(lambda: "sleep" in engine.output("top", running), "its second process to be shown")


def test_a_health_check_is_an_exec(engine: Engine, request: pytest.FixtureRequest) -> None:
    flags = ("--health-cmd", "test -e /tmp/well", "--health-interval", "1s", "--health-retries", "1")
    made = engine.background("sh", "-c", POLITE, flags=flags)
    request.addfinalizer(lambda: engine("rm", "--force", made))
    if engine("healthcheck", "--help").returncode == 0 and "podman" in engine.output("--version"):
        assert engine("healthcheck", "run", made).returncode == 1
        engine.output("exec", made, "touch", "/tmp/well")
        assert engine("healthcheck", "run", made).returncode == 0
        return
    engine.output("exec", made, "touch", "/tmp/well")
    await_true(lambda: engine.inspect(made, "{{.State.Health.Status}}") == "healthy", "a healthy container")


def test_restarted_when_it_fails(engine: Engine, request: pytest.FixtureRequest) -> None:
    made = engine.background("sh", "-c", "echo again; exit 4", flags=("--restart", "on-failure:2"))
    request.addfinalizer(lambda: engine("rm", "--force", made))
    await_true(lambda: engine.output("logs", made).split() == ["again"] * 3, "three starts")


def test_stopped_and_started_again(engine: Engine, running: str) -> None:
    engine.output("stop", "--time", "20", running)
    engine.output("start", running)
    await_true(lambda: engine.output("logs", running).split() == ["ready"] * 2, "its second life")


def test_stdin(engine: Engine) -> None:
    made = engine.output("create", "--interactive", *engine.common(), busybox.NAME, "cat")
    try:
        done = engine("start", "--attach", "--interactive", made)
        assert done.returncode == 0, "at the end of stdin cat ends"
    finally:
        engine("rm", "--force", made)


def test_the_spec_reaches_the_container(engine: Engine, running: str) -> None:
    state = json.loads(engine.output("inspect", running))[0]["State"]
    assert Path(f"/proc/{state['Pid']}/root/bin/busybox").exists()
