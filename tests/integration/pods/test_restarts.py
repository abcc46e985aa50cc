"""restartPolicy and back-off, init containers, and how a pod ends."""

import re
from itertools import pairwise

import pytest

from tests.integration.pods.manifests import MOUNTED, WORK, Pods, by_container, container, manifest
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

COUNT = "echo x >> /work/runs; runs=$(wc -l < /work/runs); echo run $runs;"
EXITED = re.compile(r"(\S+)/(\S+)  exited with code (\d+)")


def ends(errors: str) -> list[tuple[str, int]]:
    """Return (container, code) of each end that the progress shows, in order."""
    return [(match[2], int(match[3])) for match in EXITED.finditer(errors)]


def test_the_exit_status_is_that_of_the_first_container_that_failed(pods: Pods) -> None:
    first = container("first", "touch /work/go; exit 7", **MOUNTED)
    second = container("second", "until [ -e /work/go ]; do sleep 0.02; done; sleep 0.3; exit 9", **MOUNTED)
    done = pods.run(manifest(container("good", "true"), second, first, **WORK))
    assert done.returncode == 7
    assert sorted(ends(done.stderr)) == [("first", 7), ("good", 0), ("second", 9)]


def test_never_means_once(pods: Pods) -> None:
    done = pods.run(manifest(container("main", f"{COUNT} exit 3", **MOUNTED), **WORK))
    assert (done.returncode, by_container(done.stdout)) == (3, {"main": ["run 1"]})


def test_on_failure_means_until_it_succeeds_with_growing_pauses(pods: Pods) -> None:
    """The first restart is free; the cap keeps the pauses of a test short."""
    main = container("main", f"{COUNT} [ $runs = 4 ]", **MOUNTED)
    done = pods.run(manifest(main, restartPolicy="OnFailure", **WORK), "--backoff-cap", "0.1")
    assert done.returncode == 0
    assert by_container(done.stdout) == {"main": ["run 1", "run 2", "run 3", "run 4"]}
    assert ends(done.stderr) == [("main", 1)] * 3 + [("main", 0)]
    assert done.stderr.count("web/main  waiting 0 s before the next try") == 2


def test_always_means_after_success_too_and_the_table_counts(pods: Pods) -> None:
    pods.detached(manifest(container("main", COUNT, **MOUNTED), restartPolicy="Always", **WORK), "--backoff-cap", "0.1")
    await_true(lambda: int(pods.row()["RESTARTS"]) >= 3, "three restarts")
    lines = pods.minirt.output("pod", "logs", "web").splitlines()
    numbers = [int(line.removeprefix("run ")) for line in lines]
    assert all(after == before + 1 for before, after in pairwise(numbers))
    pods.minirt.output("pod", "rm", "-f", "web")


def test_a_container_that_keeps_failing_is_in_crash_loop_back_off(pods: Pods) -> None:
    with pods.beside(manifest(container("main", "exit 1"), restartPolicy="Always")) as client:
        assert client.stderr
        for line in client.stderr:
            if "before the next try" in line:
                break
        assert "web/main  waiting 10 s before the next try\n" in line
        client.terminate()
        assert client.wait(20) == 130


def test_init_containers_run_one_after_the_other_before_the_rest(pods: Pods) -> None:
    init = [container(name, f"echo {name} >> /work/order; sleep 0.1", **MOUNTED) for name in ("one", "two")]
    done = pods.run(manifest(container("main", "cat /work/order", **MOUNTED), initContainers=init, **WORK))
    assert (done.returncode, by_container(done.stdout)) == (0, {"main": ["one", "two"]})
    assert re.findall(r"web/(\w+)  started", done.stderr) == ["one", "two", "main"]
    assert ends(done.stderr) == [("one", 0), ("two", 0), ("main", 0)]


def test_an_init_container_that_fails_fails_the_pod_and_keeps_the_rest_from_starting(pods: Pods) -> None:
    init = [container("one", "exit 4"), container("two", "true")]
    done = pods.run(manifest(container("main", "echo never"), initContainers=init))
    assert (done.returncode, done.stdout) == (4, "")
    assert ends(done.stderr) == [("one", 4)]


def test_an_init_container_is_tried_again_when_the_policy_says_so(pods: Pods) -> None:
    init = [container("one", f"{COUNT} [ $runs = 3 ]", **MOUNTED)]
    pod = manifest(container("main", "echo main"), initContainers=init, restartPolicy="OnFailure", **WORK)
    done = pods.run(pod, "--backoff-cap", "0.1")
    assert done.returncode == 0
    assert by_container(done.stdout) == {"one": ["run 1", "run 2", "run 3"], "main": ["main"]}
    assert ends(done.stderr) == [("one", 1), ("one", 1), ("one", 0), ("main", 0)]


def test_a_command_that_is_not_there_has_its_code(pods: Pods) -> None:
    done = pods.run(manifest(container("main", "", command=["/no/such"])))
    assert done.returncode == 127
    assert "no such file or directory" in done.stderr


def test_an_image_that_is_missing_is_said_so_and_nothing_is_left(pods: Pods) -> None:
    """In the foreground and detached: here nobody would try it again, so the command ends."""
    pod = manifest(container("main", "true", image="localhost/absent"))
    for flags in ([], ["-d"]):
        done = pods.run(pod, *flags)
        assert done.returncode == 125
        assert "cannot use image localhost/absent: it is not here, and its imagePullPolicy is Never" in done.stderr
    assert pods.minirt.output("pod", "ps", "-q") == ""


def test_a_registry_that_cannot_be_reached_is_said_so(pods: Pods) -> None:
    done = pods.run(manifest(container("main", "true", image="127.0.0.1:1/absent:1", imagePullPolicy="Always")))
    assert done.returncode == 125
    assert "pulling" in done.stderr
    assert "127.0.0.1:1" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
