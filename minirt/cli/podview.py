"""How pods are shown on a terminal: progress lines, log prefixes, the table of pod ps."""

import click

from minirt.engine.records import SandboxRecord
from minirt.kubelet.events import Event
from minirt.kubelet.logs import LogLine
from minirt.kubelet.manifest import Pod

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")

WORDS = {
    "Pulling": ("…", "pulling {message}"),
    "Pulled": ("✔", "image {message}"),
    "SandboxCreating": ("…", "creating the sandbox"),
    "SandboxReady": ("✔", "sandbox ready {message}"),
    "SandboxChanged": ("!", "{message}; making another"),
    "Created": ("✔", "created"),
    "Started": ("✔", "started"),
    "BackOff": ("…", "waiting {retry} before the next try: {message}"),
    "Killing": ("…", "stopping"),
}
MARKS = {"✔": "green", "✘": "red", "!": "yellow", "…": "blue"}


class Progress:
    """Shows a worker's events as lines on stderr."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod.metadata.name

    def show(self, event: Event) -> None:
        """Print one event."""
        mark, text = _words(event)
        where = f"{self._pod}/{event.container}" if event.container else self._pod
        click.echo(f"{click.style(mark, fg=MARKS[mark])} {where}  {text}".rstrip(), err=True)


def _words(event: Event) -> tuple[str, str]:
    if event.reason == "Exited":
        mark = "✔" if event.exit_code == 0 else "✘"
        return mark, f"exited with code {event.exit_code} ({event.message})"
    mark, pattern = WORDS.get(event.reason, ("!", "{reason}: {message}"))
    retry = f"{event.retry_s:.0f} s" if event.retry_s is not None else ""
    return mark, pattern.format(reason=event.reason, message=event.message, retry=retry).removesuffix(": ")


class Prefix:
    """Log prefixes, as docker compose writes them: each container's name in its own colour."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        width = max(map(len, names), default=0)
        self._prefixes = {
            name: click.style(f"{name:<{width}} | ", fg=COLOURS[index % len(COLOURS)])
            for index, name in enumerate(names)
        }

    def of(self, line: LogLine) -> str:
        """Return what stands before a line."""
        return self._prefixes[line.container]


def warn(text: str) -> None:
    """Print a warning."""
    click.echo(f"{click.style('warning', fg='yellow')}: {text}", err=True)


def pod_of(record: SandboxRecord) -> Pod:
    """Return the pod that a sandbox was made for, from the manifest it keeps."""
    from minirt.kubelet import loading, requests

    return loading.loads(record.config.annotations[requests.MANIFEST], record.config.name)
