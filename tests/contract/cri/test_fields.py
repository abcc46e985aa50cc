"""What a configuration's fields do, seen from inside the container."""

import json
from pathlib import Path
from typing import Any

import pytest

from minirt.crimessages import api_pb2 as cri
from minirt.linux import mount as mounting
from tests.contract.cri.conftest import refused, security
from tests.peers.cri import Pods
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]
PROFILES = cri.SecurityProfile.ProfileType
KINDS = cri.MountPropagation


def value(pods: Pods, sandbox: str, field: str, **fields: Any) -> str:
    """Return a field of /proc/self/status of a container with a configuration."""
    text = pods.output(sandbox, "cat", "/proc/self/status", **fields)
    return next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(field + ":"))


# --- the process


def test_command_and_args(pods: Pods, sandbox: str) -> None:
    assert pods.output(sandbox, "echo", args=["one", "two words"]) == "one two words\n"


def test_environment(pods: Pods, sandbox: str) -> None:
    envs = [cri.KeyValue(key="ONE", value="1"), cri.KeyValue(key="EMPTY", value=""), cri.KeyValue(key="A", value="b=c")]
    seen = pods.output(sandbox, "env", envs=envs).splitlines()
    assert {"ONE=1", "EMPTY=", "A=b=c", "PATH=/bin"} <= set(seen)


def test_the_host_name_is_in_the_environment(pods: Pods, sandbox: str) -> None:
    hostname = pods.configs[sandbox].hostname
    assert f"HOSTNAME={hostname}" in pods.output(sandbox, "env").splitlines()


def test_working_directory(pods: Pods, sandbox: str) -> None:
    assert pods.output(sandbox, "pwd", working_dir="/tmp") == "/tmp\n"


def test_without_a_terminal_there_is_none(pods: Pods, sandbox: str) -> None:
    assert pods.output(sandbox, "sh", "-c", "test -t 1 || echo none") == "none\n"


def test_with_a_terminal_there_is_one_and_one_stream(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "sh", "-c", "test -t 0 && test -t 1 && echo yes; echo err >&2", tty=True)
    lines = Path(pods.ended(container).log_path).read_text().splitlines()
    assert [line.split(" ")[1] for line in lines] == ["stdout", "stdout"]
    assert [line.split(" ", 3)[3].strip() for line in lines] == ["yes", "err"]


def test_standard_input_is_empty_unless_asked_for(pods: Pods, sandbox: str) -> None:
    assert pods.output(sandbox, "sh", "-c", "cat; echo over") == "over\n"


@pytest.mark.parametrize(("name", "number"), [("SIGUSR1", 10), ("SIGINT", 2), ("SIGRTMINPLUS3", 37)])
@pytest.mark.differs("containerd", "1.6 knows no stop signal in the configuration")
def test_a_stop_signal_of_ones_own(pods: Pods, sandbox: str, name: str, number: int) -> None:
    script = f"trap 'echo caught; exit 0' {number}; echo up; while :; do sleep 0.05; done"
    container = pods.container(sandbox, "sh", "-c", script, stop_signal=cri.Signal.Value(name))
    await_true(lambda: "up" in pods.log(container), "its first word")
    pods.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=20))
    assert pods.log(container) == "up\ncaught\n"
    assert pods.status(container).stop_signal == cri.Signal.Value(name)


# --- user and groups


def test_user_and_group_by_number(pods: Pods, sandbox: str) -> None:
    fields = security(run_as_user=cri.Int64Value(value=1234), run_as_group=cri.Int64Value(value=2345))
    assert pods.output(sandbox, "sh", "-c", "id -u; id -g", **fields) == "1234\n2345\n"


def test_a_user_by_name(pods: Pods, sandbox: str) -> None:
    assert pods.output(sandbox, "id", "-u", **security(run_as_username="nobody")) == "65534\n"


def test_a_user_that_the_image_does_not_know_is_refused(pods: Pods, sandbox: str) -> None:
    refused(pods, sandbox, **security(run_as_username="stranger"))


