"""Pods in user namespaces, as a kubelet asks for them; Debian's containerd does not know them yet."""

import os
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


def mapped(directory: Path, disk: int, shown: int) -> cri.Mount:
    lines = [cri.IDMapping(container_id=disk, host_id=shown, length=10)]
    return cri.Mount(host_path=str(directory), container_path="/data", uidMappings=lines, gidMappings=lines)


def owned(directory: Path, owner: int) -> Path:
    directory.mkdir()
    (directory / "file").touch()
    os.chown(directory, owner, owner)
    os.chown(directory / "file", owner + 1, owner + 2)
    return directory


def test_a_volume_with_another_map_than_the_pods(own: Pods, tmp_path: Path) -> None:
    """What is 5001 on disk is 1 in the pod; what it writes as root is 5000's."""
    mount = mapped(owned(tmp_path / "data", 5000), 5000, FIRST)
    command = ("sh", "-c", "stat -c %u:%g /data/file; touch /data/new")
    container = own.container(sandbox(own, USERS), *command, mounts=[mount], linux=of_container())
    assert own.ended(container).mounts == [mount]
    assert own.log(container) == "1:2\n"
    assert (tmp_path / "data/new").stat().st_uid == 5000


def test_a_volume_with_a_map_in_a_pod_without_users_of_its_own(own: Pods, tmp_path: Path) -> None:
    mount = mapped(owned(tmp_path / "data", 5000), 5000, 0)
    made = own.run(linux=in_our_cgroup())
    assert own.output(made, "sh", "-c", "stat -c %u:%g /data/file; touch /data/new", mounts=[mount]) == "1:2\n"
    assert (tmp_path / "data/new").stat().st_gid == 5000


def test_maps_of_a_volume_that_make_no_sense(own: Pods, tmp_path: Path) -> None:
    twice = mapped(tmp_path, 0, 1)
    twice.uidMappings.extend(list(twice.uidMappings))
    half = cri.Mount(host_path=str(tmp_path), container_path="/data", uidMappings=LINES)
    for mount, why in [(twice, "overlap"), (half, "only one of")]:
        with pytest.raises(grpc.RpcError, match=why):
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
