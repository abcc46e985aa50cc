"""``minirt run``: a container of its own, as docker run."""

import contextlib
import os
from typing import TYPE_CHECKING, Any

import click

from minirt.cli import confinement, flags, userns
from minirt.cli.main import need_root
from minirt.errors import InvalidInput

if TYPE_CHECKING:
    from minirt.cgroups.resources import DeviceRule, Resources
    from minirt.engine.records import ContainerConfig, ContainerRecord, SandboxConfig
    from minirt.shim.zygote import Zygote


@click.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
@click.option("--rm", "remove", is_flag=True, help="Remove the container when it ends.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait: print the container's id.")
@click.option("-i", "--interactive", is_flag=True, help="Give it our stdin.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-e", "--env", multiple=True, metavar="KEY[=VALUE]", help="Set an environment variable.")
@click.option("-v", "--volume", multiple=True, metavar="HOST:PATH[:ro]", help="Show a path of the host.")
@click.option("--name", default="", help="A name instead of a random one.")
@click.option("-m", "--memory", default="", metavar="BYTES", help="Memory limit: 64m, 1g.")
@click.option("--memory-swap", default="", metavar="BYTES", help="Memory and swap together; -1 is no limit.")
@click.option("--cpus", type=float, default=0.0, help="CPU limit: 0.5 is half a CPU.")
@click.option("-c", "--cpu-shares", type=int, default=0, help="CPU weight, as docker's shares (1024 is usual).")
@click.option("--cpuset-cpus", default="", help="The CPUs it may use: 0-1,3.")
@click.option("--pids-limit", type=int, default=0, help="How many processes it may have.")
@click.option("--network", type=click.Choice(["none", "host", "bridge"]), default="bridge", show_default=True)
@click.option("-p", "--publish", multiple=True, metavar="HOST:PORT[/udp]", help="Lead a port of the host to it.")
@click.option("--pid", "pid_mode", type=click.Choice(["private", "host"]), default="private", help="PID namespace.")
@click.option("--userns", default="", metavar="MODE", help="User namespace: host, or auto (a free range of ids).")
@click.option("--uidmap", multiple=True, metavar="INSIDE:HOST:SIZE", help="Map users' ids in a user namespace.")
@click.option("--gidmap", multiple=True, metavar="INSIDE:HOST:SIZE", help="Map groups' ids (default: as --uidmap).")
@click.option("--subuidname", default="", metavar="NAME", help="Map the ids that /etc/subuid gives to NAME.")
@click.option("--subgidname", default="", metavar="NAME", help="Map the ids that /etc/subgid gives to NAME.")
@click.option("--ipc", type=click.Choice(["private", "host"]), default="private", help="IPC namespace.")
@click.option("-w", "--workdir", default="", help="Working directory.")
@click.option("-u", "--user", default="", help="User: name or uid, with :group.")
@click.option("-h", "--hostname", default="", help="Host name.")
@click.option("--entrypoint", default=None, help="Replace the image's entrypoint.")
@click.option("--read-only", is_flag=True, help="Make the root file system read-only.")
@click.option("--privileged", is_flag=True, help="Every capability and device, nothing masked.")
@click.option("--cap-add", multiple=True, help="Add a capability.")
@click.option("--cap-drop", multiple=True, help="Drop a capability.")
@click.option(
    "--device", multiple=True, metavar="HOST[:PATH][:rwm]", help="Give it a device; or VENDOR/CLASS=NAME (CDI)."
)
@click.option("--device-cgroup-rule", multiple=True, metavar="RULE", help="Let it use devices: 'c 10:* rw'.")
@click.option("--security-opt", multiple=True, metavar="OPTION", help="seccomp=FILE|unconfined, apparmor=PROFILE, ….")
@click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount a tmpfs: /run:size=64m,mode=1777,exec.")
@click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Limit a resource: nofile=1024:4096.")
@click.option("--sysctl", multiple=True, metavar="KEY=VALUE", help="Set a kernel parameter of its namespaces.")
@click.option("--init", "init", is_flag=True, help="Let tini be PID 1: it reaps orphans and forwards signals.")
@click.option("--stop-signal", default="", help="What stop sends first (default TERM).")
@click.option("--runtime", default="", metavar="NAME", help="Who runs it: minirt (default), runc or crun.")
@click.option("--oom-score-adj", type=int, default=None, help="-1000 to 1000.")
@click.option("--label", "-l", multiple=True, metavar="KEY=VALUE", help="A label.")
@click.option("--pull", type=click.Choice(["missing", "always", "never"]), default="missing", show_default=True)
@click.option("--best-effort-limits", is_flag=True, help="Warn about limits this kernel cannot set, and go on.")
@click.option("--dry-run", is_flag=True, help="Print the operations in order; touch nothing.")
@click.option("--trace", is_flag=True, help="Keep a journal of every step, for minirt explain.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(image: str, command: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND in a new container of IMAGE."""
    from minirt.shim import zygote as zygotes

    need_root("run a container")
    if options["dry_run"]:
        from minirt.cli.dryrun import print_plan

        if options["runtime"] not in {"", "minirt"}:
            why = f"what {options['runtime']} would do is its own secret"
            raise InvalidInput("print the plan", why, "leave --runtime out")
        return print_plan(*configure(image, command, options))
    zygote = zygotes.take()
    try:
        return _run(zygote, image, command, options)
    finally:
        zygote.close()


def _run(zygote: "Zygote", image: str, command: tuple[str, ...], options: dict[str, Any]) -> int:
    from minirt.cli import pullprogress
    from minirt.cli.limits import settle
    from minirt.cli.streams import end_on_signals, need_terminal
    from minirt.engine import containers, handlers, images, names, sandboxes

    end_on_signals()
    if options["tty"] and options["interactive"] and not options["detach"]:
        need_terminal()
    sandbox_config, config = configure(image, command, options)
    handlers.check_sandbox(sandbox_config)
    config = settle(config, best_effort=options["best_effort_limits"])
    found = images.ensure(image, options["pull"], pullprogress.showing)
    container_id = sandboxes.new_id()
    if options["name"]:
        names.reserve(options["name"], container_id)
    try:
        flags.make_sources(config.volumes)
        sandbox = sandboxes.run(sandbox_config, zygote, container_id)
        record = containers.create(sandbox, config, found, container_id)
        return _detached(record) if options["detach"] else _attached(record, options)
    except BaseException:
        if not _is_started(container_id):
            sandboxes.remove(container_id)
            names.release(options["name"], container_id)
        raise


def _is_started(container_id: str) -> bool:
    from minirt.shim import status

    with contextlib.suppress(FileNotFoundError):
        found = status.read(container_id)
        return found is not None and found.started_at > 0
    return False


def _detached(record: "ContainerRecord") -> int:
    from minirt.engine import containers

    show_warnings(containers.start(record))
    click.echo(record.id)
    return 0


def _attached(record: "ContainerRecord", options: dict[str, Any]) -> int:
    """Start it with our stdio, wait, and do what must follow its end."""
    from minirt.cli.streams import Detached, Streams, flush_own, output_pipes
    from minirt.engine import containers, sandboxes
    from minirt.shim import protocol
    from minirt.shim.client import ShimClient

    with ShimClient(record.sandbox_id) as shim:
        show_warnings(containers.bring_to_gate(shim, record))
        outputs, ends = output_pipes(options["tty"])
        _, received = shim.call_with_fds(protocol.Attach(container=record.id, once=True), ends)
        for end in ends:
            os.close(end)
        streams = Streams(
            shim,
            outputs,
            received[0] if received else -1,
            terminal=options["tty"],
            stdin=options["interactive"],
            send_signal=lambda number: containers.kill(record, number),
        )
        streams.resize()
        shim.call(protocol.Start(container=record.id))
        flush_own()
        try:
            outcome = streams.run(shim.send(protocol.Wait(container=record.id, caretaker=True)))
        except Detached:
            return 0
        if options["remove"]:
            sandboxes.remove(record.sandbox_id)
        else:
            sandboxes.stop(record.sandbox_id)
    if outcome["reason"] == "OOMKilled":
        click.echo(f"minirt: {record.config.name} was killed: it went over its memory limit", err=True)
    code: int = outcome["exit_code"]
    return code


def show_warnings(prepared: dict[str, Any]) -> None:
    """Print what could not be done and was not essential."""
    for text in prepared.get("warnings", ()):
        click.echo(f"minirt: warning: {text}", err=True)


def configure(
    image: str, command: tuple[str, ...], options: dict[str, Any]
) -> tuple["SandboxConfig", "ContainerConfig"]:
    """Return what the flags ask for."""
    from minirt.engine.records import ContainerConfig, SandboxConfig, Security
    from minirt.engine.sandboxes import new_id

    choices = confinement.security(options["security_opt"])
    name = flags.name(options["name"]) if options["name"] else f"run-{new_id()[:8]}"
    ids, auto = userns.read(options), options["userns"] == "auto"
    sandbox = SandboxConfig(
        name=name,
        uid=name,
        hostname=options["hostname"],
        network=options["network"],
        pid=options["pid_mode"],
        ipc="host" if options["ipc"] == "host" else "pod",
        sysctls=confinement.sysctls(
            options["sysctl"], options["network"], options["ipc"], host_users=not (ids.uid_map or auto)
        ),
        ports=flags.ports(options["publish"], options["network"]),
        single=True,
        trace=options["trace"],
        uid_map=ids.uid_map,
        gid_map=ids.gid_map,
        auto_ids=auto,
        handler=options["runtime"],
    )
    volumes, tmpfs = flags.volumes(options["volume"]), confinement.tmpfs(options["tmpfs"])
    flags.check_places([*(one.destination for one in volumes), *(one.destination for one in tmpfs)])
    nodes, rules = flags.devices(options["device"])
    vendors = [text for text in options["device"] if flags.is_vendors(text)]
    config = ContainerConfig(
        name=name,
        image=image,
        command=_entrypoint(options["entrypoint"], command),
        args=command if options["entrypoint"] != "" else (),
        env=flags.variables(options["env"]),
        cwd=flags.directory(options["workdir"]),
        volumes=volumes,
        devices=nodes,
        security=Security(
            user=options["user"],
            add=options["cap_add"],
            drop=options["cap_drop"],
            privileged=options["privileged"],
            readonly_rootfs=options["read_only"],
            no_new_privileges=choices.no_new_privileges,
            seccomp=choices.seccomp,
            apparmor=choices.apparmor,
            masked=None if choices.masks else (),
            readonly=None if choices.masks else (),
        ),
        resources=_resources(options, (*rules, *flags.device_rules(options["device_cgroup_rule"]))),
        rlimits=confinement.ulimits(options["ulimit"]),
        tmpfs=tmpfs,
        init=_init(options),
        oom_score_adj=options["oom_score_adj"],
        terminal=options["tty"],
        stdin=options["interactive"],
        stdin_once=True,
        stop_signal=options["stop_signal"],
        labels=flags.labels(options["label"]),
        remove_after_exit=options["remove"],
    )
    if vendors:
        from minirt.engine import cdi

        config = cdi.applied(config, vendors)
    return sandbox, config


def _init(options: dict[str, Any]) -> str:
    """Return the host's program to be PID 1 ("" for none)."""
    from minirt.engine import inits

    if options["init"] and options["pid_mode"] == "host":
        why = "it is to be PID 1, and the PID namespace is the host's, which has one"
        raise InvalidInput("use --init", why, "leave out --init, or --pid host")
    return inits.find() if options["init"] else ""


def _entrypoint(given: str | None, command: tuple[str, ...]) -> tuple[str, ...]:
    """Return what replaces the image's entrypoint; an empty one leaves the command alone to run."""
    if given == "" and not command:
        raise InvalidInput("run it without an entrypoint", "there is no command either", "name one")
    return (given,) if given else command if given == "" else ()


def _resources(options: dict[str, Any], rules: tuple["DeviceRule", ...]) -> "Resources":
    from minirt.cgroups.resources import Cpu, Memory, Pids, Resources

    memory = None
    if options["memory"] or options["memory_swap"]:
        limit = flags.size(options["memory"]) if options["memory"] else None
        swap = flags.size(options["memory_swap"]) if options["memory_swap"] else 2 * limit if limit else None
        memory = Memory(limit=limit, swap=swap)
    cpu = Cpu(
        shares=options["cpu_shares"] or None,
        quota=round(options["cpus"] * 100000) or None,
        period=100000 if options["cpus"] else None,
        cpus=options["cpuset_cpus"],
    )
    pids = Pids(options["pids_limit"]) if options["pids_limit"] else None
    return Resources(memory=memory, cpu=cpu if cpu != Cpu() else None, pids=pids, devices=rules)
