"""The command line's root: which word loads which file, and what an error becomes.

Commands are loaded when they are called: ``minirt --help`` imports click and nothing of the engine.

Exit codes are docker's: the container's own; 125 minirt failed; 126 the command cannot be executed; 127 it was not
found; 128+n a signal.
"""

import errno
import importlib
import io
import os
import sys
from typing import Any

from minirt import imports
from minirt.errors import MinirtError, StepFailed

with imports.patterns_later():
    import click

COMMANDS = {
    "pod": ("minirt.cli.pod:pod", "Run pods from Kubernetes manifests, and look after them."),
    "run": ("minirt.cli.run:run", "Run a command in a new container."),
    "ps": ("minirt.cli.containers:ps", "List containers."),
    "exec": ("minirt.cli.exec:exec_command", "Run another command in a running container."),
    "logs": ("minirt.cli.containers:logs", "Show what a container wrote."),
    "stop": ("minirt.cli.containers:stop", "Stop containers: the stop signal, grace, then SIGKILL."),
    "kill": ("minirt.cli.containers:kill", "Send a signal to containers."),
    "wait": ("minirt.cli.containers:wait", "Wait until containers end, and print their exit codes."),
    "rm": ("minirt.cli.containers:rm", "Remove containers."),
    "inspect": ("minirt.cli.containers:inspect", "Show everything about containers, as JSON."),
    "diff": ("minirt.cli.commit:diff", "List what a container has changed of its image."),
    "export": ("minirt.cli.commit:export", "Write a container's file system as a tar archive."),
    "commit": ("minirt.cli.commit:commit", "Make an image of a container."),
    "image": ("minirt.cli.image:image", "Pull, import, list and remove images."),
    "build": ("minirt.cli.build:build", "Build an image from a Dockerfile."),
    "login": ("minirt.cli.registry:login", "Log in to a registry."),
    "logout": ("minirt.cli.registry:logout", "Forget a registry's password."),
    "serve": ("minirt.cli.serve:serve", "Serve the CRI, for kubelets and crictl."),
    "explain": ("minirt.cli.explain:explain", "Show, step by step, how a pod or container was made."),
    "system": ("minirt.cli.system:system", "Check this machine, and remove what crashes left."),
}

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""What a file system may answer to whoever writes a file, through no fault of ours."""


class Lazy(click.Group):
    """A group that imports a command's file when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of a reader's interest."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command itself, imported now."""
        if cmd_name not in COMMANDS:
            return None
        imports.msgspec_alone()
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above: help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="minirt")
def cli() -> None:
    """minirt: a container runtime and pod sandbox, small enough to read in an afternoon."""


def run(words: list[str]) -> int:
    """Run the command line and return the exit code. What we print may hold any bytes: of arguments, names, logs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        with cli.make_context("minirt", words) as context:
            outcome: Any = cli.invoke(context)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        return 130
    except (click.ClickException, MinirtError, BrokenPipeError, PermissionError) as error:
        return _tell(error)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return _tell(StepFailed.from_os_error("write a file", error, do="make room on that file system"))


def _tell(error: Exception) -> int:
    """Print an error, and return its exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return 125
    if isinstance(error, BrokenPipeError):  # who reads our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    if isinstance(error, PermissionError):
        remedy = "" if os.geteuid() == 0 else " (namespaces, mounts and cgroups need root: try sudo)"
        click.echo(f"minirt: cannot open {error.filename}: permission denied{remedy}", err=True)
        return 125
    shown = error.shown if isinstance(error, MinirtError) else ""
    click.echo("\n".join(filter(None, (f"minirt: {error}", shown))), err=True)
    return error.exit_code if isinstance(error, MinirtError) else 125
