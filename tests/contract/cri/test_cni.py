"""CNI: Debian's plugins called by ``minirt serve``."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.command import Minirt
from tests.peers.cri import Pods, Runtime
from tests.peers.daemon import await_true
from tests.peers.serve import Server

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/usr/lib/cni/bridge").exists(), reason="cni: containernetworking-plugins is not here"),
]
BRIDGE = "mrtcni0"


def bridge(place: Path, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a configuration list of the plugin bridge, with addresses kept in a directory."""
    ranges = [[{"subnet": "10.79.0.0/24"}], [{"subnet": "fd79::/64"}]]
    ipam = {"type": "host-local", "dataDir": str(place / "addresses"), "ranges": ranges}
    first = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipam": ipam} | fields
    return {"cniVersion": "1.0.0", "name": "test", "plugins": [first, *more]}


class Node:
    """A server whose pods are attached by plugins."""

    def __init__(self, place: Path, store: Path) -> None:
        self.place = place
        self.configurations = place / "net.d"
        self.configurations.mkdir()
        state = Path(tempfile.mkdtemp(prefix="cni-", dir=os.environ["MINIRT_STATE"]))
        minirt = Minirt(place / "root", state)
        shutil.copytree(store, minirt.root, symlinks=True)
        self.server = Server(minirt, place, self.configurations, place / "bin")
        self.runtime = Runtime("minirt", self.server.socket)
        (place / "logs").mkdir()
        self.pods = Pods(self.runtime, place / "logs")

    def configure(self, content: Any, name: str = "10-test.conflist") -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.configurations / name).write_text(text)

    def leases(self) -> list[str]:
        """Return the addresses that host-local has given away."""
        found = (self.place / "addresses/test").glob("[0-9f]*")
        return sorted(path.name for path in found)

    def restart(self) -> None:
        """Kill the server, and start another."""
        self.runtime.close()
        self.server.daemon.process.kill()
        self.server.daemon.process.wait()
        self.server.start()
        self.runtime = self.pods.runtime = Runtime("minirt", self.server.socket)

    def close(self) -> None:
        self.pods.close()
        self.runtime.close()
        self.server.close()
        self.server.minirt("system", "prune")
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False)


@pytest.fixture
def node(tmp_path: Path, busybox_store: Path) -> Iterator[Node]:
    node = Node(tmp_path, busybox_store)
    yield node
    node.close()


def test_a_pod_is_attached_and_detached(node: Node) -> None:
    node.configure(bridge(node.place))
    sandbox = node.pods.run()
    status = node.pods.sandbox_status(sandbox)
    assert status.network.ip.startswith("10.79.0.")
    assert [one.ip[:6] for one in status.network.additional_ips] == ["fd79::"]
    seen = node.pods.output(sandbox, "ip", "addr", "show", "eth0")
    assert status.network.ip in seen
    assert len(node.leases()) == 2
    node.pods.remove(sandbox)
    assert node.leases() == []


def test_pods_reach_each_other(node: Node) -> None:
    node.configure(bridge(node.place))
    server, client = node.pods.run(), node.pods.run()
    listener = node.pods.container(server, "sh", "-c", "echo hello | nc -l -p 80; sleep 1000")
    await_true(lambda: b":80 " in node.pods.exec(listener, "netstat", "-ltn").stdout, "it to listen")
    address = node.pods.sandbox_status(server).network.ip
    assert node.pods.output(client, "nc", address, "80") == "hello\n"


def test_the_network_of_a_pod_can_be_checked(node: Node) -> None:
    node.configure(bridge(node.place))
    sandbox = node.pods.run()
    container = node.pods.container(sandbox)

    def told() -> str:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True)
        return str(node.runtime.PodSandboxStatus(request).info["cni"])

    assert told() == "ok"
    info = node.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=container, verbose=True)).info["info"]
    pid = str(json.loads(info)["pid"])
    subprocess.run(["nsenter", "-t", pid, "-n", "ip", "addr", "flush", "dev", "eth0"], check=True)
    assert "cannot CHECK the pod" in told()


def test_host_ports_are_the_plugin_portmaps(node: Node) -> None:
    node.configure(bridge(node.place, {"type": "portmap", "capabilities": {"portMappings": True}}))
    mapping = cri.PortMapping(protocol=cri.Protocol.TCP, container_port=80, host_port=18090)
    sandbox = node.pods.run(port_mappings=[mapping])
    listener = node.pods.container(sandbox, "sh", "-c", "echo hello | nc -l -p 80; sleep 1000")
    await_true(lambda: b":80 " in node.pods.exec(listener, "netstat", "-ltn").stdout, "it to listen")
    gateway = subprocess.run(["ip", "-4", "-o", "addr", "show", BRIDGE], capture_output=True, text=True, check=True)
    with socket.create_connection((gateway.stdout.split()[3].partition("/")[0], 18090), timeout=5) as connection:
        assert connection.recv(100) == b"hello\n"
    node.pods.remove(sandbox)
    subprocess.run(["nft", "flush", "ruleset"], check=False)


