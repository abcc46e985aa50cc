"""kill -9 of each process that works for a running container: what goes on, what is lost, what is said."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from minirt.engine import store
from minirt.kubelet import workers
from minirt.shim import status as statuses
from tests.command import Minirt
from tests.integration.crash.lab import POD as ON_THE_HOST
from tests.integration.crash.lab import Lab, Scenario
from tests.integration.lifecycle.watching import (
    await_line,
    await_log,
    children_of,
    contents,
    inspected,
    shim_of,
    started,
)
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("cgroup2_tree", "nft", "busybox")]

SCRIPT = "echo ready; until [ -e /flag/go ]; do sleep 0.02; done; exit 7"
Go = Callable[[], None]


def kill(pid: int) -> None:
    """Kill a process and wait until it is gone, or is a zombie that its parent has not reaped yet."""
    os.kill(pid, signal.SIGKILL)

    def gone() -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    await_true(gone, f"the end of {pid}")


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """A directory of the host that a container sees as /flag: it ends when the file ``go`` is there."""
    (tmp_path / "flag").mkdir()
    return tmp_path / "flag"


def run_words(flag: Path, *options: str, network: str = "none") -> list[str]:
    return ["run", *options, "--name", "web", "--network", network, "-v", f"{flag}:/flag", "localhost/busybox"]


def running() -> dict[str, int]:
    """Return the pids of running containers, by container id."""
    found = {one.id: statuses.read(one.id) for one in store.containers()}
    return {key: one.pid for key, one in found.items() if one and one.state == "running" and one.is_alive()}


@pytest.mark.usefixtures("busybox")
def test_who_started_a_detached_container(minirt: Minirt, flag: Path) -> None:
    """It is killed before it can say that all went well: its stdout is a full pipe."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    with started(minirt, *run_words(flag, "-d"), "sh", "-c", SCRIPT, stdout=write) as client:
        await_true(lambda: len(running()) == 1, "a running container")
        assert client.poll() is None
        kill(client.pid)
        os.close(read)
        os.close(write)
    (flag / "go").touch()
    assert minirt.output("wait", "web") == "7"
    assert minirt.output("logs", "web") == "ready"
    assert inspected(minirt, "web")["state"]["reason"] == "Error"
    minirt.output("rm", "web")
    assert minirt.output("system", "prune") == "nothing to remove"


@pytest.mark.usefixtures("busybox")
@pytest.mark.parametrize("network", ["none", "bridge"])
def test_who_is_attached(minirt: Minirt, flag: Path, network: str) -> None:
    """The container goes on; when it ends, its shim has given back what it borrowed, and nobody need prune."""
    script = SCRIPT.replace("exit", "echo over; exit")
    with started(minirt, *run_words(flag, network=network), "sh", "-c", script) as client:
        await_line(client)
        kill(client.pid)
    assert inspected(minirt, "web")["state"]["status"] == "running"
    (flag / "go").touch()
    assert minirt.output("wait", "web") == "7"
    assert minirt.output("logs", "web") == "ready\nover"
    await_true(lambda: store.sandboxes()[0].state == "stopped", "the shim's clean-up")
    assert minirt.output("system", "prune") == "nothing to remove"
    minirt.output("rm", "web")


@pytest.mark.usefixtures("busybox")
@pytest.mark.parametrize("network", ["none", "bridge"])
def test_who_would_have_removed_it(minirt: Minirt, flag: Path, network: str) -> None:
    before = contents(minirt)
    with started(minirt, *run_words(flag, "--rm", network=network), "sh", "-c", SCRIPT) as client:
        await_line(client)
        kill(client.pid)
    (flag / "go").touch()
    await_true(lambda: contents(minirt) <= before, "the removal")
    assert minirt.output("ps", "-aq") == ""


