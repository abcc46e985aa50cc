"""Sandboxes: what a pod's containers share, made, stopped and removed.

    run     record "creating" ─ shim ─ cgroup, namespaces ─ address ─ /etc files ─ record "ready"
    stop    containers killed ─ address given back ─ namespaces unpinned ─ shim ended ─ cgroup removed ─ "stopped"
    remove  stop ─ containers' layers and records ─ the directory

Each step of stop and remove is fine with what is gone already, and needs no living shim: so they also undo a run that
failed half way, whoever died in it.
"""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from minirt import journal, paths
from minirt.cgroups import lifecycle
from minirt.cgroups import tree as cgroup_tree
from minirt.engine import idranges, leftovers, names, shims, store
from minirt.engine.compile import shared_kinds
from minirt.engine.records import SandboxConfig, SandboxRecord
from minirt.errors import Conflict, InvalidInput, MinirtError, NetworkError, NotFound, raised_as_step
from minirt.linux import process
from minirt.pod import files, sandbox
from minirt.shim import protocol
from minirt.shim import status as statuses
from minirt.shim.client import ShimClient
from minirt.shim.zygote import Zygote

if TYPE_CHECKING:
    from minirt.network.settings import PortMapping

NEVER_ATTACHED = ("none", "host")
ACCEPT_RA = "/proc/sys/net/ipv6/conf/default/accept_ra"
SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
"""Of a quantity of bandwidth."""


def new_id() -> str:
    """Return a new id: 64 hexadecimal digits, as docker's."""
    return os.urandom(32).hex()


def run(config: SandboxConfig, zygote: Zygote, sandbox_id: str = "") -> SandboxRecord:
    """Make a sandbox and return its record; on any failure nothing of it is left.

    Raises:
        AlreadyExists: this attempt of the pod has a sandbox.
        MinirtError: the step that failed.
    """
    sandbox_id = sandbox_id or new_id()
    config = completed(config, sandbox_id)
    directory = paths.sandbox_dir(sandbox_id)
    with raised_as_step(f"make sandbox {config.name}"), contextlib.ExitStack() as undo:
        if not config.single:
            names.reserve_sandbox(config, sandbox_id)
            undo.callback(names.release, names.of_sandbox(config), sandbox_id)
        with idranges.allotted(config) as config:
            record = _new_record(config, sandbox_id)
            store.create(record)
        undo.callback(remove, sandbox_id)
        trace = _trace(directory) if config.trace else ""
        shim = zygote.spawn_shim(sandbox_id, trace)
        addresses = _build(record)
        _write_files(directory, config, addresses)
        record = structs.replace(
            record,
            state="ready",
            shim=(shim, process.start_time(shim)),
            address=addresses[0] if addresses else "",
            further_addresses=tuple(addresses[1:]),
        )
        store.save(record)
        undo.pop_all()
    return record


def _new_record(config: SandboxConfig, sandbox_id: str) -> SandboxRecord:
    return SandboxRecord(
        id=sandbox_id,
        config=config,
        boot_id=paths.boot_id(),
        state="creating",
        created_at=time.time_ns(),
        creator=store.me(),
    )


def _trace(directory: Path) -> str:
    path = str(directory / "journal.ndjson")
    journal.open_file(path)
    return path


def completed(config: SandboxConfig, sandbox_id: str) -> SandboxConfig:
    """Return a configuration with the host name and the cgroup that were left open.

    Raises:
        InvalidInput: it asks for a user namespace and for what that cannot have.
    """
    if config.uid_map or config.auto_ids:
        for kind in ("pid", "ipc"):
            if getattr(config, kind) == "host":
                why = f"the {kind.upper()} namespace is the host's: what shows it cannot be mounted in a user namespace"
                raise InvalidInput("use a user namespace", why, f"give it {kind.upper()} namespaces of its own")
    cgroup = f"run-{sandbox_id}" if config.single else f"pod{config.uid}"
    return structs.replace(config, hostname=_hostname(config, sandbox_id), cgroup=config.cgroup or cgroup)


def _hostname(config: SandboxConfig, sandbox_id: str) -> str:
    """Return the host name: with the host's network the host's, unless a container of its own asks for another."""
    if config.network == "host":
        return (config.single and config.hostname) or socket.gethostname()
    return config.hostname or sandbox_id[:12]


