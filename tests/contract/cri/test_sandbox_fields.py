"""What a sandbox's fields do, and what its containers share, seen from inside."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import refused, security
from tests.peers.cri import MODE, Pods
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]


def linux(**fields: Any) -> cri.LinuxPodSandboxConfig:
    """Return a sandbox's Linux part with namespace options."""
    context = cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(**fields))
    return cri.LinuxPodSandboxConfig(security_context=context)


# --- what the sandbox shares


def test_host_name_and_dns(pods: Pods) -> None:
    dns = cri.DNSConfig(servers=["192.0.2.1", "192.0.2.2"], searches=["one.test", "two.test"], options=["ndots:5"])
    sandbox = pods.run(dns_config=dns)
    assert pods.output(sandbox, "hostname") == pods.configs[sandbox].hostname + "\n"
    assert sorted(pods.output(sandbox, "cat", "/etc/resolv.conf").splitlines()) == [
        "nameserver 192.0.2.1",
        "nameserver 192.0.2.2",
        "options ndots:5",
        "search one.test two.test",
    ]


def test_with_the_nodes_network_the_name_is_the_nodes(pods: Pods) -> None:
    sandbox = pods.run(hostname="", linux=linux(network=MODE.NODE))
    assert pods.output(sandbox, "hostname", **security(namespace_options=cri.NamespaceOption(network=MODE.NODE))) == (
        socket.gethostname() + "\n"
    )
    fields = security(namespace_options=cri.NamespaceOption(network=MODE.NODE))
    own = os.readlink("/proc/self/ns/net")
    assert pods.output(sandbox, "readlink", "/proc/self/ns/net", **fields).strip() == own


def test_sysctls(pods: Pods) -> None:
    sysctls = {"net.ipv4.ip_unprivileged_port_start": "1", "kernel.shm_rmid_forced": "1"}
    sandbox = pods.run(linux=cri.LinuxPodSandboxConfig(sysctls=sysctls))
    files = [f"/proc/sys/{name.replace('.', '/')}" for name in sysctls]
    assert pods.output(sandbox, "cat", *files) == "1\n1\n"


def test_a_sysctl_that_is_not_there_fails_the_sandbox_and_leaves_nothing(pods: Pods) -> None:
    with pytest.raises(grpc.RpcError):
        pods.run(linux=cri.LinuxPodSandboxConfig(sysctls={"net.no.such.thing": "1"}))
    assert pods.sandboxes() == []


def namespace_of(pods: Pods, sandbox: str, kind: str, options: cri.NamespaceOption) -> str:
    return pods.output(sandbox, "readlink", f"/proc/self/ns/{kind}", **security(namespace_options=options)).strip()


@pytest.mark.parametrize("kind", ["net", "ipc", "uts"])
def test_containers_of_a_pod_share_what_pods_share(pods: Pods, sandbox: str, kind: str) -> None:
    options = cri.NamespaceOption(pid=MODE.CONTAINER)
    one, two = (namespace_of(pods, sandbox, kind, options) for _ in range(2))
    assert one == two != os.readlink(f"/proc/self/ns/{kind}")


def test_with_the_nodes_ipc_it_is_the_nodes(pods: Pods) -> None:
    sandbox = pods.run(linux=linux(ipc=MODE.NODE))
    assert namespace_of(pods, sandbox, "ipc", cri.NamespaceOption(ipc=MODE.NODE)) == os.readlink("/proc/self/ns/ipc")


def test_pid_container_is_ones_own(pods: Pods) -> None:
    sandbox = pods.run(linux=linux(pid=MODE.CONTAINER))
    fields = security(namespace_options=cri.NamespaceOption(pid=MODE.CONTAINER))
    assert pods.output(sandbox, "sh", "-c", "echo $$", **fields) == "1\n"


def test_pid_pod_is_for_all_containers(pods: Pods) -> None:
    sandbox = pods.run(linux=linux(pid=MODE.POD))
    fields = security(namespace_options=cri.NamespaceOption(pid=MODE.POD))
    pods.container(sandbox, "sleep", "4242", **fields)
    assert "4242" in pods.output(sandbox, "ps", **fields)


def test_pid_node_is_the_nodes(pods: Pods) -> None:
    sandbox = pods.run(linux=linux(pid=MODE.NODE))
    assert namespace_of(pods, sandbox, "pid", cri.NamespaceOption(pid=MODE.NODE)) == os.readlink("/proc/self/ns/pid")


def test_pid_target_is_another_containers(pods: Pods) -> None:
    sandbox = pods.run(linux=linux(pid=MODE.CONTAINER))
    own = security(namespace_options=cri.NamespaceOption(pid=MODE.CONTAINER))
    target = pods.container(sandbox, "sleep", "4242", **own)
    fields = security(namespace_options=cri.NamespaceOption(pid=MODE.TARGET, target_id=target))
    assert "4242" in pods.output(sandbox, "ps", **fields)


def test_a_target_that_is_not_there_is_refused(pods: Pods) -> None:
    sandbox = pods.run(linux=linux(pid=MODE.CONTAINER))
    refused(pods, sandbox, **security(namespace_options=cri.NamespaceOption(pid=MODE.TARGET, target_id="0" * 64)))


