"""Limits: set, seen in the status, changed in place."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from minirt.cgroups import tree
from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import code_of
from tests.contract.cri.test_sandbox_fields import pid_of
from tests.peers.cri import Pods
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]
MIB = 1 << 20


def limited(**fields: Any) -> dict[str, cri.LinuxContainerConfig]:
    return {"linux": cri.LinuxContainerConfig(resources=cri.LinuxContainerResources(**fields))}


def update(pods: Pods, container: str, **fields: Any) -> None:
    request = cri.UpdateContainerResourcesRequest(container_id=container, linux=cri.LinuxContainerResources(**fields))
    pods.runtime.UpdateContainerResources(request)


def file(pods: Pods, container: str, name: str) -> str:
    """Return what the container sees of its own cgroup."""
    return pods.exec(container, "cat", f"/sys/fs/cgroup/{name}").stdout.decode().strip()


@pytest.fixture
def sandbox(pods: Pods) -> str:
    return pods.run()


def test_oom_score_adj(pods: Pods, sandbox: str) -> None:
    assert pods.output(sandbox, "cat", "/proc/self/oom_score_adj", **limited(oom_score_adj=321)) == "321\n"


def test_an_ended_container_has_no_limits_to_change(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "true")
    pods.ended(container)
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: it says yes, and does nothing")
    with pytest.raises(grpc.RpcError):
        update(pods, container, cpu_shares=1024)


def test_what_is_unknown_has_no_limits_to_change(pods: Pods) -> None:
    assert code_of(lambda: update(pods, "0" * 64, cpu_shares=1024)) == grpc.StatusCode.NOT_FOUND


@pytest.mark.vm
def test_limits_are_set_and_told(pods: Pods, sandbox: str) -> None:
    fields = {"memory_limit_in_bytes": 64 * MIB, "cpu_quota": 50_000, "cpu_period": 100_000, "cpu_shares": 512}
    container = pods.container(sandbox, **limited(**fields))
    assert file(pods, container, "memory.max") == str(64 * MIB)
    assert file(pods, container, "cpu.max") == "50000 100000"
    found = pods.status(container).resources.linux
    if pods.runtime.name == "minirt":
        assert {name: getattr(found, name) for name in fields} == fields


@pytest.mark.vm
def test_limits_are_changed_in_place(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, **limited(memory_limit_in_bytes=64 * MIB, cpu_shares=512))
    update(pods, container, memory_limit_in_bytes=96 * MIB)
    assert file(pods, container, "memory.max") == str(96 * MIB)
    update(pods, container, cpu_quota=20_000, cpu_period=100_000)
    assert file(pods, container, "cpu.max") == "20000 100000"
    assert file(pods, container, "memory.max") == str(96 * MIB)
    if pods.runtime.name == "minirt":
        assert pods.status(container).resources.linux.memory_limit_in_bytes == 96 * MIB


@pytest.mark.vm
@pytest.mark.differs("containerd", "1.7 lets the kernel find the memory, or kill for it")
def test_less_memory_than_is_used_is_refused_and_nothing_changes(pods: Pods, sandbox: str, tmp_path: Path) -> None:
    script = "head -c 40000000 /dev/zero > /dev/shm/file; touch /data/full; sleep 1000"
    mounts = [cri.Mount(host_path=str(tmp_path), container_path="/data")]
    container = pods.container(sandbox, "sh", "-c", script, mounts=mounts, **limited(memory_limit_in_bytes=64 * MIB))
    await_true((tmp_path / "full").exists, "the memory to be used")
    with pytest.raises(grpc.RpcError):
        update(pods, container, memory_limit_in_bytes=8 * MIB, cpu_quota=20_000, cpu_period=100_000)
    if pods.runtime.name == "minirt":
        assert file(pods, container, "memory.max") == str(64 * MIB)
        assert file(pods, container, "cpu.max").startswith("max")


@pytest.mark.vm
@pytest.mark.differs("containerd", "it wants a task")
def test_a_created_container_starts_with_its_changed_limits(pods: Pods, sandbox: str) -> None:
    container = pods.create(sandbox, **limited(memory_limit_in_bytes=64 * MIB))
    update(pods, container, memory_limit_in_bytes=96 * MIB)
    pods.start(container)
    assert file(pods, container, "memory.max") == str(96 * MIB)


@pytest.mark.vm
def test_who_uses_more_memory_than_it_may_is_oom_killed(pods: Pods, sandbox: str) -> None:
    fields = limited(memory_limit_in_bytes=16 * MIB)
    container = pods.container(sandbox, "sh", "-c", "exec tail /dev/zero", **fields)
    status = pods.ended(container)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


@pytest.mark.vm
def test_memory_that_is_used_is_told(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, **limited(memory_limit_in_bytes=64 * MIB))
    found = pods.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=container)).stats.memory
    assert 0 < found.working_set_bytes.value <= found.usage_bytes.value or pods.runtime.name == "containerd"
    assert found.available_bytes.value < 64 * MIB


def limit_of_pod(pods: Pods, container: str) -> str:
    """Return the memory limit of the cgroup that a container's own is in, "max" where it has none to keep."""
    lines = Path(f"/proc/{pid_of(pods, container)}/cgroup").read_text().splitlines()
    own = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    file = Path(tree.find().mount + own).parent / "memory.max"
    return file.read_text().strip() if file.exists() else "max"


@pytest.mark.vm
@pytest.mark.differs("containerd", "it leaves a pod's limits to its caller")
def test_a_pods_limit_is_its_containers_and_its_overhead(pods: Pods) -> None:
    amounts = [cri.LinuxContainerResources(memory_limit_in_bytes=size * MIB) for size in (64, 16, 96)]
    made = pods.run(linux=cri.LinuxPodSandboxConfig(resources=amounts[0], overhead=amounts[1]))
    container = pods.container(made)
    assert limit_of_pod(pods, container) == str(80 * MIB)
    pods.runtime.UpdatePodSandboxResources(
        cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=made, resources=amounts[2], overhead=amounts[1])
    )
    assert limit_of_pod(pods, container) == str(112 * MIB)


@pytest.mark.vm
def test_a_cgroup_that_the_caller_has_made_is_the_callers_to_limit(pods: Pods) -> None:
    """A kubelet tells the sum of the limits that there are, also where one container has none."""
    parent = Path(tree.find().mount) / "callers"
    parent.mkdir()
    try:
        limits = cri.LinuxContainerResources(memory_limit_in_bytes=64 * MIB)
        made = pods.run(linux=cri.LinuxPodSandboxConfig(cgroup_parent="/callers", resources=limits))
        assert limit_of_pod(pods, pods.container(made)) == "max"
        pods.stop(made)
        pods.remove(made)
    finally:
        parent.rmdir()
