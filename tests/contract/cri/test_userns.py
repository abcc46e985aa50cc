"""Pods in user namespaces, as a kubelet asks for them; Debian's containerd does not know them yet."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import in_our_cgroup
from tests.peers.cri import MODE, Pods, Runtime

FIRST, SIZE = 1_000_000, 65_536
LINES = [cri.IDMapping(host_id=FIRST, container_id=0, length=SIZE)]
USERS = cri.UserNamespace(mode=MODE.POD, uids=LINES, gids=LINES)


@pytest.fixture
def own(minirt_runtime: Runtime, tmp_path: Path) -> Iterator[Pods]:
    found = Pods(minirt_runtime, tmp_path)
    yield found
    found.close()


def sandbox(pods: Pods, users: cri.UserNamespace) -> str:
    context = cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(userns_options=users))
    return pods.run(linux=in_our_cgroup(security_context=context))


def of_container() -> cri.LinuxContainerConfig:
    options = cri.NamespaceOption(pid=MODE.CONTAINER, userns_options=USERS)
    return cri.LinuxContainerConfig(security_context=cri.LinuxContainerSecurityContext(namespace_options=options))


def test_a_container_sees_the_pods_map(own: Pods) -> None:
    made = sandbox(own, USERS)
    container = own.container(made, linux=of_container())
    assert own.exec(container, "cat", "/proc/self/uid_map").stdout.split() == [b"0", b"%d" % FIRST, b"%d" % SIZE]
    assert own.sandbox_status(made).linux.namespaces.options.userns_options == USERS


def test_a_volume_that_a_kubelet_maps_is_roots_on_both_sides(own: Pods, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    mount = cri.Mount(host_path=str(tmp_path / "data"), container_path="/data", uidMappings=LINES, gidMappings=LINES)
    made = sandbox(own, USERS)
    assert own.output(made, "sh", "-c", "echo x > /data/x; stat -c %u /data/x", mounts=[mount], linux=of_container())
    assert (tmp_path / "data" / "x").stat().st_uid == 0


def test_another_map_of_a_volume_is_refused(own: Pods, tmp_path: Path) -> None:
    other = [cri.IDMapping(host_id=FIRST + 1, container_id=0, length=1)]
    mount = cri.Mount(host_path=str(tmp_path), container_path="/data", uidMappings=other, gidMappings=other)
    with pytest.raises(grpc.RpcError, match="ids mapped otherwise than the pod's"):
        own.create(sandbox(own, USERS), mounts=[mount], linux=of_container())


@pytest.mark.parametrize(
    ("users", "why"),
    [
        (cri.UserNamespace(mode=MODE.POD), "no line for id 0"),
        (cri.UserNamespace(mode=MODE.POD, uids=LINES * 2, gids=LINES), "overlap"),
        (cri.UserNamespace(mode=MODE.CONTAINER, uids=LINES, gids=LINES), "neither NODE nor POD"),
    ],
)
def test_maps_that_make_no_sense(own: Pods, users: cri.UserNamespace, why: str) -> None:
    with pytest.raises(grpc.RpcError, match=why):
        sandbox(own, users)
