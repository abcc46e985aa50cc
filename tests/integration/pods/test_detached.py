"""``minirt pod run -d``, and what looks after a pod then: ps, logs, exec, inspect, stop, start, rm; dead workers."""

import json
import os
import re
import signal

import pytest

from tests.command import COMMAND
from tests.integration.lifecycle.terminal import Terminal
from tests.integration.lifecycle.watching import await_line, contents, rest_of, started
from tests.integration.pods.manifests import HELD, IMAGE, MOUNTED, WORK, Pods, by_container, container, manifest
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

POLITE = "trap 'echo bye; exit 0' TERM; echo ready; sleep 1000 & wait"


def worker_of(pods: Pods) -> int:
    """Return the pid of a pod's worker."""
    file = pods.minirt.state / "workers" / f"{pods.inspected()['uid']}.json"
    pid: int = json.loads(file.read_text())["pid"]
    return pid


def kill_worker(pods: Pods) -> None:
    """Kill a pod's worker, and wait until it has gone."""
    pid = worker_of(pods)
    os.kill(pid, signal.SIGKILL)
    await_true(lambda: not os.path.exists(f"/proc/{pid}"), "the worker's end")


def test_it_returns_when_all_runs_and_is_listed(pods: Pods) -> None:
    done = pods.run(manifest(container("one", POLITE), container("two", POLITE)), "-d")
    assert (done.returncode, done.stdout) == (0, "web\n")
    assert "web/two  started" in done.stderr
    row = pods.row()
    assert (row["POD"], row["READY"], row["STATUS"], row["RESTARTS"]) == ("web", "2/2", "Running", "0")
    assert re.fullmatch(r"10\.77\.\d+\.\d+", row["IP"])
    assert row["ID"] == pods.inspected()["id"][:12] == pods.minirt.output("pod", "ps", "-q")
    assert pods.minirt.output("ps", "-aq") == "", "a pod's containers are not those of minirt run"
    pods.minirt.output("pod", "rm", "-f", "web")


def test_logs_of_one_or_all_and_as_they_come(pods: Pods) -> None:
    one = container("one", f"echo first; {HELD}; echo last; echo error >&2", **MOUNTED)
    pods.detached(manifest(one, container("two", f"echo other; {HELD}", **MOUNTED), **WORK))
    with started(pods.minirt, "pod", "logs", "-f", "-c", "one", "web") as following:
        await_line(following, "first")
        (pods.volume(pods.inspected()["uid"]) / "go").touch()
        assert rest_of(following).split() == ["last"]
        assert following.stderr
        assert following.stderr.read() == "error\n"
        assert following.returncode == 0
    done = pods.minirt("pod", "logs", "web")
    assert by_container(done.stdout) == {"one": ["first", "last"], "two": ["other"]}
    assert pods.minirt.output("pod", "logs", "--tail", "1", "-c", "two", "web") == "other"
    assert re.match(r"\d{4}-\d\d-\d\dT\S+Z other$", pods.minirt.output("pod", "logs", "-t", "-c", "two", "web"))
    done = pods.minirt("pod", "logs", "-c", "three", "web")
    assert (done.returncode, "it has one, two" in done.stderr) == (125, True)
    pods.minirt.output("pod", "rm", "web")


def test_logs_go_on_over_a_restart(pods: Pods) -> None:
    count = f"echo x >> /work/runs; echo run $(wc -l < /work/runs); [ $(wc -l < /work/runs) = 1 ] || {HELD}"
    main = container("main", count, **MOUNTED)
    pods.detached(manifest(main, restartPolicy="OnFailure", **WORK), "--backoff-cap", "0.1")
    with started(pods.minirt, "pod", "logs", "-f", "web") as following:
        await_line(following, "run 1")
        pods.minirt("pod", "exec", "web", "--", "kill", "-9", "-1")
        (pods.volume(pods.inspected()["uid"]) / "go").touch()
        rest_of(following)
        assert following.returncode == 0
    pods.minirt.output("pod", "rm", "web")


