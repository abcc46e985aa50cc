"""What the containers of a pod share, and what each has for itself."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from minirt.cgroups import lifecycle
from tests.integration.lifecycle.watching import children_of
from tests.integration.pods.manifests import HELD, MOUNTED, WORK, Pods, container, manifest
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

SERVE = "echo hello > /work/index.html; httpd -p 8080 -h /work"


def test_containers_reach_each_other_on_localhost(pods: Pods) -> None:
    server = container("server", f"{SERVE}; {HELD}", **MOUNTED)
    fetch = "until wget -qO- http://localhost:8080/ 2>/dev/null; do sleep 0.02; done; touch /work/go"
    found = pods.said(manifest(server, container("client", fetch, **MOUNTED), **WORK))
    assert found == {"client": ["hello"]}


def test_pods_reach_each_other_by_address(pods: Pods) -> None:
    pods.detached(manifest(container("server", f"{SERVE}; {HELD}", **MOUNTED), name="server", **WORK))
    address = pods.inspected("server")["address"]
    assert pods.row("server")["IP"] == address
    fetch = f"until wget -qO- http://{address}:8080/ 2>/dev/null; do sleep 0.02; done"
    client = container("client", f"{fetch}; ip -4 addr show eth0 | awk '/inet/ {{print $2}}'; ip route")
    hello, own, *routes = pods.said(manifest(client, name="client"))["client"]
    assert hello == "hello"
    assert own.endswith("/16")
    assert own.partition("/")[0] != address
    assert routes[0].startswith("default via 10.77.0.1 dev eth0")
    pods.minirt.output("pod", "rm", "-f", "server")


def test_each_has_its_own_root_and_processes_and_shares_the_rest(pods: Pods) -> None:
    script = """
        for kind in net ipc uts mnt pid cgroup; do readlink /proc/self/ns/$kind; done
        echo $$; touch /only-$0; ls -d /only-*; ls /proc | grep -c '^[0-9]'
        touch /work/$0; until [ -e /work/one ] && [ -e /work/two ]; do sleep 0.02; done
    """
    both = [container(name, script, args=[name], **MOUNTED) for name in ("one", "two")]
    found = pods.said(manifest(*both, **WORK))
    one, two = found["one"], found["two"]
    assert one[:3] == two[:3]
    assert not set(one[3:6]) & set(two[3:6])
    assert (one[6], two[6]) == ("1", "1")
    assert (one[7], two[7]) == ("/only-one", "/only-two")
    assert int(one[8]) <= 5
    ours = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("net", "ipc", "uts", "mnt", "pid", "cgroup")}
    assert not ours & {*one[:6], *two[:6]}


def test_the_pods_files_and_its_shared_memory_are_the_same_for_all(pods: Pods) -> None:
    write = "hostname; cat /etc/hostname /etc/hosts; echo added >> /etc/hosts; echo shared > /dev/shm/x; touch /work/go"
    read = f"{HELD}; tail -n 1 /etc/hosts; cat /dev/shm/x; cat /etc/resolv.conf"
    spec = {"hostAliases": [{"ip": "10.1.2.3", "hostnames": ["db", "db.local"]}], "hostname": "name"}
    spec |= {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.9.9.9"], "searches": ["example.org"]}}
    found = pods.said(manifest(container("one", write, **MOUNTED), container("two", read, **MOUNTED), **WORK, **spec))
    assert found["one"][:3] == ["name", "name", "# Kubernetes-managed hosts file."]
    assert "127.0.0.1\tlocalhost" in found["one"]
    assert any(line.endswith("\tname") for line in found["one"])
    assert "10.1.2.3\tdb\tdb.local" in found["one"]
    assert found["two"] == ["added", "shared", "nameserver 10.9.9.9", "search example.org"]


def test_a_shared_process_namespace_has_a_first_process_that_gives_nothing_away(pods: Pods) -> None:
    script = """
        [ $$ != 1 ]; cat /proc/1/comm; touch /work/$0; until [ -e /work/one ] && [ -e /work/two ]; do sleep 0.02; done
        cat /proc/[0-9]*/comm 2> /dev/null | sort | uniq -c | awk '$2 == "sh" {print ($1 >= 2)}'
        for file in root exe environ mem cwd; do
            (ls /proc/1/$file/ || head -c 1 /proc/1/$file) > /dev/null 2>&1 && echo $file
        done
        ls /proc/1/fd
        grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs' /proc/1/status | tr -d '\\t'
        touch /work/$0.seen; until [ -e /work/one.seen ] && [ -e /work/two.seen ]; do sleep 0.02; done
    """
    both = [container(name, script, args=[name], **MOUNTED) for name in ("one", "two")]
    found = pods.said(manifest(*both, shareProcessNamespace=True, **WORK))
    none = "0" * 16
    for name in ("one", "two"):
        assert found[name] == ["pause", "1", f"CapPrm:{none}", f"CapEff:{none}", f"CapBnd:{none}", "NoNewPrivs:1"]


def test_in_a_shared_process_namespace_a_container_still_ends_with_its_init(pods: Pods) -> None:
    """Nothing but the cgroup says whose the daemon is: its parent is pause."""
    one = container("one", "setsid sleep 1000 & sleep 0; echo ready; touch /work/one; exit 0", **MOUNTED)
    two = container("two", f"setsid sleep 2000 & touch /work/two; {HELD}", **MOUNTED)
    pods.detached(manifest(one, two, shareProcessNamespace=True, **WORK))
    found = pods.inspected()
    volume = pods.volume(found["uid"])
    await_true(lambda: (volume / "one").exists() and (volume / "two").exists(), "both containers have begun")
    await_true(lambda: _states(pods)["one"] == "exited", "the first container's end")
    assert "sleep 1000" not in _commands(found["cgroup"])
    await_true(lambda: "sleep 2000" in _commands(found["cgroup"]), "the second one's daemon, which goes on")
    (volume / "go").touch()
    await_true(lambda: _states(pods)["two"] == "exited", "the second container's end")
    assert "sleep 2000" not in _commands(found["cgroup"])
    pods.minirt.output("pod", "rm", "-f", "web")


def _states(pods: Pods) -> dict[str, str]:
    return {one["name"]: one["state"]["status"] for one in pods.inspected()["containers"]}


def _commands(cgroup: str) -> list[str]:
    """Return the command lines of the processes below a cgroup."""
    found = []
    for pid in lifecycle.pids(cgroup):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            found.append(file.read().rstrip(b"\0").replace(b"\0", b" ").decode())
    return found


def test_orphans_in_a_shared_process_namespace_are_reaped_by_pause(pods: Pods) -> None:
    orphans = "for i in 1 2 3; do (setsid true &); done; touch /work/done; " + HELD
    pods.detached(manifest(container("one", orphans, **MOUNTED), shareProcessNamespace=True, **WORK))
    found = pods.inspected()
    await_true((pods.volume(found["uid"]) / "done").exists, "the orphans")
    pause = next(pid for pid in lifecycle.pids(f"{found['cgroup']}/pause"))
    await_true(lambda: "Z" not in children_of(pause).values(), "pause has no zombies")
    pods.minirt.output("pod", "rm", "-f", "web")


def test_the_hosts_namespaces_can_be_asked_for(pods: Pods) -> None:
    script = "for kind in net pid ipc uts; do readlink /proc/self/ns/$kind; done; hostname; cat /etc/hosts | head -n 1"
    found = pods.said(manifest(container("one", script), hostNetwork=True, hostPID=True, hostIPC=True))["one"]
    assert found[:4] == [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("net", "pid", "ipc", "uts")]
    assert found[4] == socket.gethostname() == os.uname().nodename
    assert found[5] == "# Kubernetes-managed hosts file (host network)."


def test_a_host_port_leads_to_the_pod(pods: Pods) -> None:
    ports = {"ports": [{"containerPort": 8080, "hostPort": 18081}]}
    pods.detached(manifest(container("server", f"{SERVE}; {HELD}", **MOUNTED, **ports), **WORK))
    fetch = "until wget -qO- http://10.77.0.1:18081/ 2>/dev/null; do sleep 0.02; done"
    assert pods.minirt.output("run", "--rm", "--network", "host", "localhost/busybox", "sh", "-c", fetch) == "hello"
    pods.minirt.output("pod", "rm", "-f", "web")