@pytest.mark.usefixtures("busybox")
def test_a_shim(minirt: Minirt, flag: Path) -> None:
    """The container goes on; its exit is nobody's to see."""
    minirt.output(*run_words(flag, "-d"), "sh", "-c", SCRIPT)
    await_log(minirt, "web")
    init = inspected(minirt, "web")["state"]["pid"]
    kill(shim_of(init))
    assert inspected(minirt, "web")["state"]["status"] == "running"
    refused = minirt("exec", "web", "true")
    assert refused.returncode == 125
    assert refused.stderr.startswith("minirt: cannot reach the shim of sandbox ")
    assert minirt("rm", "web").returncode == 1
    assert minirt.output("system", "prune") == "nothing to remove"
    with started(minirt, "wait", "web") as waiting:
        (flag / "go").touch()
        assert waiting.communicate(timeout=20) == ("255\n", "")
    state = inspected(minirt, "web")["state"]
    assert (state["status"], state["exit_code"], state["reason"]) == ("exited", 255, "Unknown")
    assert minirt.output("logs", "web") == "ready"
    minirt.output("rm", "web")
    assert minirt.output("system", "prune") == "nothing to remove"


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_a_shim_that_does_not_answer(minirt: Minirt, flag: Path) -> None:
    """It lives, and is stopped: who removes its container waits a while, and then ends it as well."""
    minirt.output(*run_words(flag, "-d"), "sh", "-c", SCRIPT)
    await_log(minirt, "web")
    init = inspected(minirt, "web")["state"]["pid"]
    os.kill(shim_of(init), signal.SIGSTOP)
    minirt.output("rm", "-f", "web")
    assert minirt.output("ps", "-aq") == ""
    assert minirt.output("system", "prune") == "nothing to remove"


@pytest.mark.usefixtures("busybox")
@pytest.mark.parametrize("command", ["rm -f", "stop -t5", "stop -t0", "kill", "kill -s TERM"])
def test_a_shim_and_then(minirt: Minirt, command: str) -> None:
    """What is done to a container works without its shim."""
    minirt.output("run", "-d", "--name", "web", "localhost/busybox", "sh", "-c", "trap 'exit 3' TERM; sleep 60 & wait")
    init = inspected(minirt, "web")["state"]["pid"]
    kill(shim_of(init))
    minirt.output(*command.split(), "web")
    await_true(lambda: not Path(f"/proc/{init}").exists(), "the end of init")
    if command != "rm -f":
        assert inspected(minirt, "web")["state"]["exit_code"] == 255
        minirt.output("rm", "web")
    assert minirt.output("system", "prune") == "nothing to remove"


@pytest.mark.usefixtures("busybox")
def test_a_shim_with_an_attached_client(minirt: Minirt, flag: Path) -> None:
    with started(minirt, *run_words(flag, "--rm"), "sh", "-c", SCRIPT) as client:
        await_line(client)
        kill(shim_of(inspected(minirt, "web")["state"]["pid"]))
        _, said = client.communicate(timeout=20)
    assert client.returncode == 125
    assert said.startswith("minirt: cannot reach the shim of sandbox ")
    assert inspected(minirt, "web")["state"]["status"] == "running"
    minirt.output("rm", "-f", "web")
    assert minirt.output("system", "prune") == "nothing to remove"


@pytest.mark.usefixtures("busybox")
def test_a_zygote_in_use(lab: Lab) -> None:
    for after in (False, True):
        lab.fuse.arm("zygote", 0, after=after)
        done = lab("run", "--rm", "localhost/busybox", "true")
        assert done.code == 125
        assert done.output == "minirt: cannot start a shim: the zygote has ended (try again)\n"
        assert lab("ps", "-aq").output == ""


POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 2
  containers:
    - {name: one, image: localhost/busybox, imagePullPolicy: Never, command: ["sleep", "600"]}
    - {name: two, image: localhost/busybox, imagePullPolicy: Never, command: ["sleep", "600"]}
"""


@pytest.fixture
def pod(minirt: Minirt, busybox: str, tmp_path: Path) -> dict[str, int]:
    """Run a pod of two containers; return the pids of its init processes, by container id."""
    (tmp_path / "pod.yaml").write_text(POD)
    minirt.output("pod", "run", "-d", "--backoff-cap", "0.1", tmp_path / "pod.yaml")
    return running()


def worker() -> int:
    """Return the pid of the pod's worker."""
    found = workers.find(store.sandboxes()[-1].config.uid)
    assert found
    return found.pid