def _build(record: SandboxRecord) -> list[str]:
    """Have the shim make the sandbox, and attach it to its network; return its addresses."""
    config = record.config
    bridged = config.network == "bridge"
    request = protocol.MakeSandbox(
        kinds=shared_kinds(config.network, record),
        hostname=config.hostname,
        cgroup=config.cgroup,
        share_pid=config.pid == "pod",
        shm_bytes=0 if config.ipc == "host" else config.shm_bytes,
        sysctls=sysctls(config),
        resources=config.resources,
        netlink=bridged,
        cleanup=config.single,
        uid_map=config.uid_map,
        gid_map=config.gid_map,
    )
    with ShimClient(record.id) as shim:
        number = shim.send(request)
        if bridged:
            _import_network()  # while the shim is at work
        _, received = shim.answer_to(number)
    if config.network == "cni":
        return _attach_by_plugins(record)
    if not bridged:
        return []
    with socket.socket(fileno=received[0]) as inner:
        return _attach(record, inner)


def _attach_by_plugins(record: SandboxRecord) -> list[str]:
    """Have CNI's plugins attach a sandbox; return its addresses. Raises InvalidInput, NetworkError."""
    from minirt.network import cni

    config, place = record.config, paths.sandbox_dir(record.id)
    network = cni.find(config.cni) if config.cni else None
    if config.cni is None or network is None:
        raise NetworkError(f"attach {config.name}", "there is no CNI configuration any more", "put one back")
    args = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": config.namespace,
        "K8S_POD_NAME": config.name,
        "K8S_POD_INFRA_CONTAINER_ID": record.id,
        "K8S_POD_UID": config.uid,
    }
    netns = sandbox.pin_path(str(place), "network")
    wanted = cni.Attachment(network, config.cni.plugins, record.id, netns, args, _capabilities(config))
    return cni.attach(place, wanted).addresses


def _capabilities(config: SandboxConfig) -> dict[str, object]:
    """Return what plugins may ask for. Source: CNI's CONVENTIONS.md."""
    ports = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol,
            "hostIP": port.host_ip,
        }
        for port in config.ports
    ]
    dns = {"servers": config.dns_servers, "searches": config.dns_searches, "options": config.dns_options}
    return {"portMappings": ports, "dns": dns if any(dns.values()) else {}} | _bandwidth(config.annotations)


def _bandwidth(annotations: dict[str, str]) -> dict[str, object]:
    """Return the limits that Kubernetes' annotations set, in bits a second."""
    limits: dict[str, object] = {}
    for name in ("ingress", "egress"):
        text = annotations.get(f"kubernetes.io/{name}-bandwidth", "")
        if text:
            limits |= {f"{name}Rate": _quantity(text), f"{name}Burst": 2**31 - 1}
    return {"bandwidth": limits} if limits else {}


def _quantity(text: str) -> int:
    """Return a Kubernetes quantity as a whole number. Raises InvalidInput."""
    number = text.rstrip("kMGTPi")
    suffix = text[len(number) :]
    if not number.isdigit() or suffix not in SUFFIXES:
        raise InvalidInput(f"use the bandwidth {text!r}", "it is no quantity", "write it like 10M")
    return int(number) * SUFFIXES[suffix]


def _import_network() -> None:
    from minirt.network import bridge, rtnetlink  # noqa: F401  bridge is for attach

    rtnetlink.codec()


def _attach(record: SandboxRecord, inner: socket.socket) -> list[str]:
    from minirt.network.bridge import attach

    netns = Path(sandbox.pin_path(str(paths.sandbox_dir(record.id)), "network"))
    ports = port_mappings(record.config)
    got = attach(record.id, netns, inner, ports=ports, ipv6=speaks_ipv6(record.config))
    return [str(one.ip) for one in (got.address, got.address6) if one]


def speaks_ipv6(config: SandboxConfig) -> bool:
    """Say whether a sandbox's interface takes an IPv6 address: its sysctls may turn that off."""
    return all(config.sysctls.get(f"net.ipv6.conf.{name}.disable_ipv6", "0") == "0" for name in ("all", "default"))


def sysctls(config: SandboxConfig) -> dict[str, str]:
    """Return what is written in a sandbox's namespaces: what is asked for.

    And on our bridge, unless that says otherwise, that no pod's interface listens to who calls himself its router.
    """
    isolated = config.network == "bridge" and os.path.exists(ACCEPT_RA)
    return ({"net.ipv6.conf.default.accept_ra": "0"} if isolated else {}) | config.sysctls


def port_mappings(config: SandboxConfig) -> list["PortMapping"]:
    """Return a sandbox's ports in the words of the network."""
    from minirt.network.settings import PortMapping

    return [PortMapping(port.host_port, port.container_port, port.protocol, port.host_ip) for port in config.ports]


