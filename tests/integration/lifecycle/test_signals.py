"""stop, kill, wait, and the signals that a client passes on."""

import fcntl
import signal
import subprocess
import time
from pathlib import Path

import pytest

from minirt.cgroups import lifecycle
from tests.command import Minirt
from tests.integration.lifecycle.watching import ALONE, await_line, await_log, inspected, pids_of, rest_of, started
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

GRACE_S = "0.3"


def on(name: str, code: int) -> str:
    """Return a script that ends with ``code`` at a signal, after a last word."""
    return f"trap 'echo told {name}; exit {code}' {name}; echo ready; sleep 1000 & wait"


STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1000; done"


def detached(minirt: Minirt, image: str, name: str, *words: str, script: str) -> None:
    """Start a container that says ready once its traps are set."""
    minirt.output("run", "-d", "--name", name, *ALONE, *words, image, "sh", "-c", script)
    await_log(minirt, name)


def timed_stop(minirt: Minirt, grace_s: str) -> float:
    """Stop the container "one" with a grace; return how long it took, in seconds."""
    begun = time.monotonic()
    assert minirt.output("stop", "-t", grace_s, "one") == "one"
    return time.monotonic() - begun


def test_stop_sends_term_and_waits_for_the_end(minirt: Minirt, busybox: str) -> None:
    detached(minirt, busybox, "one", script=on("TERM", 5))
    assert timed_stop(minirt, "60") < 30
    assert minirt.output("wait", "one") == "5"
    assert minirt.output("logs", "one").splitlines() == ["ready", "told TERM"]
    minirt.output("rm", "one")


@pytest.mark.parametrize("flags", [[], ["--pid", "host"]], ids=["private", "host pids"])
def test_who_ignores_the_signal_is_killed_after_the_grace(minirt: Minirt, busybox: str, flags: list[str]) -> None:
    detached(minirt, busybox, "one", *flags, script=STUBBORN)
    assert timed_stop(minirt, GRACE_S) >= float(GRACE_S)
    found = inspected(minirt, "one")["state"]
    assert (found["status"], found["exit_code"], found["oom_killed"]) == ("exited", 137, False)
    minirt.output("rm", "one")


