"""Containers: the engine's lower floor, on OCI specs. ``minirt run`` and the pod face both stand on it.

    create   layer, spec, record        nothing of the kernel's yet: state "created"
    start    shim: cgroup, clone3, gate, execve
    stop     stop signal, grace, cgroup.kill
    remove   kill if told to, then layer, record, name

A container's state is what its status file says, checked against the process itself (see ``status``).
"""

import contextlib
import os
import time

from msgspec import structs

from minirt import paths
from minirt.cgroups import lifecycle
from minirt.cgroups import tree as cgroup_tree
from minirt.engine import handlers, idranges, imagevolumes, leftovers, shims, signals, store, users
from minirt.engine.compile import compile_container
from minirt.engine.devices import host_devices
from minirt.engine.records import ContainerConfig, ContainerRecord, SandboxRecord
from minirt.errors import Conflict, MinirtError, ShimError, raised_as_step
from minirt.images.image import Image
from minirt.images.snapshots import Overlay, Snapshots
from minirt.oci import spec as specs
from minirt.oci.spec import Spec
from minirt.oci.userns import lines
from minirt.security import seccomp
from minirt.security.capabilities import held_here
from minirt.security.labels import DEFAULT_PROFILE
from minirt.shim import protocol
from minirt.shim import status as statuses
from minirt.shim.client import ShimClient
from minirt.shim.status import UNKNOWN_CODE, Status

CREATED = Status(state="created")
CAUSE = "minirt.io/yaml"
"""The annotation that says which field of the user's YAML a container comes from."""


def create(sandbox: SandboxRecord, config: ContainerConfig, image: Image, container_id: str) -> ContainerRecord:
    """Make a container of a sandbox, ready to be started; on any failure nothing of it is left.

    Raises:
        Conflict: the sandbox is not ready.
        InvalidInput: a user the image does not know, nothing to execute, capabilities or a seccomp profile that make
            no sense.
        Unsupported: a seccomp profile that cannot be compiled; no program to load minirt's AppArmor profile.
    """
    if sandbox.state != "ready":
        raise Conflict(f"create {config.name}", f"sandbox {sandbox.id} is {sandbox.state}", "make a new sandbox")
    directory = paths.container_dir(container_id)
    record = ContainerRecord(
        id=container_id,
        sandbox_id=sandbox.id,
        config=config,
        boot_id=paths.boot_id(),
        image_id=image.id,
        created_at=time.time_ns(),
        cgroup=f"{sandbox.config.cgroup}/{container_id}",
        log_path=config.log_path or str(paths.logs_dir() / container_id / "0.log"),
        stop_signal=signals.number_of(config.stop_signal or image.config.stop_signal or "TERM"),
        owner=sandbox.config.owner,
        creator=store.me(),
    )
    with raised_as_step(f"create container {config.name}"), contextlib.ExitStack() as undo:
        store.create(record)
        undo.callback(leftovers.forget_container, record)
        found = imagevolumes.find(config) if config.images else {}
        snapshots = Snapshots(paths.data_root())
        overlay = snapshots.prepare(container_id, image, tuple(found.values()))
        layers = {name: snapshots.volume(container_id, one) for name, one in found.items()}
        imagevolumes.check(config, layers)
        if sandbox.config.uid_map:
            idranges.give(overlay, sandbox.config)
        (directory / "rootfs").mkdir(mode=0o711)
        spec = spec_of(config, container_id, sandbox, image, overlay, layers)
        seccomp.filter_of(spec.linux.seccomp)
        if spec.process.apparmor_profile == DEFAULT_PROFILE:
            _load_apparmor()
        record = structs.replace(record, user=spec.process.user)
        store.save(record)
        specs.save(spec, directory / "config.json")
        undo.pop_all()
    return record


def _load_apparmor() -> None:
    """Load minirt's own AppArmor profile, where the kernel has AppArmor; that it has not is told at the start."""
    from minirt.security import apparmor, labels

    if labels.has_apparmor():
        apparmor.load()


