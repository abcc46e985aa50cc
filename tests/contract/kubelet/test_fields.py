"""What a manifest asks for is what the container finds, whatever runtime it is asked of."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minirt import paths
from minirt.engine.podface import PodFace
from minirt.errors import InvalidInput
from minirt.kubelet import logs, pods, requests
from tests.contract.kubelet.conftest import Running, container, manifest

pytestmark = [pytest.mark.root, pytest.mark.peer]
Run = Callable[..., Running]


def said(run: Run, script: str, spec: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    """Return what a container that runs ``script``, and must succeed, writes to stdout."""
    pod = run(manifest([container("main", script, **fields)], **spec or {}), fail_fast=True)
    assert pod.result() == 0, pod.log("main")
    return pod.log("main", "stdout")


def test_environment_commands_and_directory(run: Run) -> None:
    env = [
        {"name": "GREETING", "value": "hello"},
        {"name": "BOTH", "value": "$(GREETING), $(NOBODY), $$(GREETING)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
    ]
    resources = {"requests": {"memory": "1Mi"}}
    command = ["sh", "-c", 'echo "$BOTH|$NAME|$CPUS|$0|$PWD"', "$(GREETING)"]
    found = said(run, "", env=env, resources=resources, command=command, workingDir="/tmp")
    assert found == ["hello, $(NOBODY), $(GREETING)|test|0|hello|/tmp"]


def test_args_without_command_follow_the_images_entry_point(run: Run) -> None:
    fields = container("main", "")
    del fields["command"]
    pod = run(manifest([fields | {"args": ["echo", "only args"]}]))
    assert pod.result() == 0
    assert pod.log("main") == ["only args"]


def test_the_pods_address_and_names(run: Run, face: PodFace) -> None:
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    aliases = [{"ip": "192.0.2.7", "hostnames": ["printer", "printer.example"]}]
    script = "hostname; echo $IP; ip -4 -o addr show | grep -c $IP; cat /etc/hosts"
    pod = run(manifest([container("main", script, env=env)], hostname="named", hostAliases=aliases))
    assert pod.result() == 0
    name, address, count, *hosts = pod.log("main")
    assert (name, count) == ("named", "1")
    assert f"{address}\tnamed" in hosts
    assert "127.0.0.1\tlocalhost" in hosts
    assert hosts[-1] == "192.0.2.7\tprinter\tprinter.example"
    assert pod.wait_for("SandboxReady").message.split(", ")[0] == address


def test_dns_is_what_the_pod_says(run: Run) -> None:
    dns = {"nameservers": ["192.0.2.53"], "searches": ["example"], "options": [{"name": "ndots", "value": "2"}]}
    found = said(run, "cat /etc/resolv.conf", {"dnsPolicy": "None", "dnsConfig": dns})
    assert sorted(found) == ["nameserver 192.0.2.53", "options ndots:2", "search example"]


def test_host_network_is_the_hosts(run: Run) -> None:
    found = said(run, "hostname; ip -o link | wc -l", {"hostNetwork": True})
    assert found == [socket.gethostname(), str(len(socket.if_nameindex()))]


def test_user_groups_and_privileges(run: Run) -> None:
    pod_security = {"runAsUser": 1000, "runAsGroup": 1001, "supplementalGroups": [3000], "fsGroup": 2000}
    spec = {"securityContext": pod_security, "volumes": [{"name": "own", "emptyDir": {}}]}
    script = """
        id -u; id -g; echo $(id -G); touch /own/file; stat -c '%u:%g' /own/file
        grep NoNewPrivs /proc/self/status; touch /nowhere 2>&1 || true"""
    fields = {
        "securityContext": {"runAsUser": 1234, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "own", "mountPath": "/own"}],
    }
    uid, gid, groups, owner, no_new_privs, refusal = said(run, script, spec, **fields)
    assert (uid, gid, owner) == ("1234", "1001", "1234:2000")
    assert set(groups.split()) == {"1001", "2000", "3000"}
    assert no_new_privs.split() == ["NoNewPrivs:", "1"]
    assert "Read-only file system" in refusal


def test_capabilities_are_added_and_dropped(run: Run) -> None:
    changes = {"add": ["NET_ADMIN"], "drop": ["CHOWN", "KILL"]}
    (line,) = said(run, "grep CapEff /proc/self/status", securityContext={"capabilities": changes})
    effective = int(line.split()[1], 16)
    assert effective & 1 << 12, "CAP_NET_ADMIN"
    assert not effective & 1 << 0, "CAP_CHOWN"
    assert not effective & 1 << 5, "CAP_KILL"
    assert effective & 1 << 1, "CAP_DAC_OVERRIDE is among the defaults"


def test_drop_all_leaves_nothing(run: Run) -> None:
    (line,) = said(run, "grep CapEff /proc/self/status", securityContext={"capabilities": {"drop": ["ALL"]}})
    assert int(line.split()[1], 16) == 0


def test_a_memory_volume_is_a_tmpfs_of_its_size_and_is_shared(run: Run) -> None:
    volume = {"volumes": [{"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    init = [container("fill", "dd if=/dev/zero of=/work/half bs=1k count=512 2>/dev/null", **mount)]
    script = "grep ' /work ' /proc/mounts; wc -c < /work/half; dd if=/dev/zero of=/work/more bs=1k count=2048 || true"
    pod = run(manifest([container("main", script, **mount)], initContainers=init, **volume))
    assert pod.result() == 0
    line, size = pod.log("main", "stdout")
    assert line.split()[2] == "tmpfs"
    assert "size=1024k" in line
    assert size == "524288"
    assert "No space left on device" in "".join(pod.log("main", "stderr"))


def test_host_paths_are_mounted_checked_and_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_text("from the host\n")
    volumes = [
        {"name": "there", "hostPath": {"path": f"{tmp_path}/there", "type": "Directory"}},
        {"name": "made", "hostPath": {"path": f"{tmp_path}/made/below", "type": "DirectoryOrCreate"}},
    ]
    mounts = [
        {"name": "there", "mountPath": "/there", "readOnly": True},
        {"name": "made", "mountPath": "/made"},
    ]
    script = "cat /there/file; echo x > /there/new || echo refused; echo from inside > /made/file"
    assert said(run, script, {"volumes": volumes}, volumeMounts=mounts)[0] == "from the host"
    assert not (tmp_path / "there/new").exists()
    assert (tmp_path / "made/below/file").read_text() == "from inside\n"


def test_a_host_path_of_another_kind_is_refused_before_anything_starts(run: Run, tmp_path: Path, face: PodFace) -> None:
    volumes = [{"name": "data", "hostPath": {"path": str(tmp_path), "type": "Socket"}}]
    pod = run(manifest([container("main", "true")], volumes=volumes), fail_fast=True)
    with pytest.raises(InvalidInput, match="is not a unix socket"):
        pod.result()
    assert pods.look(face, pod.pod.uid) == pods.Actual()


def test_containers_share_ipc_and_host_name_but_not_processes(run: Run) -> None:
    script = "for kind in ipc uts net pid; do readlink /proc/self/ns/$kind; done; touch /work/%s; %s"
    wait = "until [ -e /work/%s ]; do sleep 0.05; done"
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    both = [container(me, script % (me, wait % it), **mount) for me, it in (("one", "two"), ("two", "one"))]
    pod = run(manifest(both, volumes=[{"name": "work", "emptyDir": {}}]))
    assert pod.result() == 0
    one, two = pod.log("one"), pod.log("two")
    assert one[:3] == two[:3]
    assert one[3] != two[3]


def test_a_shared_process_namespace_is_shared(run: Run) -> None:
    script = "readlink /proc/self/ns/pid; [ $$ != 1 ]"
    spec = manifest([container("one", script), container("two", script)], shareProcessNamespace=True)
    pod = run(spec)
    assert pod.result() == 0
    assert pod.log("one") == pod.log("two")


def test_host_processes_are_seen_with_host_pid(run: Run) -> None:
    own = Path("/proc/self/ns/pid").readlink()
    assert said(run, "readlink /proc/self/ns/pid", {"hostPID": True}) == [str(own)]


def test_masked_paths_are_empty_and_read_only_ones_refuse(run: Run) -> None:
    script = f"""
        for path in {" ".join(requests.MASKED_PATHS)}; do
            if [ -d $path ]; then ls -A $path; elif [ -e $path ]; then head -c 1 $path; fi
        done
        echo 1 > /proc/sys/kernel/core_uses_pid || echo refused"""
    assert said(run, script) == ["refused"]


def test_sysctls_are_the_pods(run: Run) -> None:
    security = {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]}
    found = said(run, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", {"securityContext": security})
    assert found == ["80"]


def test_both_streams_are_in_the_log(run: Run) -> None:
    pod = run(manifest([container("main", "echo out; echo err >&2; printf 'no end'")]))
    assert pod.result() == 0
    lines = logs.read(requests.log_directory(pod.pod), ["main"])
    assert sorted((line.stream, line.text) for line in lines) == [
        ("stderr", "err"),
        ("stdout", "no end"),
        ("stdout", "out"),
    ]


@pytest.mark.vm
def test_limits_are_the_cgroups(run: Run) -> None:
    limits = {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}
    files = "cpu.max memory.max memory.swap.max memory.oom.group"
    found = said(run, f"cd /sys/fs/cgroup; for file in {files}; do cat $file; done", resources=limits)
    assert found == ["25000 100000", "67108864", "0", "1"]


@pytest.mark.vm
def test_a_container_over_its_memory_limit_is_oom_killed(run: Run) -> None:
    eat = "tail /dev/zero"
    pod = run(manifest([container("main", eat, resources={"limits": {"memory": "16Mi"}})]))
    assert pod.result() == 137
    assert pod.worker.status().container_statuses[0].state.terminated.reason == "OOMKilled"


def test_volumes_are_closed_to_other_users_of_the_host(run: Run) -> None:
    volume = {"volumes": [{"name": "work", "emptyDir": {}}]}
    mount = {"name": "work", "mountPath": "/work"}
    pod = run(manifest([container("main", "stat -c %a /work", volumeMounts=[mount])], **volume))
    assert pod.result() == 0
    assert pod.log("main") == ["777"]
    assert paths.volumes_dir(pod.pod.uid).stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(
    ("own", "pods", "mode"),
    [
        (None, None, "0"),
        ({"type": "RuntimeDefault"}, None, "2"),
        (None, {"type": "RuntimeDefault"}, "2"),
        ({"type": "Unconfined"}, {"type": "RuntimeDefault"}, "0"),
    ],
)
def test_who_is_filtered(run: Run, own: dict[str, str] | None, pods: dict[str, str] | None, mode: str) -> None:
    spec = {"securityContext": {"seccompProfile": pods}} if pods else {}
    fields = {"securityContext": {"seccompProfile": own}} if own else {}
    assert said(run, "grep ^Seccomp: /proc/self/status", spec, **fields) == [f"Seccomp:\t{mode}"]


def test_a_privileged_container_is_not_filtered(run: Run) -> None:
    context = {"privileged": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert said(run, "grep ^Seccomp: /proc/self/status", securityContext=context) == ["Seccomp:\t0"]


def test_a_profile_of_the_nodes_own(run: Run, tmp_path: Path) -> None:
    file = paths.profiles_dir() / tmp_path.name / "no-mkdir.json"
    file.parent.mkdir(parents=True)
    file.write_text(
        """{"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"""
    )
    profile = {"type": "Localhost", "localhostProfile": f"{tmp_path.name}/no-mkdir.json"}
    found = said(run, "mkdir /new 2>&1 || true", securityContext={"seccompProfile": profile})
    assert found == ["mkdir: can't create directory '/new': No space left on device"]
