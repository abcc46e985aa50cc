"""Statistics of containers and sandboxes, metrics, events."""

import shutil
import threading
from typing import Any

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import code_of, in_our_cgroup
from tests.peers.cri import Pods, Runtime
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]
EVENT = cri.ContainerEventType


@pytest.fixture
def sandbox(pods: Pods) -> str:
    return pods.run(labels={"app": "web"}, linux=in_our_cgroup())


def container_stats(pods: Pods, container: str) -> cri.ContainerStats:
    found: cri.ContainerStats = pods.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=container)).stats
    return found


def listed(pods: Pods, **wanted: Any) -> list[str]:
    request = cri.ListContainerStatsRequest(filter=cri.ContainerStatsFilter(**wanted))
    return [each.attributes.id for each in pods.runtime.ListContainerStats(request).stats]


def test_a_containers_statistics_say_whose_they_are(pods: Pods, sandbox: str) -> None:
    config = pods.container_config(labels={"a": "b"}, annotations={"c": "d"})
    found = container_stats(pods, pods.container(sandbox, config=config)).attributes
    assert found.metadata == config.metadata
    assert (dict(found.labels), dict(found.annotations)) == ({"a": "b"}, {"c": "d"})


def test_cpu_time_grows_with_work(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "sh", "-c", "while :; do :; done")
    first = container_stats(pods, container).cpu
    assert first.timestamp > 0

    def more() -> bool:
        used = container_stats(pods, container).cpu.usage_core_nano_seconds.value
        return used > first.usage_core_nano_seconds.value + 5 * 10**7

    await_true(more, "more CPU time")
    if pods.runtime.name == "minirt":
        await_true(lambda: container_stats(pods, container).cpu.usage_nano_cores.value > 10**7, "the rate")


def test_what_is_written_counts(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "sh", "-c", "head -c 3000000 /dev/zero > /file; sync; sleep 1000")
    await_true(
        lambda: container_stats(pods, container).writable_layer.used_bytes.value >= 3_000_000, "the file to count"
    )
    assert container_stats(pods, container).writable_layer.fs_id.mountpoint


def test_what_is_unknown_has_no_statistics(pods: Pods) -> None:
    assert code_of(lambda: container_stats(pods, "0" * 64)) == grpc.StatusCode.NOT_FOUND
    request = cri.PodSandboxStatsRequest(pod_sandbox_id="0" * 64)
    assert code_of(lambda: pods.runtime.PodSandboxStats(request)) == grpc.StatusCode.NOT_FOUND


def test_lists_of_statistics_can_be_filtered(pods: Pods, sandbox: str) -> None:
    other = pods.run()
    one, two = pods.container(sandbox, labels={"n": "1"}), pods.container(other, labels={"n": "2"})
    assert set(listed(pods)) == {one, two}
    assert listed(pods, id=one) == [one]
    assert listed(pods, pod_sandbox_id=other) == [two]
    assert listed(pods, label_selector={"n": "1"}) == [one]
    assert listed(pods, label_selector={"n": "3"}) == []


def test_a_created_container_is_no_error_in_a_list(pods: Pods, sandbox: str) -> None:
    running = pods.container(sandbox)
    pods.create(sandbox)
    assert running in listed(pods)


def test_a_sandboxs_statistics_have_network_processes_and_containers(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox)
    request = cri.PodSandboxStatsRequest(pod_sandbox_id=sandbox)
    found = pods.runtime.PodSandboxStats(request).stats
    assert found.attributes.id == sandbox
    assert dict(found.attributes.labels) == {"app": "web"}
    assert found.linux.network.default_interface.name == "eth0"
    assert [each.attributes.id for each in found.linux.containers] == [container]


def test_what_a_pod_sends_counts(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox)
    request = cri.PodSandboxStatsRequest(pod_sandbox_id=sandbox)

    def sent() -> int:
        return int(pods.runtime.PodSandboxStats(request).stats.linux.network.default_interface.tx_bytes.value)

    before = sent()
    gateway = pods.exec(container, "sh", "-c", "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'").stdout
    if not gateway.strip():
        pytest.skip(f"differs: {pods.runtime.name}: its pods have no default route here")
    pods.exec(container, "ping", "-c", "3", "-i", "0.2", gateway.decode().strip())
    await_true(lambda: sent() > before, "more bytes sent", 20)


