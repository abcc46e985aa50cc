"""Pods with ``hostUsers: false``: one user namespace for all their containers, which owns what else they share."""

import fcntl
import os
from pathlib import Path

import pytest

from minirt.cgroups import lifecycle
from minirt.engine.idranges import SIZE
from tests.command import Minirt
from tests.contract.oci.container import fields
from tests.integration.pods.manifests import HELD, MOUNTED, WORK, Pods, container, manifest

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

NS_GET_USERNS = 0xB701
SERVE = "mkdir /tmp/www; echo hello >/tmp/www/index.html; httpd -p 8080 -h /tmp/www"
FETCH = "until wget -qO- http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.05; done"


@pytest.fixture
def pods(minirt: Minirt, busybox: str, tmp_path: Path) -> Pods:
    """Pods of this test's own minirt, which has the image busybox."""
    return Pods(minirt, tmp_path)


def mapped(*containers: dict[str, object], **spec: object) -> dict[str, object]:
    """Return a pod in a user namespace, with the volume "work"."""
    return manifest(*containers, hostUsers=False, **WORK | spec)


def owner(path: str) -> int:
    """Return the inode of the user namespace that owns another namespace. Source: ioctl_ns(2)."""
    fd = os.open(path, os.O_RDONLY)
    user = fcntl.ioctl(fd, NS_GET_USERNS)
    inode = os.fstat(user).st_ino
    os.close(user)
    os.close(fd)
    return inode


def test_containers_share_it_and_meet_on_localhost(pods: Pods) -> None:
    script = "cat /proc/self/uid_map; readlink /proc/self/ns/user | grep -c user; "
    found = pods.said(
        mapped(
            container("server", f"{SERVE}; {HELD}", **MOUNTED),
            container("client", f"{script} {FETCH}; touch /work/go", **MOUNTED),
        )
    )
    zero, first, size, _, hello = " ".join(found["client"]).split()
    assert (zero, size, hello) == ("0", str(SIZE), "hello")
    assert int(first) > 0


def test_it_owns_what_they_share(pods: Pods) -> None:
    pods.detached(mapped(container("one", HELD, **MOUNTED), container("two", HELD, **MOUNTED)))
    found = pods.inspected()
    pids = [one["state"]["pid"] for one in found["containers"]]
    users = {os.stat(f"/proc/{pid}/ns/user").st_ino for pid in pids}
    assert len(users) == 1
    assert users != {os.stat("/proc/self/ns/user").st_ino}
    for kind in ("net", "ipc", "uts", "mnt", "pid", "cgroup"):
        assert {owner(f"/proc/{pid}/ns/{kind}") for pid in pids} == users
    first = found["config"]["uid_map"][0][1]
    assert found["config"]["uid_map"] == [[0, first, SIZE]]
    assert {fields(pid)["Uid"].split()[0] for pid in pids} == {str(first)}
    pods.minirt.output("pod", "rm", "-f", "web")


def test_pods_share_no_id_and_give_them_back(pods: Pods) -> None:
    first = {}
    for name in ("one", "two"):
        pods.detached(mapped(container("main", HELD, **MOUNTED), name=name))
        first[name] = pods.inspected(name)["config"]["uid_map"][0][1]
    assert abs(first["one"] - first["two"]) >= SIZE
    pods.minirt.output("pod", "rm", "-f", "one")
    pods.detached(mapped(container("main", HELD, **MOUNTED), name="three"))
    assert pods.inspected("three")["config"]["uid_map"][0][1] == first["one"]
    pods.minirt.output("pod", "rm", "-f", "two", "three")


