"""Process 1 of a pod that shares its PID namespace: a sibling with root and the default capabilities learns nothing.

What it could learn is the host's: pause was the shim, and its parent is on the host.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minirt.linux import process
from tests import leaks
from tests.command import Minirt

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: shared}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 0
  containers:
  - {name: one, image: localhost/busybox, imagePullPolicy: Never, command: [sleep, "1000"]}
  - {name: two, image: localhost/busybox, imagePullPolicy: Never, command: [sleep, "1000"]}
"""

LINKS = ("root", "exe", "cwd", "ns/mnt", "ns/net", "ns/pid", "ns/cgroup", "task/1/root", "task/1/exe")
DIRECTORIES = ("root/", "cwd/", "fd", "fdinfo", "map_files", "task/1/fd")
FILES = (
    "environ",
    "mem",
    "maps",
    "smaps",
    "auxv",
    "io",
    "stack",
    "syscall",
    "personality",
    "pagemap",
    "task/1/environ",
)

Inside = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def inside(minirt: Minirt, busybox: str, tmp_path: Path) -> Iterator[Inside]:
    """Run a shell's words in the first container of a pod that shares its processes."""
    (tmp_path / "pod.yaml").write_text(POD)
    minirt.output("pod", "run", "-d", tmp_path / "pod.yaml")
    yield lambda words: minirt("pod", "exec", "shared", "-c", "one", "--", "sh", "-c", words)
    minirt.output("pod", "rm", "-f", "shared")


def pause_pid() -> int:
    """Return the host's pid of pause, which has a cgroup of its own."""
    (procs,) = (path for top in leaks.cgroup_tops() for path in top.rglob("pause/cgroup.procs"))
    return int(procs.read_text())


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_of_it_can_be_read(inside: Inside) -> None:
    tries = [f"readlink /proc/1/{name}" for name in LINKS]
    tries += [f"ls -A /proc/1/{name} | grep ." for name in DIRECTORIES]
    tries += [f"dd if=/proc/1/{name} bs=1 count=1" for name in FILES]
    script = "".join(f"{words} 2>/dev/null && echo '{words}'\n" for words in tries)
    assert said(inside(f"id -u; {script} true")).split("\n") == ["0", ""]


def test_it_shows_only_that_it_is_pause(inside: Inside) -> None:
    assert said(inside("cat /proc/1/cmdline")).rstrip("\0") == "pause"
    assert said(inside("cat /proc/1/comm")) == "pause\n"
    mounts = said(inside("cat /proc/1/mountinfo")).splitlines()
    assert [line.split()[4] for line in mounts] == ["/"]
    assert mounts[0].split()[5].startswith("ro,")
    assert mounts[0].split(" - ")[1].startswith("tmpfs pause ro,")
    assert "minirt" not in said(inside("cat /proc/1/cgroup /proc/1/mounts /proc/1/sched /proc/1/limits"))


def test_it_holds_nothing(inside: Inside) -> None:
    lines = said(inside("cat /proc/1/status")).splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["SigCgt"] == "0" * 16


def test_its_network_is_the_pods(inside: Inside) -> None:
    assert said(inside("cat /proc/1/net/dev | cut -d: -f1")) == said(inside("cat /proc/net/dev | cut -d: -f1"))
    assert "eth0" in said(inside("cat /proc/1/net/dev"))


def test_no_signal_from_inside_ends_it(inside: Inside) -> None:
    pid = pause_pid()
    before = process.start_time(pid)
    said(inside("for signal in $(seq 1 64); do kill -$signal 1; done; true"))
    assert process.start_time(pid) == before
    assert said(inside("cat /proc/1/comm")) == "pause\n"


def test_what_containers_leave_to_it_is_reaped(inside: Inside) -> None:
    said(inside("(sleep 0.01 &)"))
    said(inside("for try in $(seq 500); do ps -o comm,stat | grep -q '^sleep.* Z' || exit 0; sleep 0.01; done; exit 1"))


def test_nobody_else_of_minirt_is_in_sight(inside: Inside) -> None:
    seen = said(inside("ps -o args")).splitlines()
    assert sorted(line for line in seen if "ps -o args" not in line) == ["COMMAND", "pause", "sleep 1000", "sleep 1000"]