def test_a_group_without_a_user_is_refused(pods: Pods, sandbox: str) -> None:
    refused(pods, sandbox, **security(run_as_group=cri.Int64Value(value=5)))


def test_supplemental_groups_are_given(pods: Pods, sandbox: str) -> None:
    fields = security(run_as_user=cri.Int64Value(value=1234), supplemental_groups=[7777, 8888])
    assert {"7777", "8888"} <= set(value(pods, sandbox, "Groups", **fields).split())


# --- rights


def test_the_default_capabilities_are_dockers(pods: Pods, sandbox: str) -> None:
    assert value(pods, sandbox, "CapBnd", **security()) == "00000000a80425fb"


def test_capabilities_can_be_added_and_dropped(pods: Pods, sandbox: str) -> None:
    wanted = cri.Capability(add_capabilities=["NET_ADMIN"], drop_capabilities=["ALL"])
    assert value(pods, sandbox, "CapEff", **security(capabilities=wanted)) == "0000000000001000"


@pytest.mark.differs("containerd", "1.6 overlooks it")
def test_a_capability_that_is_none_is_refused(pods: Pods, sandbox: str) -> None:
    refused(pods, sandbox, **security(capabilities=cri.Capability(add_capabilities=["FLY"])))


def test_no_new_privs(pods: Pods, sandbox: str) -> None:
    assert value(pods, sandbox, "NoNewPrivs", **security(no_new_privs=True)) == "1"
    assert value(pods, sandbox, "NoNewPrivs", **security()) == "0"


def test_a_read_only_root(pods: Pods, sandbox: str) -> None:
    script = "touch /x 2>/dev/null || echo read-only; touch /dev/shm/x && echo shm"
    assert pods.output(sandbox, "sh", "-c", script, **security(readonly_rootfs=True)) == "read-only\nshm\n"


def test_masked_and_read_only_paths(pods: Pods, sandbox: str) -> None:
    fields = security(masked_paths=["/proc/interrupts", "/proc/irq"], readonly_paths=["/proc/sys"])
    script = (
        "wc -c < /proc/interrupts; ls /proc/irq; echo x 2>/dev/null > /proc/sys/kernel/domainname || echo read-only"
    )
    assert pods.output(sandbox, "sh", "-c", script, **fields) == "0\nread-only\n"


def test_no_paths_given_are_no_paths_masked(pods: Pods, sandbox: str) -> None:
    seen = pods.output(sandbox, "cat", "/proc/self/mountinfo", **security())
    assert "/proc/kcore" not in seen


def test_a_privileged_container_needs_a_privileged_sandbox(pods: Pods, sandbox: str) -> None:
    refused(pods, sandbox, **security(privileged=True))


def test_a_privileged_container_has_all_rights(pods: Pods) -> None:
    context = cri.LinuxSandboxSecurityContext(privileged=True)
    sandbox = pods.run(linux=cri.LinuxPodSandboxConfig(security_context=context))
    fields = security(privileged=True)
    mine = Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
    assert value(pods, sandbox, "CapEff", **fields) == mine
    assert pods.output(sandbox, "sh", "-c", "test -w /proc/sys && test -e /dev/kmsg && echo yes", **fields) == "yes\n"


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, "0"),
        ({"seccomp": cri.SecurityProfile(profile_type=PROFILES.Unconfined)}, "0"),
        ({"seccomp": cri.SecurityProfile(profile_type=PROFILES.RuntimeDefault)}, "2"),
        ({"seccomp_profile_path": "runtime/default"}, "2"),
        ({"seccomp_profile_path": "unconfined"}, "0"),
    ],
)
def test_seccomp_by_type(pods: Pods, sandbox: str, fields: dict[str, Any], mode: str) -> None:
    assert value(pods, sandbox, "Seccomp", **security(**fields)) == mode


