"""Environment, users and rights, as a manifest asks for them."""

from typing import Any

import pytest

from tests.integration.pods.manifests import Pods, container, manifest

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]


def variable(name: str, **source: Any) -> dict[str, Any]:
    """Return a variable that is taken from a field."""
    return {"name": name, "valueFrom": source}


def test_variables_refer_to_each_other_and_to_the_pod(pods: Pods) -> None:
    env = [
        {"name": "A", "value": "a"},
        {"name": "B", "value": "$(A)b $(UNKNOWN) $$(A)"},
        variable("NAME", fieldRef={"fieldPath": "metadata.name"}),
        variable("SPACE", fieldRef={"fieldPath": "metadata.namespace"}),
        variable("APP", fieldRef={"fieldPath": "metadata.labels['app']"}),
        variable("IP", fieldRef={"fieldPath": "status.podIP"}),
        variable("CPU", resourceFieldRef={"resource": "requests.cpu", "divisor": "1m"}),
        variable("MEMORY", resourceFieldRef={"resource": "requests.memory", "divisor": "1Mi"}),
    ]
    requests = {"requests": {"cpu": "250m", "memory": "64Mi"}}
    script = (
        'echo "$A|$B|$NAME|$SPACE|$APP|$CPU|$MEMORY|$HOSTNAME"; ip -4 addr show eth0 | grep -c "inet $IP/"; echo $1'
    )
    pod = manifest(container("main", script, args=["$0", "argument $(A)"], env=env, resources=requests))
    pod["metadata"] |= {"namespace": "room", "labels": {"app": "shop"}}
    done = pods.run(pod, "--best-effort-limits")
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" | ")[2] for line in done.stdout.splitlines()]
    assert lines[0] == "a|ab $(UNKNOWN) $(A)|web|room|shop|250|64|web"
    assert lines[1:] == ["1", "argument a"]


def test_the_working_directory_and_the_command_are_the_manifests(pods: Pods) -> None:
    main = container("main", "", command=["pwd"], workingDir="/made/here")
    assert pods.said(manifest(main)) == {"main": ["/made/here"]}
    main = container("main", "", command=["echo"], args=["one", "two words"])
    assert pods.said(manifest(main)) == {"main": ["one two words"]}


def test_the_containers_security_context_goes_before_the_pods(pods: Pods) -> None:
    security = {"runAsUser": 1000, "runAsGroup": 1001, "supplementalGroups": [3000], "fsGroup": 2000}
    one = container("one", "id -u; id -g; id -G | tr ' ' '\\n' | sort | xargs")
    two = container("two", "id -u; id -g", securityContext={"runAsUser": 1234})
    found = pods.said(manifest(one, two, securityContext=security))
    assert found == {"one": ["1000", "1001", "1001 2000 3000"], "two": ["1234", "1001"]}


RIGHTS = "grep -E 'Cap(Bnd|Eff)|NoNewPrivs' /proc/self/status | tr -d '\\t'; touch /x 2>&1 || true"


@pytest.mark.parametrize(
    ("security", "wanted"),
    [
        ({}, ["CapEff:00000000a80425fb", "CapBnd:00000000a80425fb", "NoNewPrivs:0"]),
        (
            {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}, "allowPrivilegeEscalation": False},
            ["CapEff:0000000000000001", "CapBnd:0000000000000001", "NoNewPrivs:1"],
        ),
        (
            {"runAsUser": 65534, "runAsNonRoot": True, "readOnlyRootFilesystem": True},
            [
                "CapEff:0000000000000000",
                "CapBnd:00000000a80425fb",
                "NoNewPrivs:0",
                "touch: /x: Read-only file system",
            ],
        ),
    ],
    ids=["usual", "dropped", "read-only"],
)
def test_rights_are_given_and_taken(pods: Pods, security: dict[str, Any], wanted: list[str]) -> None:
    assert pods.said(manifest(container("main", RIGHTS, securityContext=security))) == {"main": wanted}


def test_a_privileged_container_may_mount(pods: Pods) -> None:
    script = "mkdir /sys/fs/cgroup/below && rmdir /sys/fs/cgroup/below; : > /proc/sys/kernel/domainname; echo done"
    assert pods.said(manifest(container("main", script, securityContext={"privileged": True})))["main"][-1] == "done"


@pytest.mark.parametrize(("privileged", "said"), [(False, ["Operation not permitted"]), (True, [])])
def test_only_a_privileged_container_opens_the_hosts_devices(pods: Pods, privileged: bool, said: list[str]) -> None:
    script = "mknod /n c 1 11; (: >> /n) 2>&1 | sed 's/.*: //'; : >> /dev/null"
    security = {"privileged": privileged, "capabilities": {"add": ["SYSLOG"]}}
    assert pods.said(manifest(container("main", script, securityContext=security))).get("main", []) == said


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"runAsNonRoot": True}, "would run as root"),
        ({"runAsNonRoot": True, "runAsUser": 0}, "would run as root"),
    ],
)
def test_a_container_that_must_not_be_root_is_not_started_as_root(
    pods: Pods, security: dict[str, Any], said: str
) -> None:
    done = pods.run(manifest(container("main", "id", securityContext=security)))
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert said in done.stderr
    assert pods.minirt.output("pod", "ps", "-q") == ""


def test_sysctls_are_the_pods_alone(pods: Pods) -> None:
    security = {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]}
    show = container("main", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
    assert pods.said(manifest(show, securityContext=security)) == {"main": ["80"]}
    assert pods.said(manifest(show)) == {"main": ["1024"]}


def test_a_container_may_have_a_terminal_and_an_open_stdin(pods: Pods) -> None:
    tty = container("tty", "tty; echo error >&2", tty=True)
    script = "[ -p /proc/self/fd/0 ] && echo a pipe; read -t 0.1 line || echo nothing yet"
    found = pods.said(manifest(tty, container("pipe", script, stdin=True)))
    assert found == {"tty": ["/dev/pts/0", "error"], "pipe": ["a pipe", "nothing yet"]}


def test_limits_are_refused_where_they_cannot_be_kept_or_warned_of(pods: Pods) -> None:
    from tests import leaks

    if "memory" in (leaks.cgroup2_tops()[0] / "cgroup.controllers").read_text().split():
        pytest.skip("memory: this machine has the controller")
    pod = manifest(container("main", "echo ran", resources={"limits": {"memory": "64Mi"}}))
    done = pods.run(pod)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minirt: cannot limit memory of web/main to 64Mi: the memory controller is not in ")
    assert pods.minirt.output("pod", "ps", "-q") == ""
    done = pods.run(pod, "--best-effort-limits")
    assert (done.returncode, done.stdout) == (0, "main | ran\n")
    assert "warning: cannot limit memory of web/main to 64Mi" in done.stderr


@pytest.mark.needs("runc")
def test_a_runtime_class_is_a_handlers_name(pods: Pods) -> None:
    pod = manifest(container("main", "hostname"))
    pod["spec"]["runtimeClassName"] = "runc"
    assert pods.said(pod) == {"main": ["web"]}
    pod["spec"]["runtimeClassName"] = "kata"
    assert "there are minirt" in pods.run(pod).stderr
