"""docker's words for what a container may do, read."""

import pytest

from minirt.cli import confinement, userns
from minirt.cli.confinement import NO_LIMIT
from minirt.engine.records import Tmpfs
from minirt.errors import InvalidInput
from minirt.oci.spec import Rlimit

PLAIN = {"userns": "", "uidmap": (), "gidmap": (), "subuidname": "", "subgidname": ""}


def test_a_tmpfs_has_defaults_that_its_own_options_come_after() -> None:
    assert confinement.tmpfs(("/a", "/b/../c:size=1m,exec")) == (
        Tmpfs("/a", ("noexec", "nosuid", "nodev")),
        Tmpfs("/c", ("noexec", "nosuid", "nodev", "size=1m", "exec")),
    )


def test_the_last_limit_of_a_name_counts() -> None:
    assert confinement.ulimits(("nofile=1", "core=5:-1", "nofile=2:3")) == (
        Rlimit("RLIMIT_NOFILE", 2, 3),
        Rlimit("RLIMIT_CORE", 5, NO_LIMIT),
    )


def test_sysctls_come_after_dockers_defaults() -> None:
    found = confinement.sysctls(("net/core/somaxconn=1", "net.ipv4.ping_group_range=1 0"), "none", "private")
    assert found == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "1 0",
        "net.core.somaxconn": "1",
    }
    assert confinement.sysctls((), "host", "private") == {}
    assert "net.ipv4.ping_group_range" not in confinement.sysctls((), "none", "private", host_users=False)


def test_the_last_security_option_of_a_kind_counts() -> None:
    found = confinement.security(
        ("seccomp=unconfined", "apparmor=a", "apparmor:b", "no-new-privileges", "label=disable")
    )
    assert (found.seccomp, found.apparmor, found.no_new_privileges, found.masks) == ("unconfined", "b", True, True)
    assert not confinement.security(("systempaths=unconfined",)).masks


@pytest.mark.parametrize("text", ["a", "/", "//", "/x/..", "/x:bogus", "/x:size", "/x:size=", "/x:bind", "/x:=1"])
def test_what_no_tmpfs_has(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^cannot use the tmpfs"):
        confinement.tmpfs((text,))


@pytest.mark.parametrize("text", ["", "nofile", "nofile=", "nofile=x", "nofile=1:", "nofile=2:1", "x=1", "nofile=-2"])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^cannot use the ulimit"):
        confinement.ulimits((text,))


@pytest.mark.parametrize("text", ["", "=1", "net.x", "kernel.panic=1", "kernel.hostname=x", "vm.x=1", "net=1", "sem=1"])
def test_what_is_no_sysctl_of_a_containers(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^cannot set the sysctl"):
        confinement.sysctls((text,), "none", "private")


@pytest.mark.parametrize(("key", "network", "ipc"), [("net.x", "host", "private"), ("kernel.sem", "none", "host")])
def test_sysctls_of_the_hosts_namespaces(key: str, network: str, ipc: str) -> None:
    with pytest.raises(InvalidInput, match="not allowed with the host's"):
        confinement.sysctls((f"{key}=1",), network, ipc)


@pytest.mark.parametrize(
    "text", ["", "seccomp", "seccomp=", "no-new-privileges=x", "apparmor=", "systempaths=x", "label=x"]
)
def test_what_is_no_security_option(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^cannot use the security option"):
        confinement.security((text,))


def test_maps_of_users_are_for_groups_as_well_where_these_have_none() -> None:
    line = ((0, 1000, 5),)
    assert userns.read(PLAIN | {"uidmap": ("0:1000:5",)}).gid_map == line
    both = userns.read(PLAIN | {"uidmap": ("0:1000:5",), "gidmap": ("0:7", "1:9:2")})
    assert (both.uid_map, both.gid_map) == (line, ((0, 7, 1), (1, 9, 2)))
    assert userns.read(PLAIN | {"userns": "auto"}).uid_map == ()


@pytest.mark.parametrize(
    "words",
    [{"userns": "x"}, {"userns": "host", "uidmap": ("0:1:1",)}, {"uidmap": ("0:1:1",), "subuidname": "x"}],
)
def test_flags_of_a_user_namespace_that_make_no_sense(words: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        userns.read(PLAIN | words)
