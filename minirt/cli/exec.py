"""``minirt exec``: one more process in a running container."""

import os
from typing import TYPE_CHECKING

import click

from minirt.cli import flags
from minirt.cli.main import need_root

if TYPE_CHECKING:
    from minirt.engine.records import ContainerRecord
    from minirt.oci.spec import Process


@click.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Give it our stdin.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-e", "--env", multiple=True, metavar="KEY[=VALUE]", help="Set an environment variable.")
@click.option("-w", "--workdir", default="", help="Working directory.")
@click.option("-u", "--user", default="", help="User: name or uid, with :group.")
@click.option("--privileged", is_flag=True, help="Every capability.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(
    container: str,
    command: tuple[str, ...],
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    workdir: str,
    user: str,
    privileged: bool,
) -> int:
    """Run COMMAND in the running CONTAINER; its exit code is ours."""
    need_root("exec")
    from minirt.engine import containers, store

    record = store.find_container(container)
    process = containers.exec_process(
        record,
        command,
        terminal=tty,
        env=flags.variables(env),
        cwd=flags.directory(workdir),
        user=user,
        privileged=privileged,
    )
    return run_session(record, process, interactive=interactive)


def run_session(record: "ContainerRecord", process: "Process", *, interactive: bool) -> int:
    """Execute a process in a container with our stdio, and return its exit code."""
    from minirt.cli.streams import Detached, Streams, flush_own, need_terminal, output_pipes, window
    from minirt.shim import protocol
    from minirt.shim.client import ShimClient

    if process.terminal:
        if interactive:
            need_terminal()
        process = _sized(process, window())
    session = os.urandom(8).hex()
    with ShimClient(record.sandbox_id) as shim:
        request = protocol.Exec(container=record.id, session=session, process=process)
        if process.terminal:
            _, received = shim.call_with_fds(request)
            outputs, entry = {received[0]: 1}, os.dup(received[0])
        else:
            outputs, ends = output_pipes(terminal=False)
            theirs, entry = os.pipe2(os.O_CLOEXEC)
            shim.call(request, [theirs, *ends])
            for end in (theirs, *ends):
                os.close(end)
            if not interactive:
                os.close(entry)
                entry = -1
        flush_own()

        def send_signal(number: int) -> None:
            with ShimClient(record.sandbox_id) as other:
                other.call(protocol.Kill(container=record.id, session=session, signal=number))

        streams = Streams(
            shim, outputs, entry, terminal=process.terminal, stdin=interactive, send_signal=send_signal, drain=True
        )
        try:
            outcome = streams.run(shim.send(protocol.Wait(container=record.id, session=session)))
        except Detached:
            return 0
    code: int = outcome["exit_code"]
    return code


def _sized(process: "Process", size: tuple[int, int] | None) -> "Process":
    from msgspec import structs

    from minirt.oci.spec import ConsoleSize

    return structs.replace(process, console_size=ConsoleSize(*size)) if size else process