def spec_of(
    config: ContainerConfig,
    container_id: str,
    sandbox: SandboxRecord,
    image: Image,
    overlay: Overlay,
    volumes: imagevolumes.Layers,
) -> Spec:
    """Return the OCI spec of a container that is to be; nothing is touched. ``volumes`` are the images it mounts."""
    security = config.security
    identity = users.resolve(
        security.user or image.config.user, overlay.lowers, security.groups, image_groups=security.image_groups
    )
    idranges.check_in(sandbox.config.uid_map, [identity.uid], "user")
    idranges.check_in(sandbox.config.gid_map, [identity.gid, *identity.groups], "group")
    devices = host_devices() if security.privileged else ()
    return compile_container(config, container_id, sandbox, image.config, identity, held_here(), devices, volumes)


def start(record: ContainerRecord) -> dict[str, object]:
    """Start it; return once execve has succeeded, with {"pid", "warnings"}.

    Raises:
        Conflict: it has been started before.
        CommandNotFound, NotExecutable: the command.
        StepFailed: the kernel refused a step.
        ShimError: the sandbox's shim is gone.
    """
    with ShimClient(record.sandbox_id) as shim:
        return _create(shim, record, start=True)


def bring_to_gate(shim: ShimClient, record: ContainerRecord) -> dict[str, object]:
    """Have the shim set everything up short of the execve; output can be attached to before ``Start``."""
    return _create(shim, record, start=False)


def _create(shim: ShimClient, record: ContainerRecord, *, start: bool) -> dict[str, object]:
    state = status(record).state
    if statuses.read(record.id) is not None:
        raise Conflict(f"start {record.config.name}", f"it is {state}", "a container starts once: create another")
    overlay = Snapshots(paths.data_root()).get(record.id)
    sandbox = store.sandbox(record.sandbox_id).config
    mapped = bool(sandbox.uid_map)
    request = protocol.Create(
        container=record.id,
        bundle=str(paths.container_dir(record.id)),
        overlay=protocol.Overlay(tuple(map(str, overlay.lowers)), str(overlay.upper), str(overlay.work), mapped),
        stdin=record.config.stdin,
        log_path=record.log_path,
        start=start,
        cause=record.config.annotations.get(CAUSE, ""),
        runtime=handlers.program(sandbox.handler),
    )
    return shim.call(request)


def status(record: ContainerRecord) -> Status:
    """Return its state as it is now; an exit that nobody saw is "exited", code 255, reason Unknown."""
    found = statuses.read(record.id)
    if found is None:
        return CREATED
    if found.state in {"exited", "unknown"} or found.is_alive():
        return found
    ended = found.exited(UNKNOWN_CODE, "Unknown", "its shim had ended, so nobody saw the exit")
    with contextlib.suppress(MinirtError), ShimClient(record.sandbox_id, shims.ANSWER_S) as shim:
        told = shim.call(protocol.Wait(container=record.id))
        ended = found.exited(told["exit_code"], told["reason"], told["message"])
    again = statuses.read(record.id) or ended
    if again.state != "exited":
        again = ended
        with contextlib.suppress(OSError):  # it is being removed, or the disk is full: the next reader finds the same
            statuses.write(record.id, again)
    return again


def stop(record: ContainerRecord, grace_s: float) -> None:
    """Send the stop signal, wait ``grace_s`` seconds, kill the cgroup; one that does not run is fine."""
    if status(record).state == "exited":
        return
    try:
        with shims.ending(record.sandbox_id, grace_s) as shim:
            shim.call(protocol.Stop(container=record.id, signal=record.stop_signal, grace_s=grace_s))
    except MinirtError:
        _stop_without_shim(record, grace_s)


def _stop_without_shim(record: ContainerRecord, grace_s: float) -> None:
    """Do the same from here where the shim is dead; a container that never ran has nothing to stop."""
    found = statuses.read(record.id)
    if found is None or not found.is_alive():
        return
    cgroup = cgroup_tree.find().at(record.cgroup)
    if grace_s > 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, record.stop_signal)
        deadline = time.monotonic() + grace_s
        while found.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
    lifecycle.kill(cgroup)


