"""Each operation has a unit test: it is made, by its name, in a file below tests/unit.

Those of the network are made by its compiler; tests/unit/network compares each line of what that gives.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import minirt
from minirt.linux.operation import Operation
from minirt.network.plan import plan_attach
from minirt.network.settings import BridgeSettings, PortMapping

UNIT = Path(__file__).parents[1]
ROOMS = ("cgroups", "namespaces", "network", "oci", "pod", "security", "shim")


def operations() -> Iterator[type]:
    """Yield every class of operation that minirt has."""
    for room in ROOMS:
        for module in pkgutil.walk_packages([f"{minirt.__path__[0]}/{room}"], f"minirt.{room}."):
            importlib.import_module(module.name)
    waiting = list(Operation.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        yield kind


def test_each_is_made_in_a_test() -> None:
    tests = "".join(path.read_text() for path in UNIT.rglob("test_*.py") if path != Path(__file__))
    attach = plan_attach("pod", IPv4Interface("10.0.0.2/16"), BridgeSettings(), [PortMapping(80, 80)])
    compiled = {type(operation) for operation in attach}
    kinds = [kind for kind in operations() if kind.__module__.startswith("minirt.")]
    assert len(kinds) > 40
    assert [kind.__name__ for kind in kinds if f"{kind.__name__}(" not in tests and kind not in compiled] == []
