"""``minirt pod``: pods from Kubernetes manifests."""

from typing import TYPE_CHECKING, Any

import click

from minirt.cli.main import need_root
from minirt.errors import Conflict, MinirtError, NotFound

if TYPE_CHECKING:
    from minirt.engine.records import ContainerRecord, SandboxRecord
    from minirt.shim.zygote import Zygote


@click.group()
def pod() -> None:
    """Run pods from Kubernetes manifests, and look after them."""


@pod.command()
@click.option("-d", "--detach", is_flag=True, help="Leave it running; print its name.")
@click.option("--best-effort-limits", is_flag=True, help="Warn about limits this kernel cannot set, and go on.")
@click.option("--backoff-cap", type=float, default=0.0, metavar="S", help="The longest wait before a restart [300].")
@click.option("--keep", is_flag=True, help="Leave the pod as it is when it ends (see pod rm).")
@click.option("--trace", is_flag=True, help="Keep a journal of every step, for minirt explain.")
@click.argument("manifest", type=click.Path(allow_dash=True))
def run(manifest: str, **options: Any) -> int:
    """Run the pod of a Kubernetes MANIFEST (a file, or - for stdin).

    In the foreground it shows progress and logs; Ctrl-C stops the pod and leaves nothing. The exit code is 0 when all
    containers succeeded, else that of the first that failed.
    """
    need_root("run a pod")
    from minirt.shim import zygote as zygotes

    zygote = zygotes.take()
    try:
        from minirt.cli import podrun

        found = podrun.load(manifest)
        podrun.check_limits(found, best_effort=options["best_effort_limits"])
        act = podrun.detached if options["detach"] else podrun.in_foreground
        return act(zygote, found, options)
    finally:
        zygote.close()


@pod.command()
@click.argument("name", metavar="POD")
def start(name: str) -> int:
    """Give POD a worker again: after its worker died, or after pod stop."""
    need_root("start a pod")
    from minirt.shim import zygote as zygotes

    zygote = zygotes.take()
    try:
        return _start(zygote, name)
    finally:
        zygote.close()


def _start(zygote: "Zygote", name: str) -> int:
    from minirt.cli import podrun, podview
    from minirt.engine import store
    from minirt.kubelet import workers

    record = store.find_pod(name)
    if workers.find(record.config.uid):
        raise Conflict(f"start {name}", "its worker is alive", f"see minirt pod inspect {name}")
    options = {"trace": record.config.trace, "best_effort_limits": True, "backoff_cap": 0.0}
    return podrun.detached(zygote, podview.pod_of(record), options, adopt=True)


@pod.command()
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
def ps(quiet: bool) -> None:
    """List pods."""
    need_root("list pods")
    from minirt.cli.containers import table
    from minirt.engine import store

    newest: dict[str, SandboxRecord] = {}
    for record in store.sandboxes():
        if not record.config.single and record.state != "creating":
            newest[record.config.uid] = record
    if quiet:
        for record in newest.values():
            click.echo(record.id[:12])
        return
    table(("POD", "READY", "STATUS", "RESTARTS", "AGE", "IP", "ID"), [_row(record) for record in newest.values()])


def _row(record: "SandboxRecord") -> tuple[str, ...]:
    from minirt.cli import podview
    from minirt.cli.containers import age
    from minirt.engine.face import EngineFace
    from minirt.kubelet import pods, status

    found = status.of(podview.pod_of(record), pods.look(EngineFace(None, record.config.owner), record.config.uid))
    states = found.container_statuses
    reasons = [one.state.waiting or one.state.terminated for one in states if not one.state.running]
    return (
        record.config.name,
        f"{sum(one.ready for one in states)}/{len(states)}",
        reasons[0].reason if reasons and reasons[0] and found.phase != "Succeeded" else found.phase,
        str(sum(one.restart_count for one in states)),
        age(record.created_at),
        record.address or "-",
        record.id[:12],
    )


