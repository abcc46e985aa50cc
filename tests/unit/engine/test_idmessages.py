import pytest

from minirt.crimessages import api_pb2 as cri
from minirt.engine import idmessages, messages
from minirt.engine.records import SandboxConfig, SandboxRecord
from minirt.errors import InvalidInput, Unsupported

LINES = ((0, 100_000, 65_536),)
NAMED = cri.PodSandboxMetadata(name="a", uid="a", namespace="default")
OWN = idmessages.of_maps(LINES, ((0, 200_000, 65_536),))


def asked(users: cri.UserNamespace) -> cri.PodSandboxConfig:
    """Return a sandbox's configuration with this user namespace."""
    context = cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(userns_options=users))
    return cri.PodSandboxConfig(metadata=NAMED, linux=cri.LinuxPodSandboxConfig(security_context=context))


def test_a_pods_maps_are_those_that_are_asked_for() -> None:
    made = messages.sandbox_config(asked(OWN), "cri")
    assert (made.uid_map, made.gid_map) == (LINES, ((0, 200_000, 65_536),))


def test_the_hosts_has_none() -> None:
    made = messages.sandbox_config(asked(cri.UserNamespace(mode=cri.NamespaceMode.NODE)), "cri")
    assert made.uid_map == messages.sandbox_config(cri.PodSandboxConfig(metadata=NAMED), "cri").uid_map == ()


def test_its_status_tells_of_them() -> None:
    config = SandboxConfig("a", "a", uid_map=LINES, gid_map=((0, 200_000, 65_536),))
    status = messages.sandbox_status(SandboxRecord("a", config, "", "ready", 0), ready=True)
    assert status.linux.namespaces.options.userns_options == OWN
    plain = SandboxRecord("a", SandboxConfig("a", "a"), "", "ready", 0)
    assert not messages.sandbox_status(plain, ready=True).linux.namespaces.options.HasField("userns_options")


@pytest.mark.parametrize(
    ("users", "why"),
    [
        (cri.UserNamespace(mode=cri.NamespaceMode.POD), "uids: it has no line for id 0"),
        (idmessages.of_maps(LINES, ((0, 1, 0),)), "gids: 0:1:0 maps no id"),
        (idmessages.of_maps(((0, 1, 2), (1, 7, 1)), LINES), "uids: .* overlap inside"),
    ],
)
def test_maps_that_make_no_sense_are_an_error(users: cri.UserNamespace, why: str) -> None:
    with pytest.raises(InvalidInput, match=rf"userns_options\.{why}"):
        messages.sandbox_config(asked(users), "cri")


def test_a_containers_own_is_not_offered() -> None:
    with pytest.raises(Unsupported, match="neither NODE nor POD"):
        messages.sandbox_config(asked(cri.UserNamespace(mode=cri.NamespaceMode.CONTAINER)), "cri")
