"""Where a sandbox's cgroup is, by what its caller names as the parent; and signals, profiles, ports in messages."""

from pathlib import Path

import pytest

from minirt.cgroups import tree
from minirt.cgroups.resources import Cpu, Memory
from minirt.crimessages import api_pb2 as cri
from minirt.engine import confinement, messages
from minirt.engine.face import EngineFace
from minirt.engine.records import CRI
from minirt.errors import InvalidInput, Unsupported

PROFILES = cri.SecurityProfile.ProfileType


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree at /cg whose root is /cg/minirt."""
    monkeypatch.setattr(tree, "find", lambda: tree.Tree("/cg", "/cg", "/cg/minirt"))


@pytest.mark.parametrize(
    ("parent", "cgroup"),
    [
        ("", "pod-1"),
        ("/", "pod-1"),
        ("/kubepods/pod7", "/kubepods/pod7/1"),
        ("/kubepods/pod7/", "/kubepods/pod7/1"),
        ("/minirt/pod7", "pod7/1"),
        ("kubepods-burstable-pod7.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice/1"),
        ("/a.slice/b.slice", "/a.slice/b.slice/1"),
    ],
)
def test_a_callers_sandbox_has_a_cgroup_of_its_own_below_the_parent(parent: str, cgroup: str) -> None:
    assert EngineFace(None, CRI)._cgroup(parent, "1") == cgroup


def test_our_own_kubelets_pod_is_its_parent() -> None:
    assert EngineFace(None)._cgroup("minirt/pod7", "1") == "pod7"


@pytest.mark.parametrize(
    ("name", "number"), [("SIGTERM", 15), ("SIGRTMIN", 34), ("SIGRTMINPLUS3", 37), ("SIGRTMAXMINUS1", 63)]
)
def test_signals_are_told_as_they_are_asked_for(name: str, number: int) -> None:
    from minirt.engine import signals

    value = cri.Signal.Value(name)
    assert signals.number_of(messages._signal_name(value)) == number
    assert messages._signal(number) == value


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("", PROFILES.Unconfined, ""),
        ("unconfined", PROFILES.Unconfined, ""),
        ("runtime/default", PROFILES.RuntimeDefault, ""),
        ("docker/default", PROFILES.RuntimeDefault, ""),
        ("localhost//etc/own.json", PROFILES.Localhost, "/etc/own.json"),
    ],
)
def test_seccomps_old_field_says_the_same_in_one_word(text: str, kind: int, path: str) -> None:
    assert confinement.seccomp_of(cri.LinuxContainerSecurityContext(seccomp_profile_path=text)) == (kind, path)


def test_of_the_old_and_the_new_field_the_new_one_counts() -> None:
    context = cri.LinuxContainerSecurityContext(
        seccomp_profile_path="unconfined", seccomp=cri.SecurityProfile(profile_type=PROFILES.RuntimeDefault)
    )
    assert confinement.seccomp_of(context)[0] == PROFILES.RuntimeDefault


def test_an_old_field_of_another_form_is_refused() -> None:
    with pytest.raises(InvalidInput):
        confinement.seccomp_of(cri.LinuxContainerSecurityContext(seccomp_profile_path="own"))


@pytest.mark.parametrize(
    "context",
    [
        cri.LinuxContainerSecurityContext(selinux_options=cri.SELinuxOption(role="r")),
        cri.LinuxContainerSecurityContext(selinux_options=cri.SELinuxOption(level="s0")),
    ],
)
def test_selinux_options_are_refused(context: cri.LinuxContainerSecurityContext) -> None:
    with pytest.raises(Unsupported, match="SELinux"):
        confinement.security(context)


@pytest.mark.parametrize(
    "mount",
    [
        cri.Mount(image=cri.ImageSpec(image="busybox")),
        cri.Mount(container_path="/x", host_path="/tmp", image=cri.ImageSpec(image="busybox")),
        cri.Mount(container_path="/x", host_path="/tmp", uidMappings=[cri.IDMapping(length=1)]),
    ],
)
def test_mounts_that_make_no_sense_are_refused(mount: cri.Mount, tmp_path: Path) -> None:
    config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="x"), mounts=[mount])
    with pytest.raises(InvalidInput):
        messages.container_config(config, str(tmp_path))


@pytest.mark.parametrize(
    ("limits", "overhead", "found"),
    [
        ((100, 20_000, 100_000, 512), (10, 5_000, 50_000, 2), (110, 30_000, 100_000, 514)),
        ((0, 0, 0, 0), (10, 5_000, 50_000, 2), (None, None, None, None)),
        ((100, 0, 0, 2), (0, 0, 0, 0), (100, None, None, 2)),
    ],
)
def test_a_pod_gets_its_overhead_on_top_of_its_limits(
    limits: tuple[int, ...], overhead: tuple[int, ...], found: tuple[int | None, ...]
) -> None:
    names = ("memory_limit_in_bytes", "cpu_quota", "cpu_period", "cpu_shares")
    asked = (cri.LinuxContainerResources(**dict(zip(names, one, strict=True))) for one in (limits, overhead))
    made = messages.pod_resources(*asked)
    cpu, memory = made.cpu or Cpu(), made.memory or Memory()
    assert (memory.limit, cpu.quota, cpu.period, cpu.shares) == found