@pod.command()
@click.option("-c", "--container", "only", default="", help="Only this container.")
@click.option("-f", "--follow", is_flag=True, help="Go on as long as the pod runs.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@click.option("--tail", type=int, default=-1, help="Only the last lines.")
@click.argument("name", metavar="POD")
def logs(name: str, only: str, follow: bool, timestamps: bool, tail: int) -> None:
    """Show what the containers of POD wrote."""
    need_root("read logs")
    from minirt.cli import podview
    from minirt.cli.logs import show
    from minirt.engine import containers, store
    from minirt.kubelet import requests, workers

    record = store.find_pod(name)
    found = podview.pod_of(record)
    names = [container.name for container in found.all_containers]
    if only and only not in names:
        raise NotFound(
            f"find container {only!r} in pod {name}", "it has none of this name", f"it has {', '.join(names)}"
        )
    prefix = podview.Prefix([only] if only else names)

    def alive() -> bool:
        running = any(containers.status(one).state == "running" for one in store.containers(record.id))
        return running or workers.find(record.config.uid) is not None

    show(
        requests.log_directory(found),
        prefix.names,
        alive=alive if follow else None,
        timestamps=timestamps,
        tail=tail,
        label=prefix.of if len(prefix.names) > 1 else lambda _: "",
    )


@pod.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.option("-c", "--container", "only", default="", help="Which container [the first].")
@click.option("-i", "--interactive", is_flag=True, help="Give it our stdin.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.argument("words", nargs=-1, required=True, metavar="POD [OPTIONS] [--] COMMAND...", type=click.UNPROCESSED)
def exec_command(words: tuple[str, ...], only: str, interactive: bool, tty: bool) -> int:
    """Run COMMAND in a container of POD; its exit code is ours."""
    need_root("exec")
    from minirt.cli.exec import run_session
    from minirt.engine import containers

    name, only, flags, command = _exec_words(words, only)
    interactive, tty = interactive or "i" in flags, tty or "t" in flags
    if not command:
        raise click.UsageError("name a command: minirt pod exec POD [-c CONTAINER] [-it] -- COMMAND")
    record = _running(name, only)
    process = containers.exec_process(record, command, terminal=tty)
    return run_session(record, process, interactive=interactive)


def _exec_words(words: tuple[str, ...], only: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Return (pod, container, flags, command): options may also stand behind the pod's name, as kubectl takes them."""
    name, rest, flags = words[0], list(words[1:]), ""
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word in {"-c", "--container"} and rest:
            only = rest.pop(0)
        elif word in {"-i", "-t", "-it", "-ti", "--tty", "--interactive"}:
            flags += word.lstrip("-")[:2]
        else:
            raise click.UsageError(f"no such option: {word}")
    return name, only, flags, tuple(rest)


def _running(name: str, only: str) -> "ContainerRecord":
    """Return the running container of a pod: the one named, else the first of the manifest."""
    from minirt.cli import podview
    from minirt.engine import containers, store

    record = store.find_pod(name)
    wanted = only or podview.pod_of(record).spec.containers[0].name
    found = [one for one in store.containers(record.id) if one.config.name == wanted]
    if not found:
        names = ", ".join(sorted({one.config.name for one in store.containers(record.id)})) or "none"
        raise NotFound(f"find container {wanted!r} in pod {name}", "it has none of this name", f"it has {names}")
    newest = max(found, key=lambda one: one.config.attempt)
    state = containers.status(newest).state
    if state != "running":
        raise Conflict(f"exec in {name}/{wanted}", f"it is {state}", f"see minirt pod logs {name} -c {wanted}")
    return newest


@pod.command()
@click.argument("names", nargs=-1, required=True, metavar="POD...")
def inspect(names: tuple[str, ...]) -> None:
    """Show everything about pods, as JSON."""
    need_root("inspect a pod")
    import json

    from minirt.engine import inspection, store

    click.echo(json.dumps([inspection.of_pod(store.find_pod(name)) for name in names], indent=2))


@pod.command()
@click.option("-t", "--time", "grace_s", type=int, default=-1, help="Seconds before SIGKILL [the manifest's].")
@click.argument("names", nargs=-1, required=True, metavar="POD...")
def stop(names: tuple[str, ...], grace_s: int) -> int:
    """Stop pods gracefully; what they were stays to be looked at until pod rm."""

    def act(record: "SandboxRecord") -> None:
        _stop(record, grace_s)

    return _for_each(names, "stop a pod", act)


def _stop(record: "SandboxRecord", grace_s: int) -> None:
    from minirt.cli import podview
    from minirt.engine.face import EngineFace
    from minirt.kubelet import ending, pods, workers

    face, uid = EngineFace(None, record.config.owner), record.config.uid
    if grace_s >= 0:
        ending.stop(face, pods.look(face, uid), grace_s)
    workers.stop(uid)
    spec = podview.pod_of(record).spec
    ending.stop(face, pods.look(face, uid), spec.termination_grace_period_seconds)


@pod.command()
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs.")
@click.argument("names", nargs=-1, required=True, metavar="POD...")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Remove pods with their containers, volumes and logs; the logs of a kubelet's pods are the kubelet's."""

    def act(record: "SandboxRecord") -> None:
        _remove(record, force=force)

    return _for_each(names, "remove a pod", act)


def _remove(record: "SandboxRecord", *, force: bool) -> None:
    import shutil

    from minirt.engine import containers, sandboxes, store
    from minirt.engine.face import EngineFace
    from minirt.engine.records import CRI
    from minirt.kubelet import ending, workers

    running = [one.config.name for one in store.containers(record.id) if containers.status(one).state == "running"]
    if running and not force:
        why = f"{', '.join(running)} still run" + ("s" if len(running) == 1 else "")
        raise Conflict(f"remove the pod {record.config.name}", why, "stop it first, or use --force")
    uid, config = record.config.uid, record.config
    if running:
        ending.remove(EngineFace(None, config.owner), uid)
    workers.stop(uid)
    ending.remove(EngineFace(None, config.owner), uid)
    sandboxes.remove(record.id)  # half made by a worker that died, or without a kubelet's labels: in no list of pods
    workers.forget(uid)
    workers.log_file(uid).unlink(missing_ok=True)
    if config.log_directory and config.owner != CRI:
        shutil.rmtree(config.log_directory, ignore_errors=True)


def _for_each(names: tuple[str, ...], what: str, action: Any) -> int:
    """Do it to each, print what worked, go on after an error."""
    need_root(what)
    from minirt.engine import store

    code = 0
    for name in names:
        try:
            action(store.find_pod(name))
            click.echo(name)
        except MinirtError as error:
            click.echo(f"minirt: {error}", err=True)
            code = 1
    return code