def test_lists_of_sandboxes_statistics_can_be_filtered(pods: Pods, sandbox: str) -> None:
    other = pods.run(linux=in_our_cgroup())

    def found(**wanted: Any) -> set[str]:
        request = cri.ListPodSandboxStatsRequest(filter=cri.PodSandboxStatsFilter(**wanted))
        return {each.attributes.id for each in pods.runtime.ListPodSandboxStats(request).stats}

    assert found() == {sandbox, other}
    assert found(id=other) == {other}
    assert found(label_selector={"app": "web"}) == {sandbox}


@pytest.fixture
def own(minirt_runtime: Runtime, tmp_path: Any) -> Any:
    """What containerd 1.6 has not: pods of minirt alone."""
    pods = Pods(minirt_runtime, tmp_path)
    yield pods
    pods.close()


def test_metrics_have_the_labels_that_their_descriptors_name(own: Pods) -> None:
    sandbox = own.run()
    container = own.container(sandbox, "sh", "-c", "while :; do :; done")
    descriptors = own.runtime.ListMetricDescriptors(cri.ListMetricDescriptorsRequest()).descriptors
    keys = {each.name: list(each.label_keys) for each in descriptors}
    pod = own.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest()).pod_metrics[0]
    assert pod.pod_sandbox_id == sandbox
    assert pod.container_metrics[0].container_id == container
    for metric in (*pod.metrics, *pod.container_metrics[0].metrics):
        labels = dict(zip(keys[metric.name], metric.label_values, strict=True))
        assert labels["pod"] == own.configs[sandbox].metadata.name
        assert metric.timestamp > 0
    assert "container_cpu_usage_nanoseconds_total" in {metric.name for metric in pod.container_metrics[0].metrics}


def test_events_tell_a_containers_life(own: Pods) -> None:
    call = own.runtime.GetContainerEvents(cri.GetEventsRequest())
    seen: list[cri.ContainerEventResponse] = []

    def read() -> None:
        try:
            for event in call:
                seen.append(event)
        except grpc.RpcError:
            return

    thread = threading.Thread(target=read)
    thread.start()
    try:
        sandbox = own.run()
        container = own.container(sandbox, "sh", "-c", "exit 3")
        own.ended(container)
        own.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
        await_true(lambda: EVENT.CONTAINER_DELETED_EVENT in kinds(seen, container), "the last event", 20)
    finally:
        call.cancel()
        thread.join()
    assert kinds(seen, container) == [
        EVENT.CONTAINER_CREATED_EVENT,
        EVENT.CONTAINER_STARTED_EVENT,
        EVENT.CONTAINER_STOPPED_EVENT,
        EVENT.CONTAINER_DELETED_EVENT,
    ]
    for event in seen:
        assert event.created_at > 0
        assert event.pod_sandbox_status.id == sandbox
    stopped = next(event for event in seen if event.container_event_type == EVENT.CONTAINER_STOPPED_EVENT)
    assert [(each.id, each.exit_code) for each in stopped.containers_statuses] == [(container, 3)]


def kinds(seen: list[cri.ContainerEventResponse], container: str) -> list[int]:
    return [event.container_event_type for event in seen if event.container_id == container]


def test_runtime_config_names_the_cgroup_driver(minirt_runtime: Runtime) -> None:
    found = minirt_runtime.RuntimeConfig(cri.RuntimeConfigRequest())
    assert found.linux.cgroup_driver == cri.CgroupDriver.CGROUPFS


@pytest.mark.parametrize("cidr", ["", "10.77.0.0/16"])
def test_no_address_range_and_that_in_use_change_nothing(runtime: Runtime, cidr: str) -> None:
    """That another one is taken is tried on a host of its own, in tests/integration/network."""
    config = cri.RuntimeConfig(network_config=cri.NetworkConfig(pod_cidr=cidr))
    runtime.UpdateRuntimeConfig(cri.UpdateRuntimeConfigRequest(runtime_config=config))


def test_status_names_features(minirt_runtime: Runtime) -> None:
    found = minirt_runtime.Status(cri.StatusRequest())
    handlers = {handler.name: handler.features for handler in found.runtime_handlers}
    assert set(handlers) == {"", "minirt", *filter(shutil.which, ("runc", "crun"))}
    assert handlers[""].recursive_read_only_mounts
    assert handlers[""].user_namespaces
    assert found.features.supplemental_groups_policy