def remove_pod(minirt: Minirt) -> None:
    minirt.output("pod", "rm", "-f", "web")
    assert minirt.output("pod", "ps", "-q") == ""
    assert minirt.output("system", "prune") == "nothing to remove"


def test_a_pods_worker(minirt: Minirt, pod: dict[str, int]) -> None:
    """Containers go on without it, and another one takes the pod over with the very same containers."""
    kill(worker())
    assert running() == pod
    assert minirt.output("pod", "ps").splitlines()[1].split()[:3] == ["web", "2/2", "Running"]
    assert minirt.output("pod", "exec", "web", "echo", "alive") == "alive"
    kill(pod[min(pod)])
    await_true(lambda: len(running()) == 1, "the end of one container")
    minirt.output("pod", "start", "web")
    await_true(lambda: len(running()) == 2, "its restart")
    assert len(running().items() & pod.items()) == 1
    again = minirt("pod", "start", "web")
    assert (again.returncode, again.stderr.partition(" (")[0]) == (125, "minirt: cannot start web: its worker is alive")
    remove_pod(minirt)


def test_a_pods_worker_and_then_remove(minirt: Minirt, pod: dict[str, int]) -> None:
    kill(worker())
    assert minirt("pod", "rm", "web").returncode == 1
    assert running() == pod
    remove_pod(minirt)
    assert running() == {}


def test_a_pods_worker_and_then_stop(minirt: Minirt, pod: dict[str, int]) -> None:
    kill(worker())
    minirt.output("pod", "stop", "web")
    assert running() == {}
    assert minirt.output("pod", "ps").splitlines()[1].split()[0] == "web"
    remove_pod(minirt)


def test_a_pods_worker_while_it_makes_the_sandbox(lab: Lab, tmp_path: Path) -> None:
    """The half is in no list, and keeps the pod's name until it is removed by that."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(ON_THE_HOST % "true")
    lab.die_after_rename(Scenario(f"pod run {manifest}"), "cli", "/sandboxes/")
    assert lab("pod", "ps", "-q") == (0, "")
    assert "a pod of this name exists" in lab("pod", "run", manifest).output
    assert lab("pod", "rm", "web") == (0, "web\n")
    lab.output("pod", "run", manifest)
    assert lab.output("system", "prune") == "nothing to remove"


def test_a_pods_shim(minirt: Minirt, pod: dict[str, int]) -> None:
    """Its worker sees that the sandbox is dead, and makes another, as in a cluster."""
    kill(shim_of(pod[min(pod)]))
    await_true(lambda: len(running().keys() - pod.keys()) == 2, "two new containers")
    assert not running().keys() & pod.keys()
    assert minirt.output("pod", "ps").splitlines()[1].split()[:3] == ["web", "2/2", "Running"]
    remove_pod(minirt)


def test_a_pods_worker_and_its_shim(minirt: Minirt, pod: dict[str, int]) -> None:
    """Nobody is left who looks after the containers, and they go on."""
    kill(worker())
    kill(shim_of(pod[min(pod)]))
    assert running() == pod
    assert minirt.output("system", "prune") == "nothing to remove"
    remove_pod(minirt)
    assert running() == {}


def test_a_pods_pause(minirt: Minirt, pod: dict[str, int]) -> None:
    """With PID 1 of the shared namespace the kernel kills all that is in it; the worker makes another sandbox."""
    shim = shim_of(pod[min(pod)])
    (pause,) = [pid for pid in children_of(shim) if pid not in pod.values()]
    kill(pause)
    await_true(lambda: len(running().keys() - pod.keys()) == 2, "two new containers")
    remove_pod(minirt)


def test_an_idle_zygote(minirt: Minirt, pod: dict[str, int]) -> None:
    """The pod goes on, its containers are restarted, and it can be removed."""
    (zygote,) = [pid for pid in children_of(os.getppid()) if _name(pid) == "minirt-zygote"]
    kill(zygote)
    kill(pod[min(pod)])
    await_true(lambda: len(running()) == 2 and running() != pod, "a restart")
    remove_pod(minirt)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