def test_exec_in_the_first_or_the_one_named_options_on_either_side(pods: Pods) -> None:
    pods.detached(manifest(container("one", POLITE), container("two", POLITE, env=[{"name": "ME", "value": "two"}])))
    run = pods.minirt
    assert run.output("pod", "exec", "web", "--", "sh", "-c", "echo ${ME:-one}") == "one"
    assert run.output("pod", "exec", "-c", "two", "web", "--", "sh", "-c", "echo $ME") == "two"
    assert run.output("pod", "exec", "web", "-c", "two", "--", "sh", "-c", "echo $ME") == "two"
    assert run.output("pod", "exec", "web", "-i", "--", "cat", stdin="given") == "given"
    assert run("pod", "exec", "web", "--", "sh", "-c", "exit 7").returncode == 7
    assert run("pod", "exec", "web", "--", "/no/such").returncode == 127
    for words, said in (
        (["web", "-c", "three", "--", "true"], "it has one, two"),
        (["web"], "name a command"),
        (["web", "--bad", "--", "true"], "no such option: --bad"),
        (["nobody", "--", "true"], "there is no pod of this name"),
    ):
        done = run("pod", "exec", *words)
        assert (done.returncode, said in done.stderr) == (125, True), done.stderr
    with Terminal([COMMAND, "pod", "exec", "-it", "web", "--", "sh"], run.env, lines=33, columns=99) as terminal:
        terminal.await_text("# ")
        terminal.type("stty size; exit 6\r")
        assert terminal.await_end() == 6
        assert "33 99" in terminal.text
        assert terminal.is_restored
    run.output("pod", "rm", "-f", "web")


def test_inspect_says_all_of_it(pods: Pods) -> None:
    pods.detached(manifest(container("one", POLITE), hostname="name"))
    found = pods.inspected()
    assert (found["name"], found["namespace"], found["state"], found["hostname"]) == ("web", "default", "ready", "name")
    one = found["containers"][0]
    assert (one["name"], one["image"], one["state"]["status"]) == ("one", IMAGE, "running")
    assert one["cgroup"].startswith(found["cgroup"])
    assert pods.inspected(found["id"][:8])["id"] == pods.inspected(found["uid"])["id"] == found["id"]
    pods.minirt.output("pod", "rm", "-f", "web")


def test_stop_is_graceful_and_leaves_it_to_be_looked_at_until_rm(pods: Pods) -> None:
    before = contents(pods.minirt)
    pods.detached(manifest(container("one", POLITE), restartPolicy="Always"))
    await_true(lambda: pods.minirt.output("pod", "logs", "web") == "ready", "the trap")
    done = pods.minirt("pod", "rm", "web")
    assert (done.returncode, "one still runs (stop it first, or use --force)" in done.stderr) == (1, True)
    assert pods.minirt.output("pod", "stop", "web") == "web"
    assert pods.minirt.output("pod", "logs", "web").split() == ["ready", "bye"]
    assert (pods.row()["READY"], pods.row()["IP"]) == ("0/1", "-")
    assert pods.minirt("pod", "exec", "web", "--", "true").returncode == 125
    assert pods.minirt.output("pod", "stop", "web") == "web"
    assert pods.minirt.output("pod", "rm", "web") == "web"
    assert contents(pods.minirt) == before
    done = pods.minirt("pod", "rm", "web")
    assert (done.returncode, "there is no pod of this name" in done.stderr) == (1, True)


def test_stop_within_a_grace_of_ones_own(pods: Pods) -> None:
    stubborn = "trap '' TERM; echo ready; while :; do sleep 1000; done"
    pods.detached(manifest(container("one", stubborn), terminationGracePeriodSeconds=600))
    pods.minirt.output("pod", "stop", "-t", "0", "web")
    assert pods.inspected()["containers"][0]["state"]["exit_code"] == 137
    pods.minirt.output("pod", "rm", "web")