def test_seccomp_by_a_profile_of_the_node(pods: Pods, sandbox: str, tmp_path: Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    chosen = cri.SecurityProfile(profile_type=PROFILES.Localhost, localhost_ref=str(profile))
    script = "mkdir /x 2>/dev/null || echo refused"
    assert pods.output(sandbox, "sh", "-c", script, **security(seccomp=chosen)) == "refused\n"


def test_a_seccomp_profile_that_is_not_there_is_refused(pods: Pods, sandbox: str) -> None:
    absent = cri.SecurityProfile(profile_type=PROFILES.Localhost, localhost_ref="/no/such/profile.json")
    refused(pods, sandbox, **security(seccomp=absent))


@pytest.mark.skipif(Path("/sys/module/apparmor").exists(), reason="this kernel has AppArmor")
def test_an_apparmor_profile_without_apparmor_is_refused(pods: Pods, sandbox: str) -> None:
    named = cri.SecurityProfile(profile_type=PROFILES.Localhost, localhost_ref="own")
    refused(pods, sandbox, **security(apparmor=named))
    unconfined = cri.SecurityProfile(profile_type=PROFILES.Unconfined)
    assert pods.output(sandbox, "echo", "yes", **security(apparmor=unconfined)) == "yes\n"


# --- mounts and devices


def test_a_mount_shows_the_hosts_directory_and_is_on_record(pods: Pods, sandbox: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello\n")
    mount = cri.Mount(host_path=str(tmp_path), container_path="/data")
    container = pods.container(sandbox, "sh", "-c", "cat /data/file; echo new > /data/new", mounts=[mount])
    assert list(pods.ended(container).mounts) == [mount]
    assert pods.log(container) == "hello\n"
    assert (tmp_path / "new").read_text() == "new\n"


def test_a_single_file_can_be_mounted(pods: Pods, sandbox: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello\n")
    mount = cri.Mount(host_path=str(tmp_path / "file"), container_path="/etc/own")
    assert pods.output(sandbox, "cat", "/etc/own", mounts=[mount]) == "hello\n"


def test_a_read_only_mount(pods: Pods, sandbox: str, tmp_path: Path) -> None:
    mount = cri.Mount(host_path=str(tmp_path), container_path="/data", readonly=True)
    assert pods.output(sandbox, "sh", "-c", "touch /data/x 2>/dev/null || echo no", mounts=[mount]) == "no\n"


def test_a_symbolic_link_stands_for_what_it_leads_to(pods: Pods, sandbox: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("hello\n")
    (tmp_path / "link").symlink_to("real")
    mount = cri.Mount(host_path=str(tmp_path / "link"), container_path="/data")
    assert pods.output(sandbox, "cat", "/data/file", mounts=[mount]) == "hello\n"


@pytest.mark.differs("containerd", "it makes the directory, though the interface asks for an error")
def test_a_source_that_is_not_there_is_refused(pods: Pods, sandbox: str, tmp_path: Path) -> None:
    refused(pods, sandbox, mounts=[cri.Mount(host_path=str(tmp_path / "absent"), container_path="/data")])


def test_the_inner_of_two_mounts_is_on_top(pods: Pods, sandbox: str, tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name + "\n")
    mounts = [
        cri.Mount(host_path=str(tmp_path / "inner"), container_path="/a/b"),
        cri.Mount(host_path=str(tmp_path / "outer"), container_path="/a"),
    ]
    assert pods.output(sandbox, "cat", "/a/name", "/a/b/name", mounts=mounts) == "outer\ninner\n"


@pytest.fixture
def shared(tmp_path: Path) -> Any:
    """A directory on a shared mount of its own."""
    path = tmp_path / "shared"
    path.mkdir()
    mounting.mount("tmpfs", str(path), "tmpfs", 0)
    mounting.mount(None, str(path), None, mounting.MS_SHARED)
    yield path
    mounting.umount2(str(path), mounting.MNT_DETACH)


@pytest.mark.parametrize(
    ("kind", "seen"),
    [(KINDS.PROPAGATION_PRIVATE, "no"), (KINDS.PROPAGATION_HOST_TO_CONTAINER, "yes")],
)
def test_what_the_host_mounts_later(pods: Pods, sandbox: str, shared: Path, kind: Any, seen: str) -> None:
    (shared / "later").mkdir()
    mount = cri.Mount(host_path=str(shared), container_path="/data", propagation=kind)
    container = pods.container(sandbox, mounts=[mount])
    mounting.mount("tmpfs", str(shared / "later"), "tmpfs", 0)
    (shared / "later/file").touch()
    found = pods.exec(container, "sh", "-c", "test -e /data/later/file && echo yes || echo no").stdout.decode().strip()
    mounting.umount2(str(shared / "later"), mounting.MNT_DETACH)
    assert found == seen


def test_what_a_container_mounts_reaches_the_host_if_asked_for(pods: Pods, shared: Path) -> None:
    context = cri.LinuxSandboxSecurityContext(privileged=True)
    sandbox = pods.run(linux=cri.LinuxPodSandboxConfig(security_context=context))
    mount = cri.Mount(host_path=str(shared), container_path="/data", propagation=KINDS.PROPAGATION_BIDIRECTIONAL)
    script = "mkdir /data/mine && mount -t tmpfs mine /data/mine && touch /data/mine/file && sleep 1000"
    pods.container(sandbox, "sh", "-c", script, mounts=[mount], **security(privileged=True))
    await_true((shared / "mine/file").exists, "the container's mount")
    mounting.umount2(str(shared / "mine"), mounting.MNT_DETACH)


@pytest.mark.differs("containerd", "1.6 knows no recursively read-only mounts")
def test_a_recursively_read_only_mount(pods: Pods, sandbox: str, shared: Path) -> None:
    (shared / "below").mkdir()
    mounting.mount("tmpfs", str(shared / "below"), "tmpfs", 0)
    script = "touch /data/below/x 2>/dev/null && echo written || echo read-only"
    try:
        for recursive, seen in ((True, "read-only\n"), (False, "written\n")):
            mount = cri.Mount(
                host_path=str(shared), container_path="/data", readonly=True, recursive_read_only=recursive
            )
            assert pods.output(sandbox, "sh", "-c", script, mounts=[mount]) == seen
    finally:
        mounting.umount2(str(shared / "below"), mounting.MNT_DETACH)


@pytest.mark.differs("containerd", "1.6 knows no recursively read-only mounts")
@pytest.mark.parametrize("fields", [{}, {"readonly": True, "propagation": KINDS.PROPAGATION_HOST_TO_CONTAINER}])
def test_recursively_read_only_needs_read_only_and_private(
    pods: Pods, sandbox: str, tmp_path: Path, fields: dict[str, Any]
) -> None:
    mount = cri.Mount(host_path=str(tmp_path), container_path="/data", recursive_read_only=True, **fields)
    refused(pods, sandbox, mounts=[mount])


def test_a_device(pods: Pods, sandbox: str) -> None:
    device = cri.Device(host_path="/dev/fuse", container_path="/dev/own", permissions="rw")
    if not Path(device.host_path).exists():
        pytest.skip("/dev/fuse: this machine has none")
    seen = pods.output(sandbox, "stat", "-c", "%t:%T %F", "/dev/own", devices=[device])
    assert seen == "a:e5 character special file\n"


def test_a_device_that_is_not_there_is_refused(pods: Pods, sandbox: str) -> None:
    refused(pods, sandbox, devices=[cri.Device(host_path="/dev/no-such", container_path="/dev/x", permissions="r")])


# --- what a status tells


@pytest.mark.differs("containerd", "1.6 does not tell")
def test_a_status_tells_the_user(pods: Pods, sandbox: str) -> None:
    fields = security(
        run_as_user=cri.Int64Value(value=12), run_as_group=cri.Int64Value(value=34), supplemental_groups=[56]
    )
    found = pods.status(pods.container(sandbox, **fields)).user.linux
    assert (found.uid, found.gid) == (12, 34)
    assert set(found.supplemental_groups) == {34, 56}
