"""Sandboxes: made, listed, stopped, removed."""

import threading

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import code_of
from tests.peers.cri import MODE, Pods, Runtime

pytestmark = [pytest.mark.root, pytest.mark.peer]
READY = cri.PodSandboxState.SANDBOX_READY
NOTREADY = cri.PodSandboxState.SANDBOX_NOTREADY
UNKNOWN_ID = "0" * 64


def test_version_names_the_runtime_and_the_interface(runtime: Runtime) -> None:
    found = runtime.Version(cri.VersionRequest(version="0.1.0"))
    assert found.version == "0.1.0"
    assert found.runtime_name == runtime.name
    assert found.runtime_version
    assert found.runtime_api_version == "v1"


def test_status_says_that_runtime_and_network_are_ready(runtime: Runtime) -> None:
    found = runtime.Status(cri.StatusRequest())
    assert {each.type: each.status for each in found.status.conditions} == {"RuntimeReady": True, "NetworkReady": True}
    assert not found.info


def test_status_tells_more_when_asked(runtime: Runtime) -> None:
    assert "config" in runtime.Status(cri.StatusRequest(verbose=True)).info


def test_a_sandbox_is_ready_and_has_what_was_asked_for(pods: Pods) -> None:
    config = pods.config(labels={"app": "web"}, annotations={"note": "äöü\n\x01"})
    sandbox = pods.run(config)
    status = pods.sandbox_status(sandbox)
    assert status.id == sandbox
    assert status.state == READY
    assert status.metadata == config.metadata
    assert dict(status.labels) == {"app": "web"}
    assert dict(status.annotations) == {"note": "äöü\n\x01"}
    assert status.created_at > 0
    assert status.network.ip
    assert status.linux.namespaces.options.network == MODE.POD


def test_verbose_status_has_information_and_a_plain_one_has_none(pods: Pods) -> None:
    sandbox = pods.run()
    for verbose in (False, True):
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=verbose)
        assert bool(pods.runtime.PodSandboxStatus(request).info) is verbose


def test_two_sandboxes_have_two_addresses(pods: Pods) -> None:
    one, two = pods.run(), pods.run()
    assert pods.sandbox_status(one).network.ip != pods.sandbox_status(two).network.ip


def test_the_same_pod_twice_is_refused_until_the_first_is_removed(pods: Pods) -> None:
    config = pods.config()
    first = pods.run(config)
    with pytest.raises(grpc.RpcError):
        pods.run(config)
    pods.stop(first)
    with pytest.raises(grpc.RpcError):
        pods.run(config)
    pods.remove(first)
    assert pods.run(config) != first


def test_another_attempt_of_a_pod_is_another_sandbox(pods: Pods) -> None:
    config = pods.config()
    first = pods.run(config)
    config.metadata.attempt = 1
    assert pods.run(config) != first


def test_a_stopped_sandbox_is_not_ready_and_has_no_address(pods: Pods) -> None:
    sandbox = pods.run()
    pods.stop(sandbox)
    assert pods.sandbox_status(sandbox).state == NOTREADY
    assert not pods.sandbox_status(sandbox).network.ip or pods.runtime.name == "containerd"


def test_stopping_ends_the_containers(pods: Pods) -> None:
    sandbox = pods.run()
    container = pods.container(sandbox)
    pods.stop(sandbox)
    assert pods.status(container).state == cri.ContainerState.CONTAINER_EXITED
    assert pods.status(container).exit_code == 137


def test_removing_removes_the_containers(pods: Pods) -> None:
    sandbox = pods.run()
    container = pods.container(sandbox)
    pods.stop(sandbox)
    pods.remove(sandbox)
    assert code_of(lambda: pods.sandbox_status(sandbox)) == grpc.StatusCode.NOT_FOUND
    assert code_of(lambda: pods.status(container)) == grpc.StatusCode.NOT_FOUND


def test_a_ready_sandbox_can_be_removed(pods: Pods) -> None:
    sandbox = pods.run()
    pods.container(sandbox)
    pods.remove(sandbox)
    assert sandbox not in pods.sandboxes()


def test_stop_and_remove_may_be_said_again(pods: Pods) -> None:
    sandbox = pods.run()
    for _ in range(3):
        pods.stop(sandbox)
    for _ in range(3):
        pods.remove(sandbox)


@pytest.mark.differs("containerd", "NOT_FOUND, which the interface's text forbids and kubelets overlook")
def test_what_is_unknown_can_be_stopped(pods: Pods) -> None:
    pods.stop(UNKNOWN_ID)


def test_what_is_unknown_can_be_removed_but_not_looked_at(pods: Pods) -> None:
    pods.remove(UNKNOWN_ID)
    assert code_of(lambda: pods.sandbox_status(UNKNOWN_ID)) == grpc.StatusCode.NOT_FOUND
    assert code_of(lambda: pods.sandbox_status("no/such id")) == grpc.StatusCode.NOT_FOUND


def test_lists_can_be_filtered(pods: Pods) -> None:
    web = pods.run(labels={"app": "web", "tier": "front"})
    data = pods.run(labels={"app": "data"})
    pods.stop(data)
    assert pods.sandboxes(label_selector={"app": "web"}) == [web]
    assert pods.sandboxes(label_selector={"app": "web", "tier": "back"}) == []
    assert pods.sandboxes(id=data) == [data]
    assert pods.sandboxes(id=UNKNOWN_ID) == []
    assert pods.sandboxes(state=cri.PodSandboxStateValue(state=READY)) == [web]
    assert pods.sandboxes(state=cri.PodSandboxStateValue(state=NOTREADY)) == [data]
    assert set(pods.sandboxes()) == {web, data}


def test_the_beginning_of_an_id_is_enough(pods: Pods) -> None:
    sandbox = pods.run()
    assert pods.sandbox_status(sandbox[:12]).id == sandbox
    assert pods.sandboxes(id=sandbox[:12]) == [sandbox]


def test_an_unknown_runtime_handler_is_refused(pods: Pods) -> None:
    request = cri.RunPodSandboxRequest(config=pods.config(), runtime_handler="no-such-handler")
    with pytest.raises(grpc.RpcError):
        pods.runtime.RunPodSandbox(request)
    assert pods.sandboxes() == []


def test_a_configuration_without_metadata_is_refused(pods: Pods) -> None:
    with pytest.raises(grpc.RpcError):
        pods.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=cri.PodSandboxConfig()))
    assert pods.sandboxes() == []


def test_with_the_nodes_network_the_mode_says_so(pods: Pods) -> None:
    options = cri.NamespaceOption(network=MODE.NODE)
    security = cri.LinuxSandboxSecurityContext(namespace_options=options)
    sandbox = pods.run(hostname="", linux=cri.LinuxPodSandboxConfig(security_context=security))
    assert pods.sandbox_status(sandbox).linux.namespaces.options.network == MODE.NODE


def test_many_sandboxes_at_once(pods: Pods) -> None:
    configs = [pods.config() for _ in range(8)]
    threads = [threading.Thread(target=pods.run, args=(config,)) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pods.sandboxes()) == 8
    assert len({pods.sandbox_status(sandbox).network.ip for sandbox in pods.made}) == 8


def test_of_the_same_pod_at_once_one_is_made(pods: Pods) -> None:
    config = pods.config()
    refused: list[grpc.RpcError] = []

    def run() -> None:
        try:
            pods.run(config)
        except grpc.RpcError as error:
            refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(pods.sandboxes()), len(refused)) == (1, 5)
