import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt import paths
from minirt.crimessages import api_pb2 as cri
from minirt.engine import idmessages
from minirt.engine.idranges import Ids
from minirt.errors import InvalidInput
from minirt.kubelet import loading, requests
from minirt.kubelet.requests import PulledImage
from tests.unit.kubelet.pods import NODE, UID, container, pod

MODE = cri.NamespaceMode


def config(
    fields: dict[str, object], image: PulledImage | None = None, attempt: int = 0, **spec: object
) -> cri.ContainerConfig:
    made = pod(container(**fields), **spec)
    return requests.container_config(
        made,
        made.spec.containers[0],
        attempt=attempt,
        image=image or PulledImage("sha256:1"),
        pod_ips=("10.0.0.2",),
        mounts=[cri.Mount(container_path="/etc/hosts", host_path="/x")],
        node=NODE,
    )


def security(
    fields: dict[str, object], image: PulledImage | None = None, **pod_security: object
) -> cri.LinuxContainerSecurityContext:
    return config({"securityContext": fields}, image, securityContext=pod_security).linux.security_context


def test_a_sandbox_has_the_pods_identity_and_places() -> None:
    made = pod(metadata={"labels": {"app": "x"}, "annotations": {"a": "b"}, "namespace": "ns"})
    sandbox = requests.sandbox_config(made, NODE, attempt=2)
    assert sandbox.metadata == cri.PodSandboxMetadata(name="hello", namespace="ns", uid=UID, attempt=2)
    assert dict(sandbox.labels) == {
        "app": "x",
        "io.kubernetes.pod.name": "hello",
        "io.kubernetes.pod.namespace": "ns",
        "io.kubernetes.pod.uid": UID,
    }
    assert sandbox.annotations["a"] == "b"
    assert sandbox.log_directory == str(paths.logs_dir() / "pods" / f"ns_hello_{UID}")
    assert sandbox.linux.cgroup_parent == f"minirt/pod{UID}"
    assert sandbox.hostname == "hello"


def test_a_sandbox_keeps_its_manifest() -> None:
    made = pod(container(command=["a"]), hostIPC=True)
    kept = requests.sandbox_config(made, NODE).annotations[requests.MANIFEST]
    assert loading.loads(kept, "x") == made


def test_a_user_namespace_is_the_sandboxs_and_its_containers() -> None:
    lines = ((0, 100_000, 65_536),)
    made = pod(hostUsers=False)
    wanted = idmessages.of_maps(lines, lines)
    sandbox = requests.sandbox_config(made, NODE, ids=Ids(lines, lines))
    assert sandbox.linux.security_context.namespace_options.userns_options == wanted
    assert not requests.sandbox_config(pod(), NODE).linux.security_context.namespace_options.HasField("userns_options")


def test_a_users_label_does_not_hide_the_pods_identity() -> None:
    made = pod(metadata={"labels": {"io.kubernetes.pod.uid": "other"}})
    assert requests.sandbox_config(made, NODE).labels["io.kubernetes.pod.uid"] == UID


def test_the_cgroup_is_below_the_nodes_root_and_limited() -> None:
    limits = {"limits": {"cpu": "500m", "memory": "1Gi"}}
    linux = requests.sandbox_config(pod(container(resources=limits)), NODE).linux
    assert (linux.resources.cpu_quota, linux.resources.memory_limit_in_bytes) == (50_000, 1 << 30)


@pytest.mark.parametrize(
    ("spec", "network", "ipc", "pid"),
    [
        ({}, MODE.POD, MODE.POD, MODE.CONTAINER),
        ({"hostNetwork": True}, MODE.NODE, MODE.POD, MODE.CONTAINER),
        ({"hostIPC": True}, MODE.POD, MODE.NODE, MODE.CONTAINER),
        ({"hostPID": True}, MODE.POD, MODE.POD, MODE.NODE),
        ({"shareProcessNamespace": True}, MODE.POD, MODE.POD, MODE.POD),
    ],
)
def test_namespaces(spec: dict[str, object], network: int, ipc: int, pid: int) -> None:
    made = pod(**spec)
    wanted = cri.NamespaceOption(network=network, ipc=ipc, pid=pid)
    assert requests.sandbox_config(made, NODE).linux.security_context.namespace_options == wanted
    assert config({}, **spec).linux.security_context.namespace_options == wanted


