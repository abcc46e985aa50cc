"""``run`` in the foreground: signals that are passed on, orphans that are reaped, and what kill can say."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.oci.container import WAIT, Container, fields
from tests.isolation import children_of
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]

REALTIME = pytest.param("RTMIN+1", marks=pytest.mark.differs("runc", "1.1 knows real-time signals by number only"))
CALLER = """
import ctypes, json, signal, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
for command in json.loads(sys.argv[1]):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
signal.pause()
"""
"""A subreaper that has commands executed, and then waits for nobody."""


def in_foreground(container: Container) -> "subprocess.Popen[str]":
    """Begin ``run``, and wait until the program traps SIGTERM."""
    container.write()
    container.pid_file.unlink(missing_ok=True)
    command = container.runtime.command(
        "run", "--bundle", container.bundle, "--pid-file", container.pid_file, container.name
    )
    begun = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    await_true(lambda: container.pid_file.exists() and container.pid_file.read_text() != "", "the pid file")
    container.await_trap()
    return begun


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "TERM"), (signal.SIGINT, "INT"), (signal.SIGHUP, "HUP"), (signal.SIGUSR1, "USR1")],
    ids=["TERM", "INT", "HUP", "USR1"],
)
def test_a_signal_to_run_is_passed_on(container: Container, number: int, name: str) -> None:
    container.script(f"trap 'echo {name}; exit 3' {name}; trap : TERM; {WAIT.split(';', 1)[1]}")
    if name == "TERM":
        container.script(f"trap 'echo TERM; exit 3' TERM; {WAIT.split(';', 1)[1]}")
    with in_foreground(container) as begun:
        begun.send_signal(number)
        assert begun.communicate(timeout=20)[0] == f"{name}\n"
        assert begun.returncode == 3
    assert not container.exists


def test_a_program_that_is_killed_by_kill(container: Container) -> None:
    with in_foreground(container.script(WAIT)) as begun:
        assert container("kill", "KILL").returncode == 0
        assert begun.wait(20) == 128 + signal.SIGKILL


def test_run_waits_for_the_program_and_not_for_its_children(container: Container) -> None:
    """With a PID namespace its children end with it, though they hold stdout."""
    assert container.script("sleep 1000 & exit 5").run().returncode == 5


def test_the_init_is_a_child_of_run(container: Container) -> None:
    with in_foreground(container.script(WAIT)) as begun:
        assert container.pid in children_of(begun.pid)
        begun.terminate()
        assert begun.wait(20) == 3


@pytest.mark.parametrize("number", ["USR1", "SIGUSR2", "HUP", "10", "35", REALTIME])
def test_kill_by_name_and_number(container: Container, number: str) -> None:
    """The trap is on all four of them, and says which it was."""
    traps = "".join(f"trap 'echo {name}' {name};" for name in ("USR1", "USR2", "HUP", "35"))
    container.script(f"{traps} trap : TERM; while :; do sleep 0.02; done").create().start()
    container.await_trap()
    assert container("kill", number).returncode == 0
    said = {"USR1": "USR1\n", "SIGUSR2": "USR2\n", "HUP": "HUP\n", "10": "USR1\n", "35": "35\n", "RTMIN+1": "35\n"}
    await_true(lambda: container.output.read_text() == said[number], "the trap")


def test_process_1_is_deaf_to_what_it_does_not_trap(running: Container) -> None:
    """The kernel's rule for the first process of a PID namespace, seen from inside it."""
    await_true(running.is_executed, "the program's exec")
    assert running.exec("sh", "-c", "kill -TERM 1; kill -KILL 1").returncode == 0
    assert running.status() == "running"


def test_stop_and_cont(running: Container) -> None:
    await_true(running.is_executed, "the program's exec")
    assert running("kill", "STOP").returncode == 0
    await_true(lambda: fields(running.pid)["State"].startswith("T"), "its stop")
    assert running("kill", "CONT").returncode == 0
    await_true(lambda: not fields(running.pid)["State"].startswith("T"), "its going on")


def test_an_orphan_in_the_container_goes_to_its_process_1(container: Container) -> None:
    container.script("(sleep 1000 &); exec sleep 1001").create().start()
    await_true(lambda: container.proc("cmdline").read_text() == "sleep\x001001\0", "the program's exec")
    await_true(lambda: len(children_of(container.pid)) == 1, "the orphan's adoption")


def test_the_init_of_create_is_reaped_by_the_subreaper(container: Container) -> None:
    """The tests' own, which waits for whomever it is given: no zombie stays."""
    container.args("true").create().start()
    pid = container.pid
    await_true(lambda: not Path(f"/proc/{pid}").exists(), "its reaping")
    assert container.status() == "stopped"


def test_an_init_that_nobody_waits_for_counts_as_stopped(container: Container) -> None:
    """A caller that is a subreaper and busy: the zombie is a container that has ended."""
    container.args("true").write()
    create = ("create", "--bundle", container.bundle, "--pid-file", container.pid_file, container.name)
    commands = [list(map(str, container.runtime.command(*words))) for words in (create, ("start", container.name))]
    with subprocess.Popen([sys.executable, "-c", CALLER, json.dumps(commands)], stdout=subprocess.DEVNULL) as caller:
        try:
            await_true(lambda: container.pid_file.exists() and container.pid_file.read_text() != "", "the pid file")
            await_true(lambda: fields(container.pid)["State"].startswith("Z"), "the program's end")
            assert fields(container.pid)["PPid"] == str(caller.pid)
            assert container.status() == "stopped"
            assert container("delete").returncode == 0
        finally:
            caller.kill()
