"""``minirt pod run`` in the foreground: progress, prefixed logs, and Ctrl-C that leaves nothing."""

import os
import re
import signal
import subprocess

import pytest

from tests import leaks
from tests.command import COMMAND
from tests.integration.lifecycle.terminal import Terminal
from tests.integration.lifecycle.watching import await_line, contents, rest_of
from tests.integration.pods.manifests import HELD, MOUNTED, WORK, Pods, by_container, container, manifest
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

POLITE = "trap 'echo bye; exit 0' TERM; echo ready; sleep 1000 & wait"


def test_progress_goes_to_stderr_and_logs_with_their_names_to_stdout(pods: Pods) -> None:
    one = container("one", "echo out; echo err >&2; printf 'no end'")
    done = pods.run(manifest(one, container("second", "echo there")))
    assert done.returncode == 0
    found = by_container(done.stdout)
    assert (sorted(found["one"]), found["second"]) == (["err", "no end", "out"], ["there"])
    assert all(re.match(r"(one   |second) \| ", line) for line in done.stdout.splitlines())
    events = [line.split("  ", 1) for line in done.stderr.splitlines()]
    assert [event[0] for event in events[:2]] == ["… web", "✔ web"]
    assert re.fullmatch(r"sandbox ready 10\.77\.\d+\.\d+(, fdcd:[0-9a-f:]+)?", events[1][1])
    assert {event[1] for event in events if event[0].endswith("/one")} >= {"created", "started"}
    assert "\x1b" not in done.stdout + done.stderr


def test_on_a_terminal_the_names_have_colours(pods: Pods) -> None:
    path = pods.write(manifest(container("one", "echo there"), container("two", "true")))
    with Terminal([COMMAND, "pod", "run", str(path)], pods.minirt.env) as terminal:
        assert terminal.await_end() == 0
        assert "\x1b[36mone | \x1b[0mthere" in terminal.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it_gracefully_and_nothing_is_left(pods: Pods, number: signal.Signals) -> None:
    before = contents(pods.minirt)
    with pods.beside(manifest(container("one", POLITE), container("two", POLITE), restartPolicy="Always")) as client:
        await_line(client, "one | ready")
        await_true(lambda: "two | ready" in pods.minirt.output("pod", "logs", "web"), "the other's log")
        client.send_signal(number)
        found = by_container(rest_of(client))
        assert client.returncode == 130
        assert client.stderr
        progress = client.stderr.read()
    assert (found["one"][-1], found["two"][-1]) == ("bye", "bye")
    assert ("Stopping…" in progress) == (number == signal.SIGINT)
    assert "web/one  exited with code 0" in progress
    assert contents(pods.minirt) - before == set()


def test_ctrl_c_on_a_terminal_reaches_minirt_alone(pods: Pods) -> None:
    path = pods.write(manifest(container("one", f"trap 'echo interrupted' INT; {POLITE}"), restartPolicy="Always"))
    with Terminal([COMMAND, "pod", "run", str(path)], pods.minirt.env) as terminal:
        terminal.await_text("| \x1b[0mready")
        terminal.type("\x03")
        assert terminal.await_end() == 130
        assert "bye" in terminal.text
        assert "interrupted" not in terminal.text
    assert pods.minirt.output("pod", "ps", "-q") == ""


def test_who_ignores_the_stop_signal_is_killed_after_its_grace(pods: Pods) -> None:
    stubborn = "trap '' TERM; echo ready; while :; do sleep 1000; done"
    with pods.beside(manifest(container("one", stubborn), restartPolicy="Always")) as client:
        await_line(client, "one | ready")
        client.terminate()
        rest_of(client)
        assert client.returncode == 130
        assert client.stderr
        assert "web/one  exited with code 137" in client.stderr.read()


def test_told_to_end_while_an_init_container_runs_it_ends(pods: Pods) -> None:
    init = [container("init", POLITE)]
    with pods.beside(manifest(container("main", "echo never"), initContainers=init)) as client:
        await_line(client, "init | ready")
        client.terminate()
        assert "never" not in rest_of(client)
        assert client.returncode == 130
    assert pods.minirt.output("pod", "ps", "-q") == ""


def test_a_killed_client_leaves_containers_that_can_be_found_and_removed(pods: Pods) -> None:
    with pods.beside(manifest(container("one", POLITE), restartPolicy="Always")) as client:
        await_line(client, "one | ready")
        client.kill()
    assert pods.row()["STATUS"] == "Running"
    assert pods.minirt.output("pod", "logs", "web") == "ready"
    pods.minirt.output("pod", "rm", "-f", "web")
    await_true(lambda: leaks.links() == ("lo",), "the veth's end, which goes with its namespace")


def test_keep_leaves_the_ended_pod_to_be_looked_at(pods: Pods) -> None:
    done = pods.run(manifest(container("one", "echo there; exit 3")), "--keep")
    assert done.returncode == 3
    assert (pods.row()["STATUS"], pods.row()["READY"]) == ("Error", "0/1")
    assert pods.minirt.output("pod", "logs", "web") == "there"
    assert pods.inspected()["containers"][0]["state"]["exit_code"] == 3
    pods.minirt.output("pod", "rm", "web")


def test_much_output_of_two_is_complete_and_each_in_order(pods: Pods) -> None:
    count = "awk 'BEGIN { for (i = 0; i < 20000; i++) printf \"%099d\\n\", i }'"
    done = pods.run(manifest(container("one", count), container("two", count)))
    assert done.returncode == 0
    for lines in by_container(done.stdout).values():
        assert [int(line) for line in lines] == list(range(20000))


def test_a_reader_that_has_gone_does_not_hold_the_pod(pods: Pods) -> None:
    path = pods.write(manifest(container("one", f"echo ready; {HELD}; seq 100000; exit 5", **MOUNTED), **WORK))
    with subprocess.Popen(
        [COMMAND, "pod", "run", str(path)], env=pods.minirt.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as client:
        assert client.stdout
        assert client.stdout.readline() == b"one | ready\n"
        client.stdout.close()
        (pods.volume(pods.inspected()["uid"]) / "go").touch()
        assert client.wait(20) == 5
    assert pods.minirt.output("pod", "ps", "-q") == ""


def test_a_trace_can_be_explained(pods: Pods) -> None:
    pods.detached(manifest(container("one", "sleep 1000"), container("two", "sleep 1000")), "--trace")
    text = pods.minirt.output("explain", "pod", "web")
    for name in ("one", "two"):
        pid = next(each["state"]["pid"] for each in pods.inspected()["containers"] if each["name"] == name)
        assert f"\ninit (pid {pid})\n" in text
    assert "# spec.containers[0]" in text
    assert "# spec.containers[1]" in text
    assert text.count("pivot_root(") >= 2
    pods.minirt.output("pod", "rm", "-f", "web")
    done = pods.minirt("explain", "pod", "web")
    assert (done.returncode, "there is no pod of this name" in done.stderr) == (125, True)


def test_nothing_of_our_environment_gets_into_a_pod(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", os.urandom(8).hex())
    names = {line.partition("=")[0] for line in pods.said(manifest(container("one", "env")))["one"]}
    assert names == {"PATH", "HOME", "HOSTNAME", "SHLVL", "PWD"}