def _write_files(directory: Path, config: SandboxConfig, addresses: list[str]) -> None:
    host_hosts, host_resolv = Path("/etc/hosts"), Path("/etc/resolv.conf")
    if config.network == "host" and host_hosts.exists():
        hosts = host_hosts.read_text() + "".join(f"{at}\t{name}\n" for at, name in config.extra_hosts)
    else:
        hosts = files.hosts(addresses, config.hostname, config.extra_hosts)
    resolv = files.resolv_conf(
        host_resolv.read_text() if host_resolv.exists() else "",
        config.dns_servers,
        config.dns_searches,
        config.dns_options,
        isolated=config.network != "host",
    )
    for name, text in (("hosts", hosts), ("hostname", config.hostname + "\n"), ("resolv.conf", resolv)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
        if config.uid_map:
            uid, gid = idranges.outside(config.uid_map, 0), idranges.outside(config.gid_map, 0)
            journal.step("chown", os.chown, str(directory / name), uid or 0, gid or 0)


def is_ready(record: SandboxRecord) -> bool:
    """Say whether containers can be started in it: it was made, is not stopped, and its shim lives."""
    return record.state == "ready" and process.is_alive(*record.shim)


def is_abandoned(record: SandboxRecord) -> bool:
    """Say whether it is half made, by a process that has ended: itself, or the one container it is for."""
    unused = record.config.single and statuses.read(record.id) is None
    return (record.state == "creating" or unused) and store.is_dead(record.creator)


def stop(sandbox_id: str) -> None:
    """Kill the sandbox's containers, free its address and namespaces, end its shim. May be called many times."""
    with contextlib.suppress(NotFound), store.locked(sandbox_id):
        _stop(sandbox_id)
        record = store.sandbox(sandbox_id)
        if record.state != "stopped":
            store.save(structs.replace(record, state="stopped", address="", further_addresses=()))


def _stop(sandbox_id: str) -> None:
    """Stop it, unless it is: by then the pod may have another sandbox, in the same cgroup."""
    try:
        record = store.sandbox(sandbox_id)
    except NotFound:
        _stop_without_record(sandbox_id)
        return
    if record.state != "stopped":
        lifecycle.kill(cgroup_tree.find().at(record.config.cgroup))
        _await_exits(record.id)
        take_down(record)


def _stop_without_record(sandbox_id: str) -> None:
    """Stop what its shim knows of; its address and its cgroup are found by ``minirt system prune``."""
    with contextlib.suppress(MinirtError), shims.ending(sandbox_id) as shim:
        for container_id in shim.call(protocol.List())["containers"]:
            shim.call(protocol.Stop(container=container_id, signal=signal.SIGKILL, grace_s=0))
    sandbox.unmake(str(paths.sandbox_dir(sandbox_id)))
    _end_shim(sandbox_id)


def take_down(record: SandboxRecord) -> None:
    """Give back what the host lends a sandbox whose containers have ended; what is gone already is fine."""
    if record.config.network == "cni":
        from minirt.network import cni

        cni.detach(paths.sandbox_dir(record.id))
    elif record.config.network not in NEVER_ATTACHED:
        from minirt.network.bridge import detach

        detach(record.id)
    sandbox.unmake(str(paths.sandbox_dir(record.id)))
    _end_shim(record.id)
    cgroup = cgroup_tree.find().at(record.config.cgroup)
    lifecycle.kill(cgroup)
    lifecycle.remove(cgroup)


def _await_exits(sandbox_id: str) -> None:
    """Let the shim take the exits of what was killed, so that no status is lost; and end what is only being made."""
    with contextlib.suppress(MinirtError), shims.ending(sandbox_id) as shim:
        for container_id in shim.call(protocol.List())["containers"]:
            shim.call(protocol.Stop(container=container_id, signal=signal.SIGKILL, grace_s=0))


def _end_shim(sandbox_id: str) -> None:
    try:
        with shims.ending(sandbox_id) as shim:
            shim.call(protocol.Shutdown())
            _until_hung_up(shim)
    except Conflict:
        raise
    except MinirtError:
        journal.note("shim", f"{sandbox_id} has ended already")


def _until_hung_up(shim: ShimClient) -> None:
    with contextlib.suppress(MinirtError):
        while True:
            shim.next_event()


def remove(sandbox_id: str) -> None:
    """Stop a sandbox and remove it with its containers; one that is gone is fine. No file is made for that."""
    with contextlib.suppress(NotFound), store.locked(sandbox_id):
        _stop(sandbox_id)
        for container in store.containers(sandbox_id, half_made=True):
            leftovers.forget_container(container)
        with contextlib.suppress(NotFound):
            names.release(names.of_sandbox(store.sandbox(sandbox_id).config), sandbox_id)
        store.remove_directory(paths.sandbox_dir(sandbox_id))
