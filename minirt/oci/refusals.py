"""What a spec may say and this version does not do: refused by its place in config.json, or left out with a warning.

What says nothing (an empty value, a default) passes: others write such without being asked.
"""

from collections.abc import Iterator

from minirt.errors import InvalidInput, Unsupported
from minirt.oci.hooks import Hooks
from minirt.oci.spec import Spec

ELSEWHERE = "it is for another platform"


def check(spec: Spec) -> None:
    """Refuse what is not offered.

    Raises:
        InvalidInput: the spec is of a version that does not exist yet.
        Unsupported: the first field that asks for something this version does not do.
    """
    if not spec.oci_version.startswith("1."):
        why = f"its ociVersion is {spec.oci_version!r}"
        raise InvalidInput("use the spec", why, "minirt knows the runtime specification's versions 1.x")
    for field, asked, why in _asked(spec):
        if asked:
            raise Unsupported(f"use {field}", why, "leave it out")
    _check_hooks(spec.hooks)


def _check_hooks(hooks: Hooks) -> None:
    """Refuse a hook that would be looked for: of all, even of those that nobody would run before the end."""
    for moment in hooks.__struct_fields__:
        for index, hook in enumerate(getattr(hooks, moment)):
            if not hook.path.startswith("/"):
                first, *rest = moment.split("_")
                field = f"hooks.{first}{''.join(map(str.title, rest))}[{index}].path"
                raise InvalidInput(f"use {field} {hook.path!r}", "it is not absolute", "begin it with /")


def _asked(spec: Spec) -> Iterator[tuple[str, object, str]]:
    """Yield (place, what is asked for, why it is not done)."""
    linux, process = spec.linux, spec.process
    for name in ("solaris", "windows", "vm", "zos"):
        yield name, getattr(spec, name) is not None, ELSEWHERE
    yield "process.commandLine", process.command_line, ELSEWHERE
    yield "process.user.username", process.user.username, ELSEWHERE
    yield "linux.intelRdt", linux.intel_rdt is not None, "minirt keeps away from the resctrl file system"
    yield "linux.netDevices", linux.net_devices, "minirt moves no network device of the host's"
    yield "linux.memoryPolicy", linux.memory_policy is not None, "minirt sets no NUMA memory policy"
    if linux.seccomp and not linux.seccomp.listener_path:
        why = "it is for who listens at linux.seccomp.listenerPath, which is empty"
        yield "linux.seccomp.listenerMetadata", linux.seccomp.listener_metadata, why
    if linux.personality:
        yield "linux.personality.flags", linux.personality.flags, "the specification defines none yet"


def warnings(spec: Spec) -> Iterator[str]:
    """Yield what is left out or read differently, in words for who starts the container."""
    if spec.linux.mount_label:
        yield f"linux.mountLabel {spec.linux.mount_label} is ignored: minirt labels no mounts"
    for index, mount in enumerate(spec.mounts):
        if not mount.destination.startswith("/"):
            yield f"mounts[{index}].destination {mount.destination} is relative: it is taken from the container's /"
