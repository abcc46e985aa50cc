"""How a pull or a push is shown: a bar for each layer on a terminal, plain lines elsewhere, always on stderr."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from minirt.images.progress import Progress

STATES = {
    "waiting": "Waiting",
    "downloading": "Downloading",
    "present": "Already here",
    "downloaded": "Downloaded",
    "unpacking": "Unpacking",
    "done": "Pull complete",
    "uploading": "Pushing",
    "there": "Already there",
    "mounted": "Mounted",
    "pushed": "Pushed",
}


@contextlib.contextmanager
def showing(name: str, *, quiet: bool = False, verb: str = "Pulling") -> Iterator["Callable[[Progress], None] | None"]:
    """Show the pull of ``name`` (or what ``verb`` says) while the block runs, which gets what to report to."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        click.echo(f"{verb} {name}", err=True)
        yield _lines()


def _lines() -> "Callable[[Progress], None]":
    """Return a report that writes a line each time a layer's state changes."""
    seen: dict[str, str] = {}

    def report(progress: "Progress") -> None:
        if progress.state != "waiting" and seen.get(progress.digest) != progress.state:
            seen[progress.digest] = progress.state
            click.echo(f"{_short(progress)}: {STATES[progress.state]} ({megabytes(progress.total)})", err=True)

    return report


@contextlib.contextmanager
def _bars() -> "Iterator[Callable[[Progress], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    name, state = TextColumn("{task.fields[layer]}"), TextColumn("{task.description}", justify="left")
    with Bars(name, state, BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True)) as bars:
        tasks = {}

        def report(progress: "Progress") -> None:
            if progress.digest not in tasks:
                tasks[progress.digest] = bars.add_task("", layer=_short(progress), total=progress.total)
            text = STATES[progress.state]
            bars.update(tasks[progress.digest], description=f"{text:<13}", completed=progress.done)

        yield report


def _short(progress: "Progress") -> str:
    return progress.digest[7:19]


def megabytes(size_bytes: int) -> str:
    """Return a size as docker shows it: powers of a thousand, about three digits."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}TB"
