"""``minirt ps|logs|stop|kill|wait|rm|inspect``: what docker's verbs of the same names do."""

import time
from typing import TYPE_CHECKING, Any

import click

from minirt.cli.main import need_root
from minirt.errors import MinirtError

if TYPE_CHECKING:
    from minirt.engine.records import ContainerRecord
    from minirt.shim.status import Status


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Ended ones, too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
def ps(everything: bool, quiet: bool, no_trunc: bool) -> None:
    """List containers of minirt run (pods: minirt pod ps)."""
    need_root("list containers")
    from minirt.engine import containers, store

    rows = []
    for record in reversed(store.containers()):
        if record.id != record.sandbox_id:
            continue
        status = containers.status(record)
        if everything or status.state == "running":
            rows.append((record, status))
    if quiet:
        for record, _ in rows:
            click.echo(record.id if no_trunc else record.id[:12])
        return
    table(
        ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAME"),
        [_row(record, status, no_trunc) for record, status in rows],
    )


def _row(record: "ContainerRecord", status: "Status", no_trunc: bool) -> tuple[str, ...]:
    config = record.config
    command = " ".join(config.command + config.args)
    return (
        record.id if no_trunc else record.id[:12],
        config.image,
        f'"{command}"' if no_trunc or len(command) <= 20 else f'"{command[:19]}…"',
        f"{age(record.created_at)} ago",
        state_of(status),
        config.name,
    )


def state_of(status: "Status") -> str:
    """Return a container's state as docker's table shows it."""
    if status.state == "running":
        return f"Up {age(status.started_at)}"
    if status.state == "exited":
        reason = "" if status.reason in {"Completed", "Error"} else f" {status.reason}"
        return f"Exited ({status.exit_code}){reason} {age(status.finished_at)} ago"
    return status.state.capitalize()


def age(since_ns: int) -> str:
    """Return how long ago a time was, in its largest unit."""
    seconds = max(0, (time.time_ns() - since_ns) // 10**9)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table in columns, as docker and kubectl do."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as long as it runs.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@click.option("-n", "--tail", type=int, default=-1, help="Only the last lines.")
@click.argument("container")
def logs(container: str, follow: bool, timestamps: bool, tail: int) -> None:
    """Show what CONTAINER wrote: its stdout on ours, its stderr on ours."""
    need_root("read logs")
    from minirt import paths
    from minirt.cli.logs import show
    from minirt.engine import containers, store

    record = store.find_container(container)

    def alive() -> bool:
        return store.exists(record) and containers.status(record).state != "exited"

    show(paths.logs_dir(), [record.id], alive=alive if follow else None, timestamps=timestamps, tail=tail)


@click.command()
@click.option("-t", "--time", "grace_s", type=float, default=10.0, show_default=True, help="Seconds before SIGKILL.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
def stop(names: tuple[str, ...], grace_s: float) -> int:
    """Stop containers: send the stop signal, wait, then kill."""
    from minirt.engine import containers

    return _for_each(names, "stop a container", lambda record: containers.stop(record, grace_s))


@click.command()
@click.option("-s", "--signal", "name", default="KILL", show_default=True, help="Its name or number.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
def kill(names: tuple[str, ...], name: str) -> int:
    """Send a signal to the init of containers."""
    from minirt.engine import containers, signals

    number = signals.number_of(name)
    return _for_each(names, "kill a container", lambda record: containers.kill(record, number))


@click.command()
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Remove containers with their writable layers and logs."""
    from minirt.engine import containers, sandboxes

    def remove(record: "ContainerRecord") -> None:
        containers.remove(record, force=force)
        sandboxes.remove(record.sandbox_id)

    return _for_each(names, "remove a container", remove)


def _for_each(names: tuple[str, ...], what: str, action: Any) -> int:
    """Do it to each, print what it returns or the name, go on after an error; return 1 if there was one."""
    need_root(what)
    from minirt.engine import store

    code = 0
    for name in names:
        try:
            found = action(store.find_container(name))
            click.echo(name if found is None else found)
        except MinirtError as error:
            click.echo(f"minirt: {error}", err=True)
            code = 1
    return code


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
def wait(names: tuple[str, ...]) -> int:
    """Wait until containers end, and print their exit codes."""
    from minirt.engine import containers

    return _for_each(names, "wait for a container", lambda record: containers.wait(record).exit_code)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
def inspect(names: tuple[str, ...]) -> None:
    """Show everything about containers, as JSON."""
    need_root("inspect a container")
    import json

    from minirt.engine import inspection, store

    found = [inspection.of_container(store.find_container(name)) for name in names]
    click.echo(json.dumps(found, indent=2))
