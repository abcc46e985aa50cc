"""AppArmor's default profile, where the kernel has AppArmor: the VM has."""

from typing import Any

import pytest

from minirt.crimessages import api_pb2 as cri
from minirt.security.labels import has_apparmor
from tests.contract.cri.conftest import security
from tests.peers.cri import Pods
from tests.peers.daemon import await_true

pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(not has_apparmor(), reason="apparmor: not there"),
]
DEFAULT = cri.SecurityProfile(profile_type=cri.SecurityProfile.ProfileType.RuntimeDefault)
UNCONFINED = cri.SecurityProfile(profile_type=cri.SecurityProfile.ProfileType.Unconfined)
NAMES = {"minirt": "minirt-default (enforce)", "containerd": "cri-containerd.apparmor.d (enforce)"}
CURRENT = ("cat", "/proc/self/attr/apparmor/current")
FREE = cri.Capability(add_capabilities=["SYS_ADMIN"])


@pytest.fixture
def sandbox(pods: Pods) -> str:
    return pods.run()


@pytest.mark.parametrize("fields", [{}, {"apparmor": DEFAULT}, {"apparmor_profile": "runtime/default"}])
def test_the_default_profile(pods: Pods, sandbox: str, fields: dict[str, Any]) -> None:
    container = pods.container(sandbox, **security(**fields))
    assert pods.exec(container, *CURRENT).stdout.decode().strip() == NAMES[pods.runtime.name]


@pytest.mark.parametrize("fields", [{"apparmor": UNCONFINED}, {"apparmor_profile": "unconfined"}])
def test_none_at_all(pods: Pods, sandbox: str, fields: dict[str, Any]) -> None:
    container = pods.container(sandbox, **security(**fields))
    assert pods.exec(container, *CURRENT).stdout.decode().strip() == "unconfined"


def test_what_it_forbids_who_is_otherwise_free_to(pods: Pods, sandbox: str) -> None:
    """Nothing is masked or read-only, and mounts may be made; the kernel's settings and mounts stay as they are."""
    script = """
    mkdir -p /place
    try() { "$@" > /out 2>&1 && echo done; grep -o -i 'permission denied' /out; true; }
    try mount -t tmpfs none /place
    try cat /proc/sys/kernel/domainname
    try sh -c 'echo x > /proc/sys/kernel/domainname'
    sleep 100 & try kill $!
    """
    seen = pods.output(sandbox, "sh", "-c", script, **security(apparmor=DEFAULT, capabilities=FREE))
    assert seen.lower().splitlines() == ["permission denied", "done", "permission denied", "done"]


def test_it_is_stopped_by_its_own_signal(pods: Pods, sandbox: str) -> None:
    script = "trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    container = pods.container(sandbox, "sh", "-c", script, **security(apparmor=DEFAULT))
    await_true(lambda: "up" in pods.log(container), "its first word")
    pods.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=60))
    assert pods.log(container) == "up\ntold\n"


def test_a_privileged_container_is_unconfined(pods: Pods) -> None:
    context = cri.LinuxSandboxSecurityContext(privileged=True)
    made = pods.run(linux=cri.LinuxPodSandboxConfig(security_context=context))
    container = pods.container(made, **security(apparmor=DEFAULT, privileged=True))
    assert pods.exec(container, *CURRENT).stdout.decode().strip() == "unconfined"
