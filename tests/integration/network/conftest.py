"""A host of its own for every test, sandboxes to attach to it, and an outside world."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from minirt.network import bridge
from minirt.network.bridge import Attachment
from minirt.network.settings import BridgeSettings, PortMapping
from tests.command import Minirt
from tests.integration.network.topology import Namespace


class Host(Namespace):
    """The test's own host. Inside it, sandboxes are attached as the shim would."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def sandbox(self) -> Namespace:
        return self._stack.enter_context(Namespace())

    def attach(
        self,
        name: str,
        sandbox: Namespace,
        *ports: PortMapping,
        settings: BridgeSettings | None = None,
        ipv6: bool = True,
    ) -> Attachment:
        with sandbox.netlink() as inner, self.inside():
            return bridge.attach(name, sandbox.path, inner, settings, ports, ipv6=ipv6)

    def detach(self, name: str) -> None:
        with self.inside():
            bridge.detach(name)

    def prune(self, *live: str) -> list[str]:
        with self.inside():
            return bridge.prune(set(live))


@pytest.fixture
def host(minirt: Minirt) -> Iterator[Host]:
    with ExitStack() as stack:
        own = stack.enter_context(Host(stack))
        stack.callback(own.prune)
        yield own


@pytest.fixture
def outside(host: Host) -> Iterator[Namespace]:
    """A machine at 203.0.113.2 and 2001:db8::2, on the host's network, that knows no route back to pods."""
    with Namespace() as world:
        host.run(
            f"ip link add eth0 type veth peer name eth0 netns {world.path}",
            "ip address add 203.0.113.1/24 dev eth0",
            "ip link set eth0 up",
            "ip address add 2001:db8::1/64 dev eth0 nodad",
            "ip route add default via 203.0.113.2",
        )
        world.run(
            "ip address add 203.0.113.2/24 dev eth0",
            "ip link set eth0 up",
            "ip address add 2001:db8::2/64 dev eth0 nodad",
        )
        yield world