def test_volumes_are_the_same_users_as_on_disk(pods: Pods, tmp_path: Path) -> None:
    """As in Kubernetes: what the container's root writes is the host's root's; a tmpfs and /dev/shm can be written."""
    host = tmp_path / "host"
    host.mkdir()
    volumes = [
        {"name": "work", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "host", "hostPath": {"path": str(host)}},
    ]
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("work", "memory", "host")]
    script = "for d in /work /memory /host /dev/shm; do echo >$d/made; chown 5 $d/made; stat -c %u $d $d/made; done;"
    script += "echo >/work/root; chown 33 /etc/hosts; stat -c %u /etc/hosts; touch /work/up;" + HELD
    pods.detached(mapped(container("main", script, volumeMounts=mounts), volumes=volumes))
    work = pods.volume(pods.inspected()["uid"])
    assert pods.minirt.output("pod", "exec", "web", "sh", "-c", "until [ -e /work/up ]; do sleep 0.05; done") == ""
    assert ((work / "made").stat().st_uid, (work / "root").stat().st_uid, (host / "made").stat().st_uid) == (5, 0, 5)
    (work / "go").touch()
    pods.minirt.output("pod", "stop", "web")
    said = pods.minirt.output("pod", "logs", "web").split()
    assert [word for word in said if word not in ("main", "|")] == ["0", "5"] * 4 + ["33"]
    pods.minirt.output("pod", "rm", "-f", "web")
    assert not work.parent.exists()


def test_an_fs_group_owns_the_volume(pods: Pods) -> None:
    script = "stat -c %g /work; id -G; echo >/work/made; stat -c %g /work/made"
    found = pods.said(mapped(container("main", script, **MOUNTED), securityContext={"fsGroup": 4242}))
    assert found["main"] == ["4242", "0 4242", "4242"]


def test_sysctls_are_the_pods(pods: Pods) -> None:
    sysctls = [
        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"},
        {"name": "kernel.shm_rmid_forced", "value": "1"},
    ]
    script = "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shm_rmid_forced;"
    script += "ping -c 1 127.0.0.1 | grep -c seq"
    found = pods.said(mapped(container("main", script), securityContext={"sysctls": sysctls}))
    assert found["main"] == ["80", "1", "1"]


def test_exec_joins_it(pods: Pods) -> None:
    pods.detached(mapped(container("main", HELD, **MOUNTED)))
    first = pods.inspected()["config"]["uid_map"][0][1]
    assert pods.minirt.output("pod", "exec", "web", "cat", "/proc/self/uid_map").split() == ["0", str(first), str(SIZE)]
    pods.minirt.output("pod", "rm", "-f", "web")


def test_pause_is_in_it(pods: Pods) -> None:
    """It is nobody on the host, holds no capability, and reaps what the containers leave."""
    pods.detached(mapped(container("main", HELD, **MOUNTED), shareProcessNamespace=True))
    found = pods.inspected()
    (pause,) = lifecycle.pids(f"{found['cgroup']}/pause")
    about = fields(pause)
    assert about["Uid"].split() == [str(found["config"]["uid_map"][0][1])] * 4
    assert int(about["CapEff"], 16) == int(about["CapPrm"], 16) == int(about["CapBnd"], 16) == 0
    user = os.stat(f"/proc/{found['containers'][0]['state']['pid']}/ns/user").st_ino
    assert os.stat(f"/proc/{pause}/ns/user").st_ino == owner(f"/proc/{pause}/ns/pid") == user
    assert pods.minirt.output("pod", "exec", "web", "sh", "-c", "cat /proc/1/comm; kill -9 1; ls /proc/1/root 2>&1; :")
    assert lifecycle.pids(f"{found['cgroup']}/pause") == [pause]
    pods.minirt.output("pod", "rm", "-f", "web")


def test_a_stopped_pod_starts_again_with_the_same_ids(pods: Pods) -> None:
    pods.detached(mapped(container("main", HELD, **MOUNTED)))
    before = pods.inspected()["config"]["uid_map"]
    pods.minirt.output("pod", "stop", "web")
    pods.minirt.output("pod", "start", "web")
    assert pods.inspected()["config"]["uid_map"] == before
    pods.minirt.output("pod", "rm", "-f", "web")


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "hostIPC"])
def test_the_hosts_namespaces_exclude_it(pods: Pods, field: str) -> None:
    done = pods.run(mapped(container("main", "true"), **{field: True}))
    assert done.returncode == 125
    assert f"spec.{field} (line" in done.stderr
    assert "excludes hostUsers: false" in done.stderr