def kill(record: ContainerRecord, number: int) -> None:
    """Send a signal to its init.

    Raises:
        Conflict: it does not run.
    """
    found = status(record)
    if found.state != "running":
        raise Conflict(f"kill {record.config.name}", f"it is {found.state}", "see minirt ps -a")
    try:
        with ShimClient(record.sandbox_id) as shim:
            shim.call(protocol.Kill(container=record.id, signal=number))
    except ShimError:
        os.kill(found.pid, number)


def wait(record: ContainerRecord) -> Status:
    """Wait until it has ended, and return how. A container that was never started is waited for, too."""
    try:
        with ShimClient(record.sandbox_id) as shim:
            outcome = shim.call(protocol.Wait(container=record.id))
    except ShimError:
        return _wait_without_shim(record)
    told = CREATED.exited(outcome["exit_code"], outcome["reason"], outcome["message"])
    return statuses.read(record.id) or told  # one run with --rm may be gone by now


def _wait_without_shim(record: ContainerRecord) -> Status:
    found = status(record)
    while found.state in {"running", "created"} and found.pid:
        time.sleep(0.05)
        found = status(record)
    return found


def remove(record: ContainerRecord, *, force: bool = False) -> None:
    """Remove a container; one that is gone is fine.

    Raises:
        Conflict: it runs, and ``force`` is not given.
    """
    found = status(record)
    if found.state in {"running", "unknown"} and not force:
        raise Conflict(f"remove {record.config.name}", f"it is {found.state}", "stop it first, or use --force")
    if found.state != "exited" and found.pid:
        stop(record, 0)
    with contextlib.suppress(MinirtError), shims.ending(record.sandbox_id) as shim:
        shim.call(protocol.Delete(container=record.id))
    lifecycle.end(cgroup_tree.find().at(record.cgroup))
    leftovers.forget_container(record)


def exec_process(
    record: ContainerRecord,
    args: tuple[str, ...],
    *,
    terminal: bool = False,
    env: tuple[tuple[str, str], ...] = (),
    cwd: str = "",
    user: str = "",
    privileged: bool = False,
) -> specs.Process:
    """Return the process that an exec of ``args`` is: the container's own, with what is given in its place.

    Raises:
        Conflict: the container does not run.
        InvalidInput: the image knows no such user.
    """
    import msgspec

    if (state := status(record).state) != "running":
        raise Conflict(f"exec in {record.config.name}", f"it is {state}", "only a running container can be exec'd into")
    config = specs.load(paths.container_dir(record.id) / "config.json")
    found = config.process
    variables = dict(entry.partition("=")[::2] for entry in found.env)
    if terminal:
        variables.setdefault("TERM", "xterm")
    sets, who = found.capabilities, found.user
    if user:
        lowers = Snapshots(paths.data_root()).get(record.id).lowers
        identity = users.resolve(user, lowers)
        if variables.get("HOME") == users.resolve(str(who.uid), lowers).home:
            variables["HOME"] = identity.home
        who = specs.User(uid=identity.uid, gid=identity.gid, additional_gids=identity.groups)
        linux = config.linux
        idranges.check_in(lines(linux.uid_mappings), [identity.uid], "user")
        idranges.check_in(lines(linux.gid_mappings), [identity.gid, *identity.groups], "group")
        active = sets.bounding if identity.uid == 0 else ()
        sets = specs.Capabilities(sets.bounding, active, active)
    if privileged:
        everything = tuple(sorted(held_here()))
        sets = specs.Capabilities(everything, everything, everything)
    return msgspec.structs.replace(
        found,
        args=args,
        terminal=terminal,
        env=tuple(f"{key}={value}" for key, value in (variables | dict(env)).items()),
        cwd=cwd or found.cwd,
        user=who,
        capabilities=sets,
    )
