"""Limits of a container changed in place: all of them, or none.

What is asked for is laid over what there is; 0 and "" leave a limit as it was. The files of a running container's
cgroup are written at once; one that has not been started gets its limits when it is.
"""

import contextlib

from msgspec import structs

from minirt import paths
from minirt.cgroups import stats
from minirt.cgroups import tree as cgroup_tree
from minirt.cgroups.limits import Weight, limits, linear, quadratic
from minirt.cgroups.resources import Cpu, HugepageLimit, Memory, Resources
from minirt.engine import store
from minirt.engine.records import ContainerRecord, SandboxRecord
from minirt.errors import Conflict, StepFailed
from minirt.linux import fds
from minirt.oci import spec as specs


def laid_over(asked: Resources, before: Resources) -> Resources:
    """Return ``before`` with all that ``asked`` gives in its place."""
    pages = {page.page_size: page for page in (*before.hugepage_limits, *asked.hugepage_limits)}
    return structs.replace(
        before,
        cpu=_merged(asked.cpu, before.cpu, Cpu()),
        memory=_merged_memory(asked.memory, before.memory),
        hugepage_limits=tuple(HugepageLimit(page.page_size, page.limit) for page in pages.values()),
        unified=before.unified | asked.unified,
    )


def _merged(asked: Cpu | None, before: Cpu | None, none: Cpu) -> Cpu | None:
    if asked is None or before is None:
        return asked or before
    given = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return structs.replace(before, **{name: value for name, value in given.items() if value != getattr(none, name)})


def _merged_memory(asked: Memory | None, before: Memory | None) -> Memory | None:
    if asked is None or before is None:
        return asked or before
    return structs.replace(
        before,
        limit=before.limit if asked.limit is None else asked.limit,
        swap=before.swap if asked.swap is None else asked.swap,
    )


def update(record: ContainerRecord, resources: Resources, *, running: bool) -> ContainerRecord:
    """Give a container its new limits; the sandbox's lock must be held. Return its record.

    Raises:
        Conflict: it uses more memory than it may from now on.
        InvalidInput: limits that contradict each other.
        StepFailed: the kernel refused one; then all are as they were.
    """
    if running:
        cgroup = cgroup_tree.find().at(record.cgroup)
        _check_memory(record, resources, cgroup)
        _write(cgroup, resources)
    directory = paths.container_dir(record.id)
    spec = specs.load(directory / "config.json")
    kept = structs.replace(resources, devices=spec.linux.resources.devices)
    specs.save(structs.replace(spec, linux=structs.replace(spec.linux, resources=kept)), directory / "config.json")
    record = structs.replace(record, config=structs.replace(record.config, resources=resources))
    store.save(record)
    return record


def update_sandbox(record: SandboxRecord, resources: Resources) -> None:
    """Give a ready sandbox's cgroup its new limits; the sandbox's lock must be held.

    Raises:
        InvalidInput: limits that contradict each other.
        StepFailed: the kernel refused one; then all are as they were.
    """
    _write(cgroup_tree.find().at(record.config.cgroup), resources, linear)
    store.save(structs.replace(record, config=structs.replace(record.config, resources=resources)))


def _check_memory(record: ContainerRecord, resources: Resources, cgroup: str) -> None:
    """Refuse a limit that the kernel could only keep by killing. Raises Conflict."""
    limit = resources.memory.limit if resources.memory else None
    used = stats.usage(cgroup).working_set_bytes
    if limit and used is not None and 0 < limit < used:
        why = f"it uses {used} bytes, and would be killed"
        raise Conflict(f"limit memory of {record.config.name} to {limit} bytes", why, "give it more, or stop it first")


def _write(cgroup: str, resources: Resources, weight: Weight = quadratic) -> None:
    """Write the limits into a cgroup, and undo that if one is refused."""
    with contextlib.ExitStack() as undo:
        for setting in limits(resources, weight):
            file = f"{cgroup}/{setting.file}"
            try:
                with open(file) as opened:
                    before = opened.read().strip()
                if before != setting.value:
                    fds.write_file(file, setting.value)
                    undo.callback(_put_back, file, before)
            except OSError as error:
                do = f"does this machine give its cgroups the {setting.controller or 'cgroup'} controller?"
                raise StepFailed.from_os_error(f"write {setting.value} to {file}", error, do=do) from error
        undo.pop_all()


def _put_back(file: str, before: str) -> None:
    with contextlib.suppress(OSError):  # it was so a moment ago; the cgroup may have gone meanwhile
        fds.write_file(file, before)
