"""``minirt diff|export|commit``: what a container has made of its image, as docker's verbs of the same names."""

import contextlib
import sys
from pathlib import Path

import click

from minirt.cli.main import need_root
from minirt.errors import InvalidInput


@click.command()
@click.argument("container")
def diff(container: str) -> None:
    """List what CONTAINER has added (A), changed (C) and deleted (D) of its image's files."""
    need_root("look into a container")
    from minirt.engine import committing, store

    for change in committing.diff(store.find_container(container)):
        click.echo(f"{change.kind} {change.path}")


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write, instead of stdout.")
@click.argument("container")
def export(container: str, output: Path | None) -> None:
    """Write CONTAINER's file system as a tar archive; what is mounted in it is left out."""
    need_root("look into a container")
    from minirt.engine import committing, store

    record = store.find_container(container)
    with contextlib.ExitStack() as opened:
        target = sys.stdout.buffer
        if output:
            from minirt.images.archive import whole_file

            target = opened.enter_context(whole_file(output))
        elif sys.stdout.isatty():
            raise InvalidInput("export to a terminal", "an archive is nothing to look at", "give --output, or a pipe")
        committing.export(record, target)


@click.command()
@click.option("-a", "--author", default="", help="Who made it.")
@click.option("-m", "--message", default="", help="What was done.")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="A line of a Dockerfile.")
@click.option("-p", "--pause/--no-pause", default=True, show_default=True, help="Let nothing run in it meanwhile.")
@click.argument("container")
@click.argument("name", default="")
def commit(container: str, name: str, author: str, message: str, changes: tuple[str, ...], pause: bool) -> None:
    """Make an image NAME of CONTAINER as it is now, and print the image's id."""
    need_root("commit a container")
    from minirt.engine import committing, store

    record = store.find_container(container)
    click.echo(committing.commit(record, name, changes=changes, author=author, message=message, pause=pause).id)