def test_a_first_process_without_handlers_ignores_term_as_it_does_in_docker(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    assert timed_stop(minirt, GRACE_S) >= float(GRACE_S)
    assert minirt.output("wait", "one") == "137"
    minirt.output("rm", "one")


def test_stop_without_grace_kills_at_once(minirt: Minirt, busybox: str) -> None:
    detached(minirt, busybox, "one", script=on("TERM", 5))
    minirt.output("stop", "-t", "0", "one")
    assert minirt.output("wait", "one") == "137"
    assert minirt.output("logs", "one") == "ready"
    minirt.output("rm", "one")


def test_the_stop_signal_is_the_flags_then_the_images(minirt: Minirt, busybox: str, busybox_root: str) -> None:
    minirt.output("image", "import", str(busybox_root), "localhost/usr1", "--stop-signal", "SIGUSR1")
    detached(minirt, "localhost/usr1", "one", script=on("USR1", 6))
    detached(minirt, "localhost/usr1", "two", "--stop-signal", "HUP", script=on("HUP", 7))
    assert minirt.output("stop", "one", "two").splitlines() == ["one", "two"]
    assert minirt.output("wait", "one", "two").splitlines() == ["6", "7"]
    minirt.output("rm", "one", "two")


def test_stop_and_kill_say_what_they_could_not_do_and_go_on(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "--name", "ended", *ALONE, busybox, "true")
    detached(minirt, busybox, "one", script=on("TERM", 5))
    done = minirt("stop", "nobody", "ended", "one")
    assert (done.returncode, done.stdout.split()) == (1, ["ended", "one"])
    assert "cannot find container 'nobody'" in done.stderr
    done = minirt("kill", "one")
    assert (done.returncode, "it is exited" in done.stderr) == (1, True)
    minirt.output("rm", "one", "ended")


@pytest.mark.parametrize("name", ["USR2", "SIGUSR2", "usr2", "12"])
def test_kill_sends_any_signal_by_name_or_number(minirt: Minirt, busybox: str, name: str) -> None:
    detached(minirt, busybox, "one", script=on("USR2", 8))
    assert minirt.output("kill", "-s", name, "one") == "one"
    assert minirt.output("wait", "one") == "8"
    minirt.output("rm", "one")


def test_kill_refuses_what_is_no_signal(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    for name in ("NOPE", "0", "65", "-1", ""):
        done = minirt("kill", "-s", name, "one")
        assert (done.returncode, "there is none of this name" in done.stderr) == (125, True), name
    assert inspected(minirt, "one")["state"]["status"] == "running"
    minirt.output("rm", "-f", "one")


def test_wait_prints_the_codes_of_all_in_order_and_waits(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sh", "-c", "exit 4")
    detached(minirt, busybox, "two", script=on("TERM", 5))
    with started(minirt, "wait", "one", "two", "nobody", "one") as waiting:
        assert waiting.stdout
        assert waiting.stdout.readline() == "4\n"
        minirt.output("stop", "two")
        rest = rest_of(waiting)
        assert waiting.stderr
        assert "cannot find container 'nobody'" in waiting.stderr.read()
    assert (rest.split(), waiting.returncode) == (["5", "4"], 1)
    minirt.output("rm", "one", "two")


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1", "QUIT"])
def test_a_client_passes_its_signals_on(minirt: Minirt, busybox: str, name: str) -> None:
    with started(minirt, "run", "--rm", *ALONE, busybox, "sh", "-c", on(name, 9)) as client:
        await_line(client)
        client.send_signal(getattr(signal, f"SIG{name}"))
        rest = rest_of(client)
    assert (client.returncode, rest) == (9, f"told {name}\n")


def test_exec_passes_its_signals_on(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    with started(minirt, "exec", "one", "sh", "-c", on("TERM", 9)) as client:
        await_line(client)
        client.terminate()
        rest = rest_of(client)
    assert (client.returncode, rest) == (9, "told TERM\n")
    assert inspected(minirt, "one")["state"]["status"] == "running"
    minirt.output("rm", "-f", "one")


def test_who_ignores_what_is_passed_on_goes_on(minirt: Minirt, busybox: str) -> None:
    script = "trap '' TERM; trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    with started(minirt, "run", "--rm", *ALONE, busybox, "sh", "-c", script) as client:
        await_line(client)
        client.terminate()
        client.send_signal(signal.SIGUSR1)
        assert client.wait(20) == 9


def test_a_client_that_ignores_hup_keeps_it_from_the_container(minirt: Minirt, busybox: str) -> None:
    command = f"trap 'exit 1' HUP; {on('TERM', 9)}"
    words = ["run", "--rm", *ALONE, busybox, "sh", "-c", command]
    with started(minirt, *words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as client:
        await_line(client)
        client.send_signal(signal.SIGHUP)
        client.terminate()
        assert client.wait(20) == 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_client_that_is_told_to_end_before_the_start_undoes_what_it_did(
    minirt: Minirt, busybox: str, number: signal.Signals
) -> None:
    """The network's lock is held here, so that the client waits for it in the middle of making the sandbox."""
    (minirt.state / "network").mkdir(parents=True)
    with open(minirt.state / "network/bridge.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with started(minirt, "run", "--name", "one", busybox, "sleep", "1000") as client:
            await_true(lambda: _waits_for_a_lock(client.pid), "the client at the network's lock")
            client.send_signal(number)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert client.wait(20) == 128 + number
    assert minirt.output("ps", "-a", "-q") == ""
    assert minirt.output("system", "prune") == "nothing to remove"


def _waits_for_a_lock(pid: int) -> bool:
    """Say whether a process waits for a lock. Source: proc_locks(5): "-> FLOCK ADVISORY WRITE pid …"."""
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(row[1] == "->" and row[5] == str(pid) for row in rows)


def test_all_of_a_container_gets_the_kill(minirt: Minirt, busybox: str) -> None:
    script = "trap '' TERM; (trap '' TERM; setsid sleep 1000) & sleep 1000 & echo ready; while :; do wait; done"
    detached(minirt, busybox, "one", "--pid", "host", script=script)
    await_true(lambda: len(pids_of(minirt, "one")) == 3, "three processes")
    found = inspected(minirt, "one")
    with started(minirt, "wait", "one", stdout=subprocess.PIPE) as waiting:
        minirt.output("stop", "-t", "0", "one")
        assert waiting.communicate(timeout=20)[0] == "137\n"
    assert lifecycle.pids(found["cgroup"]) == []
    minirt.output("rm", "one")