def test_only_published_ports_are_mapped() -> None:
    ports = [
        {"containerPort": 80},
        {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
    ]
    sandbox = requests.sandbox_config(pod(container(ports=ports)), NODE)
    udp = cri.PortMapping(protocol=cri.Protocol.UDP, container_port=53, host_port=5353, host_ip="127.0.0.1")
    assert list(sandbox.port_mappings) == [udp]


def test_with_the_hosts_network_there_is_no_name_and_no_mapping() -> None:
    ports = [{"containerPort": 80, "hostPort": 80}]
    sandbox = requests.sandbox_config(pod(container(ports=ports), hostNetwork=True), NODE)
    assert (sandbox.hostname, list(sandbox.port_mappings)) == ("", [])


def test_a_sandbox_is_privileged_when_a_container_is() -> None:
    init = [container("i", securityContext={"privileged": True})]
    assert requests.sandbox_config(pod(initContainers=init), NODE).linux.security_context.privileged
    assert not requests.sandbox_config(pod(), NODE).linux.security_context.privileged


def test_sysctls_are_named_with_dots() -> None:
    context = {"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "0"}]}
    assert dict(requests.sandbox_config(pod(securityContext=context), NODE).linux.sysctls) == {
        "net.ipv4.tcp_syncookies": "0"
    }


def test_the_users_words_are_expanded() -> None:
    env = [{"name": "PORT", "value": "80"}]
    found = config({"env": env, "command": ["serve", "$(PORT)"], "args": ["$$(PORT)"], "workingDir": "/srv"})
    assert (list(found.command), list(found.args)) == (["serve", "80"], ["$(PORT)"])
    assert found.working_dir == "/srv"
    assert [(each.key, each.value) for each in found.envs] == [("PORT", "80")]


def test_a_container_says_who_it_is_and_why() -> None:
    found = config({"tty": True, "stdin": True, "stdinOnce": True}, attempt=3)
    assert found.metadata == cri.ContainerMetadata(name="main", attempt=3)
    assert found.log_path == "main/3.log"
    assert found.labels["io.kubernetes.container.name"] == "main"
    assert found.labels["io.kubernetes.pod.uid"] == UID
    assert dict(found.annotations) == {
        "io.kubernetes.container.restartCount": "3",
        "minirt.io/yaml": "spec.containers[0]",
    }
    assert (found.tty, found.stdin, found.stdin_once) == (True, True, True)
    assert found.image == cri.ImageSpec(image="sha256:1", user_specified_image="busybox:1")
    assert [each.container_path for each in found.mounts] == ["/etc/hosts"]


def test_limits_and_oom_score_are_sent() -> None:
    found = config({"resources": {"limits": {"memory": "64Mi", "cpu": "250m"}}}).linux.resources
    assert (found.memory_limit_in_bytes, found.cpu_quota, found.oom_score_adj) == (64 << 20, 25_000, -997)


def test_default_security_is_the_images_user_and_all_masks() -> None:
    found = security({})
    assert found.run_as_user.value == 0
    assert not found.HasField("run_as_group")
    assert not found.no_new_privs
    assert tuple(found.masked_paths) == requests.MASKED_PATHS
    assert tuple(found.readonly_paths) == requests.READONLY_PATHS


@pytest.mark.parametrize(
    ("own", "shared", "image", "uid", "name"),
    [
        ({}, {}, PulledImage("i"), 0, ""),
        ({}, {}, PulledImage("i", uid=33), 33, ""),
        ({}, {}, PulledImage("i", username="www"), 0, "www"),
        ({}, {"runAsUser": 5}, PulledImage("i", username="www"), 5, ""),
        ({"runAsUser": 7}, {"runAsUser": 5}, PulledImage("i", uid=33), 7, ""),
        ({"runAsUser": 0}, {"runAsUser": 5}, PulledImage("i", uid=33), 0, ""),
    ],
)
def test_the_user(own: dict[str, object], shared: dict[str, object], image: PulledImage, uid: int, name: str) -> None:
    found = security(own, image, **shared)
    assert (found.run_as_user.value, found.run_as_username) == (uid, name)
    assert found.HasField("run_as_user") == (not name)


def test_the_group_is_the_containers_then_the_pods() -> None:
    assert security({"runAsGroup": 0}, runAsGroup=5).run_as_group.value == 0
    assert security({"runAsGroup": 0}, runAsGroup=5).HasField("run_as_group")
    assert security({}, runAsGroup=5).run_as_group.value == 5


def test_supplemental_groups_include_the_fs_group() -> None:
    assert list(security({}, supplementalGroups=[1, 2], fsGroup=3).supplemental_groups) == [1, 2, 3]
    assert list(security({}, fsGroup=0).supplemental_groups) == [0]


def test_privileges() -> None:
    found = security(
        {
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
        }
    )
    assert list(found.capabilities.add_capabilities) == ["NET_ADMIN"]
    assert list(found.capabilities.drop_capabilities) == ["ALL"]
    assert found.readonly_rootfs
    assert found.no_new_privs
    assert not security({"allowPrivilegeEscalation": True}).no_new_privs


def test_a_privileged_container_has_nothing_masked() -> None:
    found = security({"privileged": True})
    assert found.privileged
    assert not found.masked_paths
    assert not found.readonly_paths


@pytest.mark.parametrize(
    ("own", "shared", "image"),
    [
        ({"runAsNonRoot": True}, {}, PulledImage("i")),
        ({"runAsNonRoot": True}, {"runAsUser": 0}, PulledImage("i", uid=5)),
        ({}, {"runAsNonRoot": True}, PulledImage("i", uid=0)),
        ({}, {"runAsNonRoot": True}, PulledImage("i", username="www")),
    ],
)
def test_root_is_refused_where_it_must_not_be(
    own: dict[str, object], shared: dict[str, object], image: PulledImage
) -> None:
    with pytest.raises(InvalidInput, match="runAsNonRoot"):
        security(own, image, **shared)


@pytest.mark.parametrize(
    ("own", "shared", "image"),
    [
        ({"runAsNonRoot": True, "runAsUser": 5}, {}, PulledImage("i")),
        ({"runAsNonRoot": True}, {}, PulledImage("i", uid=5)),
        ({"runAsNonRoot": False}, {"runAsNonRoot": True}, PulledImage("i")),
    ],
)
def test_others_may_run(own: dict[str, object], shared: dict[str, object], image: PulledImage) -> None:
    assert security(own, image, **shared)


@given(st.lists(st.text(alphabet="ab$()", max_size=6), max_size=4))
def test_the_same_pod_gives_the_same_messages(command: list[str]) -> None:
    fields = {"command": command, "env": [{"name": "a", "value": "$(b)"}]}
    assert config(fields).SerializeToString(deterministic=True) == config(fields).SerializeToString(deterministic=True)


KINDS = cri.SecurityProfile.ProfileType


@pytest.mark.parametrize(
    ("own", "pods", "kind", "file"),
    [
        (None, None, KINDS.Unconfined, ""),
        ({"type": "RuntimeDefault"}, None, KINDS.RuntimeDefault, ""),
        (None, {"type": "RuntimeDefault"}, KINDS.RuntimeDefault, ""),
        ({"type": "Unconfined"}, {"type": "RuntimeDefault"}, KINDS.Unconfined, ""),
        ({"type": "Localhost", "localhostProfile": "a/b.json"}, None, KINDS.Localhost, "seccomp/a/b.json"),
    ],
)
def test_a_seccomp_profile_is_the_containers_or_else_the_pods(
    own: dict[str, str] | None, pods: dict[str, str] | None, kind: int, file: str
) -> None:
    shared = {"seccompProfile": pods} if pods else {}
    found = security({"seccompProfile": own} if own else {}, **shared).seccomp
    assert found.profile_type == kind
    assert found.localhost_ref == (str(paths.data_root() / file) if file else "")