def test_a_plugin_alone_is_a_network(node: Node) -> None:
    whole = bridge(node.place)
    node.configure(whole["plugins"][0] | {"cniVersion": "0.4.0", "name": "test"}, "10-test.conf")
    sandbox = node.pods.run()
    assert node.pods.sandbox_status(sandbox).network.ip.startswith("10.79.0.")


def test_of_several_configurations_the_first_counts(node: Node) -> None:
    node.configure(bridge(node.place), "05-first.conflist")
    node.configure("this is no JSON", "20-second.conflist")
    assert node.pods.sandbox_status(node.pods.run()).network.ip.startswith("10.79.0.")


def test_without_a_configuration_pods_are_on_our_bridge(node: Node) -> None:
    assert node.pods.sandbox_status(node.pods.run()).network.ip.startswith("10.77.")


def network_ready(node: Node) -> cri.RuntimeCondition:
    conditions = node.runtime.Status(cri.StatusRequest()).status.conditions
    return next(each for each in conditions if each.type == "NetworkReady")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("this is no JSON", "Expecting value"),
        ({"name": "x", "cniVersion": "1.0.0", "plugins": []}, "names no plugin"),
        ({"cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}, "it has no 'name'"),
        ({"name": "x", "cniVersion": "9.9.9", "plugins": [{"type": "bridge"}]}, "its cniVersion is 9.9.9"),
        ({"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "no-such"}]}, "no-such is not in"),
    ],
)
def test_a_configuration_that_is_wrong_is_told_and_fails_pods(node: Node, content: Any, why: str) -> None:
    node.configure(content)
    found = network_ready(node)
    assert not found.status
    assert why in found.message
    with pytest.raises(grpc.RpcError):
        node.pods.run()
    assert node.pods.sandboxes() == []


PLUGIN = """#!/bin/sh
cat > "$0.$CNI_COMMAND"
echo "$CNI_COMMAND id=$CNI_CONTAINERID" >> "$0.calls"
if [ -e "$0.$CNI_COMMAND.refuses" ]; then echo '{"cniVersion": "1.1.0", "code": 50, "msg": "out of order"}'; exit 1; fi
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.79.0.9/24"}]}'
"""


@pytest.fixture
def plugin(node: Node) -> Path:
    """A plugin of CNI 1.1 that only writes down how it is called, and its configuration."""
    file = node.place / "bin/note"
    file.parent.mkdir()
    file.write_text(PLUGIN)
    file.chmod(0o755)
    node.configure({"cniVersion": "1.1.0", "name": "noted", "plugins": [{"type": "note"}]})
    return file


def test_a_plugin_of_1_1_says_whether_the_network_is_ready(node: Node, plugin: Path) -> None:
    assert network_ready(node).status
    assert json.loads(Path(f"{plugin}.STATUS").read_text()) == {"type": "note", "cniVersion": "1.1.0", "name": "noted"}
    Path(f"{plugin}.STATUS.refuses").touch()
    found = network_ready(node)
    assert (found.status, found.message[:63]) == (
        False,
        "cannot use the network by the CNI plugin note: out of order (se",
    )


def test_plugins_of_1_1_are_told_at_the_start_which_sandboxes_there_are(node: Node, plugin: Path) -> None:
    kept, gone = node.pods.run(), node.pods.run()
    node.pods.remove(gone)
    Path(f"{plugin}.GC.refuses").touch()
    node.restart()
    told = json.loads(Path(f"{plugin}.GC").read_text())
    assert told["cni.dev/valid-attachments"] == [{"containerID": kept, "ifname": "eth0"}]
    assert "cannot give back what ended pods had by the CNI plugin note" in (node.place / "log").read_text()


def test_older_plugins_are_not_asked_for_what_they_do_not_know(node: Node, plugin: Path) -> None:
    node.configure({"cniVersion": "1.0.0", "name": "noted", "plugins": [{"type": "note"}]})
    node.restart()
    assert network_ready(node).status
    assert not Path(f"{plugin}.calls").exists()


def test_a_plugin_that_refuses_is_quoted_and_leaves_nothing(node: Node) -> None:
    node.configure(bridge(node.place, {"type": "bandwidth", "ingressRate": -1, "ingressBurst": 1}))
    with pytest.raises(grpc.RpcError, match="bandwidth"):
        node.pods.run()
    assert node.pods.sandboxes() == []
    assert node.leases() == []


def test_a_pod_is_detached_though_its_configuration_has_gone(node: Node) -> None:
    node.configure(bridge(node.place))
    sandbox = node.pods.run()
    (node.configurations / "10-test.conflist").unlink()
    node.pods.remove(sandbox)
    assert node.leases() == []


def test_a_pod_is_detached_by_another_server(node: Node) -> None:
    node.configure(bridge(node.place))
    sandbox = node.pods.run()
    node.restart()
    node.pods.remove(sandbox)
    assert node.leases() == []
