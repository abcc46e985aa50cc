"""Logs shown on a terminal: stdout's lines on stdout, stderr's on stderr."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from minirt.kubelet import logs
from minirt.kubelet.logs import LogLine

POLL_S = 0.2


def show(
    directory: Path,
    containers: Iterable[str],
    *,
    alive: Callable[[], bool] | None,
    timestamps: bool,
    tail: int,
    label: Callable[[LogLine], str] = lambda _: "",
) -> None:
    """Print the logs of ``containers`` below ``directory``; with ``alive`` go on as long as it says so.

    ``tail`` is how many of the last lines are shown (-1: all); ``label`` is written before each line.
    """
    names = list(containers)
    if alive is None:
        found = logs.read(directory, names)
        for line in found[max(0, len(found) - tail) :] if tail >= 0 else found:
            _print(line, timestamps, label)
        return
    with _over_when_dead(alive) as over:
        skip = max(0, len(logs.read(directory, names)) - tail) if tail >= 0 else 0
        for number, line in enumerate(logs.follow(directory, names, over)):
            if number >= skip:
                _print(line, timestamps, label)


def _print(line: LogLine, timestamps: bool, label: Callable[[LogLine], str]) -> None:
    at = f"{line.at} " if timestamps else ""
    click.echo(f"{label(line)}{at}{line.text}", err=line.stream == "stderr")


class _over_when_dead:  # noqa: N801  read as a phrase: with over_when_dead(alive)
    """Hold an event that is set when ``alive`` no longer says so."""

    def __init__(self, alive: Callable[[], bool]) -> None:
        self._alive = alive
        self._over = threading.Event()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> threading.Event:
        self._thread.start()
        return self._over

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._alive() and not self._left.wait(POLL_S):
            pass
        self._over.set()