def test_a_stopped_pod_can_be_started_again(pods: Pods) -> None:
    pods.detached(manifest(container("one", POLITE), restartPolicy="Always"))
    first = pods.inspected()["id"]
    pods.minirt.output("pod", "stop", "web")
    assert pods.minirt.output("pod", "start", "web") == "web"
    await_true(lambda: pods.row()["STATUS"] == "Running", "the pod runs again")
    assert pods.inspected()["id"] != first
    done = pods.minirt("pod", "start", "web")
    assert (done.returncode, "its worker is alive" in done.stderr) == (125, True)
    pods.minirt.output("pod", "rm", "-f", "web")


def test_the_workers_death_ends_restarts_and_no_container(pods: Pods) -> None:
    script = f"echo x >> /work/runs; echo run $(wc -l < /work/runs); {HELD}; rm /work/go; exit 1"
    pods.detached(manifest(container("main", script, **MOUNTED), restartPolicy="Always", **WORK))
    volume = pods.volume(pods.inspected()["uid"])
    before = pods.inspected()["containers"][0]
    kill_worker(pods)
    assert pods.inspected()["containers"][0]["state"]["pid"] == before["state"]["pid"]
    (volume / "go").touch()
    await_true(lambda: pods.inspected()["containers"][0]["state"]["status"] == "exited", "the container's end")
    assert (volume / "runs").read_text() == "x\n"
    assert pods.minirt.output("pod", "start", "web") == "web"
    await_true(lambda: (volume / "runs").read_text() == "x\nx\n", "the restart by the new worker")
    assert pods.row()["RESTARTS"] == "1"
    pods.minirt.output("pod", "rm", "-f", "web")


def test_a_new_worker_takes_over_what_runs(pods: Pods) -> None:
    pods.detached(manifest(container("one", POLITE), container("two", POLITE), restartPolicy="Always"))
    before = [one["state"]["pid"] for one in pods.inspected()["containers"]]
    kill_worker(pods)
    assert pods.minirt.output("pod", "start", "web") == "web"
    assert [one["state"]["pid"] for one in pods.inspected()["containers"]] == before
    pods.minirt.output("pod", "stop", "web")
    assert by_container(pods.minirt.output("pod", "logs", "web"))["one"] == ["ready", "bye"]
    pods.minirt.output("pod", "rm", "web")


def test_without_its_worker_a_pod_can_be_stopped_and_removed(pods: Pods) -> None:
    before = contents(pods.minirt)
    pods.detached(manifest(container("one", POLITE)))
    kill_worker(pods)
    pods.minirt.output("pod", "stop", "web")
    pods.minirt.output("pod", "rm", "web")
    pods.detached(manifest(container("one", POLITE)))
    kill_worker(pods)
    pods.minirt.output("pod", "rm", "-f", "web")
    assert contents(pods.minirt) == before


def test_a_pod_that_ends_stays_with_its_exit_codes(pods: Pods) -> None:
    pods.detached(manifest(container("one", "exit 3"), container("two", "true")))
    await_true(lambda: pods.row()["STATUS"] == "Error", "the pod's end")
    found = {one["name"]: one["state"]["exit_code"] for one in pods.inspected()["containers"]}
    assert found == {"one": 3, "two": 0}
    await_true(lambda: not list((pods.minirt.state / "workers").glob("*.json")), "the worker's end")
    pods.minirt.output("pod", "rm", "web")


def test_a_worker_keeps_nothing_of_who_started_it(pods: Pods) -> None:
    pods.detached(manifest(container("one", POLITE)))
    worker = worker_of(pods)
    ours = {os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)}
    assert os.getsid(worker) == worker
    theirs = {os.readlink(f"/proc/{worker}/fd/{number}") for number in os.listdir(f"/proc/{worker}/fd")}
    assert not theirs & (ours - {"/dev/null"})
    pods.minirt.output("pod", "rm", "-f", "web")
