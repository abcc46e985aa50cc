from typing import Any

import pytest

from minirt.errors import InvalidInput
from minirt.linux.operation import Operation
from minirt.namespaces.kinds import JoinNamespace, SetHostname
from minirt.namespaces.sysctl import WriteSysctl
from minirt.oci.init import Undumpable
from minirt.oci.userns import AwaitMaps, BecomeRoot
from minirt.pod.pause import Pause
from minirt.pod.sandbox import LinkUp, MountShm, Pin, Plan, Unshare, pin_path

PLAN = Plan("/run/s", ("network", "uts", "ipc"), "box", "")


@pytest.mark.parametrize(
    ("operation", "line"),
    [
        (Unshare(("network", "uts")), "unshare CLONE_NEWNET|CLONE_NEWUTS"),
        (LinkUp("lo"), "ip link set lo up"),
        (Pin("network", "/run/s/ns/net"), "mount --bind /proc/self/ns/net /run/s/ns/net"),
        (Pin("pid", "/run/s/ns/pid", 12), "mount --bind /proc/12/ns/pid /run/s/ns/pid"),
        (MountShm("/run/s/shm", 65536), "mount -t tmpfs /run/s/shm -o mode=1777,size=65536,nosuid,nodev,noexec"),
        (
            Pause("/run/s/ns", 40),
            "pivot_root into an empty read-only tmpfs, drop every capability, not dumpable, wait for children",
        ),
    ],
)
def test_described_in_the_kernels_words(operation: Operation[Any], line: str) -> None:
    assert operation.describe() == line
    assert operation.because == ""


def test_pins_have_the_names_of_proc() -> None:
    assert pin_path("/run/s", "network") == "/run/s/ns/net"
    assert pin_path("/run/s", "uts") == "/run/s/ns/uts"


def test_the_keeper_names_and_pins_what_it_has_made() -> None:
    assert PLAN.keeper() == [
        Unshare(("network", "uts", "ipc")),
        SetHostname("box"),
        LinkUp("lo"),
        Pin("network", "/run/s/ns/net"),
        Pin("uts", "/run/s/ns/uts"),
        Pin("ipc", "/run/s/ns/ipc"),
    ]


def test_the_hosts_network_and_name_stay_as_they_are() -> None:
    kinds = [type(one) for one in Plan("/run/s", ("ipc",), "box", "").keeper()]
    assert kinds == [Unshare, Pin]


def test_sysctls_are_written_before_anything_is_pinned() -> None:
    plan = Plan("/run/s", ("network",), "", "", sysctls={"net.core.somaxconn": "9"})
    assert [type(one) for one in plan.keeper()] == [Unshare, LinkUp, WriteSysctl, Pin]


def test_sysctls_of_the_host_are_refused() -> None:
    with pytest.raises(InvalidInput, match="ipc namespace"):
        Plan("/run/s", ("network",), "", "", sysctls={"kernel.sem": "1"}).keeper()


def test_pause_joins_first_and_gives_up_last() -> None:
    plan = Plan("/run/s", ("network", "ipc"), "box", "", share_pid=True, last_cap=40)
    assert plan.pause() == [
        JoinNamespace("network", "/run/s/ns/net"),
        JoinNamespace("ipc", "/run/s/ns/ipc"),
        Pause("/run/s/ns", 40),
    ]
    assert PLAN.pause() == []


MAPPED = Plan("/run/s", ("network", "ipc"), "box", "", True, 1, 40, uid_map=((0, 1000, 9),), gid_map=((0, 2000, 9),))


def test_in_a_user_namespace_the_keeper_becomes_its_root_and_the_shim_pins() -> None:
    kinds = [type(one) for one in MAPPED.keeper()]
    assert kinds == [Undumpable, AwaitMaps, BecomeRoot, Unshare, LinkUp]
    assert MAPPED.pins(7) == [
        Pin("user", "/run/s/ns/user", 7),
        Pin("network", "/run/s/ns/net", 7),
        Pin("ipc", "/run/s/ns/ipc", 7),
    ]


def test_pause_is_cloned_into_it() -> None:
    assert MAPPED.to_pause() == [Undumpable(), JoinNamespace("user", "/run/s/ns/user")]
    assert MAPPED.pause()[-1] == Pause("/run/s/ns", 40, mapped=True)
    assert PLAN.to_pause() == []


def test_its_shared_memory_is_its_roots() -> None:
    assert MAPPED.outside() == [MountShm("/run/s/shm", 1, 1000, 2000)]
    assert MAPPED.outside()[0].describe().endswith("mode=1777,size=1,uid=1000,gid=2000,nosuid,nodev,noexec")


def test_the_shims_own_part() -> None:
    assert PLAN.outside() == []
    assert Plan("/run/s", (), "", "", shm_bytes=1).outside() == [MountShm("/run/s/shm", 1)]
