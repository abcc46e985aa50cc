"""The spec of an ordinary container, for the zygote of a server to rehearse with (shim/rehearsal.py)."""

import msgspec

from minirt import paths
from minirt.engine.compile import compile_container
from minirt.engine.records import ContainerConfig, SandboxConfig, SandboxRecord
from minirt.engine.users import Identity
from minirt.images.image import ImageConfig
from minirt.security import seccomp
from minirt.security.capabilities import held_here


def spec() -> bytes:
    """Return it as JSON; its filter is compiled, and where all processes find it. Raises MinirtError."""
    sandbox = SandboxRecord("example", SandboxConfig("example", "example"), paths.boot_id(), "ready", 0)
    config = ContainerConfig("example", "example", command=("/bin/true",))
    made = compile_container(config, "example", sandbox, ImageConfig(), Identity(0, 0, (), "/"), held_here())
    seccomp.filter_of(made.linux.seccomp)
    return msgspec.json.encode(made)
