"""The plan: everything that starting a container will do, in order, as data.

    shim   make the container's cgroup, write its limits
    stage  (only to join a PID namespace, to set clocks, or for a user namespace) setns, unshare: they take effect in
           the next child
    clone3 into the cgroup, with the new namespaces
    init   join the pod's namespaces, build the root, pivot, give up rights, wait at the gate, execve

The same object is printed by ``--dry-run`` and executed by the shim.
"""

from collections.abc import Iterator

from msgspec import Struct

from minirt.linux.operation import Operation
from minirt.namespaces.idmap import Map
from minirt.namespaces.kinds import CLONE_NAMES, FLAGS, JoinNamespace, OffsetClocks
from minirt.oci.init import Init
from minirt.security.seccomp import Filter


class Plan(Struct, frozen=True):
    """What to do, stage by stage. ``cgroup`` is the absolute path of the container's cgroup ("" for none).

    ``warnings`` are for who starts it: what was asked for is left out, and it runs all the same.
    ``filter`` is the container's seccomp filter: ``inside`` loads it, and so will every process executed later.
    ``uid_map`` and ``gid_map`` are those of a new user namespace: (id inside, id outside, how many).
    """

    command: str
    cgroup: str
    shim: tuple[Operation[object], ...]
    stage: tuple[Operation[Init], ...]
    new: tuple[str, ...]
    inside: tuple[Operation[Init], ...]
    warnings: tuple[str, ...] = ()
    filter: Filter | None = None
    uid_map: Map = ()
    gid_map: Map = ()

    @property
    def has_clocks(self) -> bool:
        """Say whether the container is in a time namespace that is not the host's."""
        operations = (*self.stage, *self.inside)
        joined = any(isinstance(one, JoinNamespace) and one.kind == "time" for one in operations)
        return joined or "time" in self.new or any(isinstance(one, OffsetClocks) for one in operations)

    @property
    def has_user(self) -> bool:
        """Say whether the container is in a user namespace that is not the host's."""
        joined = any(isinstance(one, JoinNamespace) and one.kind == "user" for one in self.stage)
        return joined or "user" in self.new

    @property
    def clone_flags(self) -> int:
        """Return the CLONE_NEW* flags of the namespaces to be made."""
        return sum(FLAGS[kind] for kind in self.new)

    def describe_clone(self) -> str:
        """Return the clone3 in words."""
        flags = [CLONE_NAMES[kind] for kind in self.new]
        flags += ["CLONE_PARENT"] if self.stage else []
        flags += ["CLONE_INTO_CGROUP"] if self.cgroup else []
        return "clone3 " + "|".join([*flags, "CLONE_PIDFD"])

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield (stage, description) of every operation in order."""
        yield from (("shim", operation.describe()) for operation in self.shim)
        yield from (("stage", operation.describe()) for operation in self.stage)
        yield "stage" if self.stage else "shim", self.describe_clone()
        for name, lines in (("uid_map", self.uid_map), ("gid_map", self.gid_map)):
            yield from (("shim", f"write {inside} {outside} {size} to {name}") for inside, outside, size in lines)
        yield from (("init", operation.describe()) for operation in self.inside)
