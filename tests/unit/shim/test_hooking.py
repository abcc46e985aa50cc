"""createContainer hooks in the plan of a shim's container."""

from typing import Any

import msgspec
import pytest

from minirt.errors import Unsupported
from minirt.namespaces.rootfs import ReadonlyRoot
from minirt.oci.hooks import Hook
from minirt.oci.plan import Plan
from minirt.oci.spec import Spec
from minirt.shim.hooking import RunHooks, with_hooks
from tests.unit.oci.plans import compiled

HOOK = Hook("/bin/hook")


def hooked(**hooks: Any) -> Plan:
    """Return a plan with the hooks of a spec."""
    top = {"ociVersion": "1.2.0", "process": {"args": ["x"]}, "root": {"path": "rootfs"}}
    spec = msgspec.convert(top | {"hooks": hooks}, Spec)
    return with_hooks(compiled(), spec, "id", "/bundle")


def test_they_run_when_all_is_mounted() -> None:
    inside = hooked(createContainer=[{"path": "/bin/hook"}]).inside
    at = [type(one) for one in inside].index(ReadonlyRoot)
    assert inside[at - 1] == RunHooks((HOOK,), "id", "/bundle")
    assert inside[at - 1].describe() == "run /bin/hook"


def test_without_any_the_plan_is_as_it_was() -> None:
    assert hooked() == compiled()


def test_others_are_refused() -> None:
    with pytest.raises(Unsupported):
        hooked(poststop=[{"path": "/bin/hook"}])
