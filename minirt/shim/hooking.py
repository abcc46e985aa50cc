"""The one hook that a shim's containers have: createContainer, which devices (CDI) need.

It runs in init, when all is mounted and the host's files are still in sight.
"""

import os

import msgspec
from msgspec import structs

from minirt.errors import Unsupported
from minirt.linux.operation import Operation
from minirt.namespaces.rootfs import PivotRoot, ReadonlyRoot
from minirt.oci import VERSION, hooks
from minirt.oci.hooks import Hook, Hooks
from minirt.oci.init import Init
from minirt.oci.plan import Plan
from minirt.oci.spec import Spec


class RunHooks(Operation[Init], frozen=True):
    """Run a container's createContainer hooks."""

    hooks: tuple[Hook, ...]
    id: str
    bundle: str
    annotations: tuple[tuple[str, str], ...] = ()

    def describe(self) -> str:
        """Return the operation in words."""
        return "run " + ", ".join(hook.path for hook in self.hooks)

    def execute(self, context: Init) -> None:
        """Run them, each with the container's state on its stdin. Raises StepFailed: one failed."""
        state = {
            "ociVersion": VERSION,
            "id": self.id,
            "status": "creating",
            "pid": int(os.readlink("/proc/self")),  # as the host has it: init is 1 to itself
            "bundle": self.bundle,
            "annotations": dict(self.annotations),
        }
        hooks.run("createContainer", self.hooks, msgspec.json.encode(state).decode())


def with_hooks(plan: Plan, spec: Spec, container_id: str, bundle: str) -> Plan:
    """Return a plan that runs the spec's createContainer hooks. Raises Unsupported: it has others, too."""
    own = spec.hooks.create_container
    if spec.hooks != Hooks(create_container=own):
        why = "a shim runs createContainer hooks only"
        raise Unsupported("use the spec", why, "leave the others out, or use minirt-oci")
    if not own:
        return plan
    run = RunHooks(own, container_id, bundle, tuple(spec.annotations.items()))
    at = next(index for index, one in enumerate(plan.inside) if isinstance(one, ReadonlyRoot | PivotRoot))
    return structs.replace(plan, inside=(*plan.inside[:at], run, *plan.inside[at:]))