def test_shared_memory_is_the_pods(pods: Pods, sandbox: str) -> None:
    pods.output(sandbox, "sh", "-c", "echo hello > /dev/shm/file")
    assert pods.output(sandbox, "cat", "/dev/shm/file") == "hello\n"


@pytest.mark.differs("containerd", "its own log has the command's; the path is the log directory")
def test_a_log_path_of_none_is_no_error(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "echo", "hello", log_path="")
    assert pods.ended(container).log_path


# --- ports


@pytest.mark.differs("containerd", "its network has IPv4 addresses only here")
def test_a_pod_has_an_address_of_either_family(pods: Pods) -> None:
    sandbox = pods.run()
    network = pods.sandbox_status(sandbox).network
    assert network.ip.startswith("10.77.")
    (second,) = [one.ip for one in network.additional_ips]
    assert second in pods.output(sandbox, "ip", "-6", "addr", "show", "eth0")
    assert f"{second}\t{pods.configs[sandbox].hostname}\n" in pods.output(sandbox, "cat", "/etc/hosts")
    assert pods.output(sandbox, "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra") == "0\n"


@pytest.mark.differs("containerd", "its network has IPv4 addresses only here")
def test_a_pod_that_turns_ipv6_off_has_none(pods: Pods) -> None:
    sysctls = {"net.ipv6.conf.default.disable_ipv6": "1"}
    sandbox = pods.run(linux=cri.LinuxPodSandboxConfig(sysctls=sysctls))
    network = pods.sandbox_status(sandbox).network
    assert network.ip.startswith("10.77.")
    assert not network.additional_ips


def answered(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), timeout=5) as connection:
        return connection.recv(100)


def test_a_host_port_leads_into_the_pod(pods: Pods) -> None:
    mapping = cri.PortMapping(protocol=cri.Protocol.TCP, container_port=80, host_port=18080)
    sandbox = pods.run(port_mappings=[mapping])
    container = pods.container(sandbox, "sh", "-c", "nc -ll -p 80 -e echo hello")
    await_true(lambda: b":80 " in pods.exec(container, "netstat", "-ltn").stdout, "it to listen")
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: its network has no portmap plugin here")
    for address in ("127.0.0.1", gateway6()):
        assert answered(address, 18080) == b"hello\n"


def gateway6() -> str:
    """Return an IPv6 address of this host: the bridge's."""
    bridge = os.environ.get("MINIRT_BRIDGE", "minirt0")
    command = ["ip", "-6", "-o", "addr", "show", bridge, "scope", "global"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[3].partition("/")[0]


@pytest.mark.differs("containerd", "its network has no portmap plugin here")
def test_a_host_port_of_one_family_only(pods: Pods) -> None:
    mapping = cri.PortMapping(protocol=cri.Protocol.TCP, container_port=80, host_port=18083, host_ip="::")
    sandbox = pods.run(port_mappings=[mapping])
    container = pods.container(sandbox, "sh", "-c", "nc -ll -p 80 -e echo hello")
    await_true(lambda: b":80 " in pods.exec(container, "netstat", "-ltn").stdout, "it to listen")
    assert answered(gateway6(), 18083) == b"hello\n"
    with pytest.raises(ConnectionRefusedError):
        answered("127.0.0.1", 18083)


def test_a_port_that_is_taken_is_refused(pods: Pods) -> None:
    mapping = cri.PortMapping(protocol=cri.Protocol.TCP, container_port=80, host_port=18081)
    pods.run(port_mappings=[mapping])
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: its network has no portmap plugin here")
    with pytest.raises(grpc.RpcError):
        pods.run(port_mappings=[mapping])
    assert len(pods.sandboxes()) == 1


@pytest.mark.differs("containerd", "its network has no portmap plugin here")
@pytest.mark.parametrize("address", ["::1", "not an address"])
def test_a_port_of_an_address_that_cannot_be_is_refused(pods: Pods, address: str) -> None:
    mapping = cri.PortMapping(protocol=cri.Protocol.TCP, container_port=80, host_port=18082, host_ip=address)
    with pytest.raises(grpc.RpcError) as failed:
        pods.run(port_mappings=[mapping])
    assert failed.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
    assert pods.sandboxes() == []


def test_a_port_of_0_is_none(pods: Pods) -> None:
    pods.run(port_mappings=[cri.PortMapping(protocol=cri.Protocol.TCP, container_port=80)])
    pods.run(port_mappings=[cri.PortMapping(protocol=cri.Protocol.TCP, container_port=80)])
    assert len(pods.sandboxes()) == 2


@pytest.mark.parametrize("parent", ["/{}", "/{}/inner"])
def test_a_cgroup_parent_may_be_shared(pods: Pods, parent: str) -> None:
    shared = linux(network=MODE.NODE)
    shared.cgroup_parent = parent.format(os.environ["MINIRT_CGROUP"])
    one, two = (pods.run(hostname="", linux=shared) for _ in range(2))
    container = pods.container(two)
    assert shared.cgroup_parent.rpartition("/")[2] in Path(f"/proc/{pid_of(pods, container)}/cgroup").read_text()
    pods.remove(one)
    assert pods.status(container).state == cri.ContainerState.CONTAINER_RUNNING


def pid_of(pods: Pods, container: str) -> int:
    request = cri.ContainerStatusRequest(container_id=container, verbose=True)
    info = json.loads(pods.runtime.ContainerStatus(request).info["info"])
    return int(info["pid"])
