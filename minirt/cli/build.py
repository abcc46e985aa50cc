"""``minirt build``: an image from a Dockerfile. Progress and what commands print go to stderr, the id to stdout."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from minirt.cli.main import need_root
from minirt.errors import InvalidInput

if TYPE_CHECKING:
    from minirt.builder.dockerfile import Dockerfile
    from minirt.builder.ignore import Ignore
    from minirt.engine.records import ContainerRecord
    from minirt.images.image import Image
    from minirt.images.snapshots import Overlay
    from minirt.shim.zygote import Zygote

ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
"""What ends a build."""


@click.command()
@click.option("-t", "--tag", "names", multiple=True, metavar="NAME", help="A name for the image.")
@click.option("-f", "--file", "path", default="", help="The Dockerfile; - is stdin.")
@click.option("--build-arg", multiple=True, metavar="KEY[=VALUE]", help="A value for an ARG.")
@click.option("--target", default="", metavar="STAGE", help="Build this stage, and what it needs.")
@click.option("--no-cache", is_flag=True, help="Make every layer anew.")
@click.option("--pull", is_flag=True, help="Ask registries for newer base images.")
@click.option("--network", type=click.Choice(["default", "none", "host"]), default="default", show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id alone, and what a failing command printed.")
@click.argument("context", type=click.Path(path_type=Path))
def build(context: Path, names: tuple[str, ...], path: str, quiet: bool, network: str, **options: Any) -> None:
    """Build an image from the Dockerfile in the directory CONTEXT."""
    need_root("build an image")
    from minirt.builder.execution import Options, Surroundings
    from minirt.builder.execution import build as build_image
    from minirt.cli.pullprogress import showing
    from minirt.cli.streams import end_on_signals
    from minirt.images.store import Reference
    from minirt.shim import zygote as zygotes

    zygote = zygotes.take()
    try:
        end_on_signals()
        file, ignore = _read(context, path)
        asked = Options(
            names=tuple(str(Reference.parse(name)) for name in names),
            target=options["target"],
            arguments=_arguments(options["build_arg"]),
            cached=not options["no_cache"],
            policy="always" if options["pull"] else "missing",
        )
        around = Surroundings(
            run=_Containers(zygote, network, quiet=quiet).run,
            say=(lambda _: None) if quiet else (lambda line: click.echo(line, err=True)),
            showing=lambda name: showing(name, quiet=quiet),
        )
        made = build_image(file, context, ignore, asked, around)
    finally:
        zygote.close()
    if not quiet:
        click.echo(f"Built {made.id[7:19]}{''.join(f', {name}' for name in asked.names)}", err=True)
    click.echo(made.id)


def _read(context: Path, path: str) -> "tuple[Dockerfile, Ignore]":
    """Return the Dockerfile, and what .dockerignore says. Raises InvalidInput: they cannot be read."""
    from minirt.builder.dockerfile import parse
    from minirt.builder.ignore import Ignore

    name = Path(path) if path else context / "Dockerfile"
    try:
        if not context.is_dir():
            raise InvalidInput(f"build {context}", "it is no directory", "name the directory to copy from")
        text = sys.stdin.read() if path == "-" else name.read_text()
        beside = name.with_name(f"{name.name}.dockerignore")
        own = next((one for one in (beside, context / ".dockerignore") if one.is_file()), None)
        return parse(text), Ignore(own.read_text().splitlines() if own else ())
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"read {name}", why, "name the Dockerfile with -f") from error


def _arguments(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the values of --build-arg; one without is taken from our environment, if it is there."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key:
            raise InvalidInput(f"read --build-arg {text!r}", "there is no name", "write it as KEY=VALUE")
        if equals or key in os.environ:
            found[key] = value if equals else os.environ[key]
    return found


class _Containers:
    """Runs commands in containers, one after the other."""

    def __init__(self, zygote: "Zygote", network: str, *, quiet: bool) -> None:
        self._zygote = zygote
        self._network = network
        self._quiet = quiet

    @contextlib.contextmanager
    def run(
        self, image: "Image", command: tuple[str, ...], env: Mapping[str, str], network: str
    ) -> "Iterator[tuple[int, Overlay]]":
        """Run a command to its end; the block gets its exit code and its overlay, without what minirt put there."""
        from minirt import paths
        from minirt.engine import containers, sandboxes
        from minirt.engine.records import ContainerConfig, Network, SandboxConfig
        from minirt.images.snapshots import Snapshots

        container_id = sandboxes.new_id()
        name = f"build-{container_id[:8]}"
        chosen = network if network not in ("", "default") else self._network
        kinds: dict[str, Network] = {"default": "bridge", "none": "none", "host": "host"}
        try:
            sandbox = sandboxes.run(
                SandboxConfig(name=name, uid=name, network=kinds[chosen], single=True), self._zygote, container_id
            )
            config = ContainerConfig(name=name, image="", command=command, env=tuple(env.items()))
            record = containers.create(sandbox, config, image, container_id)
            overlay = Snapshots(paths.data_root()).get(container_id)
            yield self._run(record, overlay), overlay
        finally:
            sandboxes.remove(container_id)

    def _run(self, record: "ContainerRecord", overlay: "Overlay") -> int:
        """Start it, show what it prints, and wait; return its exit code."""
        import tempfile

        from minirt.builder import mountpoints
        from minirt.cli.run import show_warnings
        from minirt.engine import containers, sandboxes
        from minirt.shim.client import ShimClient

        with ShimClient(record.sandbox_id) as shim, tempfile.TemporaryFile() as kept:
            show_warnings(containers.bring_to_gate(shim, record))
            before = mountpoints.look(overlay.upper)
            code = self._follow(shim, record, kept if self._quiet else None)
            if code and self._quiet:
                kept.seek(0)
                sys.stderr.buffer.write(kept.read())
            sandboxes.stop(record.sandbox_id)
        mountpoints.remove(before)
        return code

    @staticmethod
    def _follow(shim: Any, record: "ContainerRecord", kept: IO[bytes] | None) -> int:
        from minirt.cli.streams import Streams, flush_own, output_pipes
        from minirt.engine import containers
        from minirt.shim import protocol

        ended_by: list[int] = []

        def end_command(number: int) -> None:
            """Have the command end with us: a shell that is a container's first process takes no notice of SIGINT."""
            if number in ENDING:
                ended_by.append(number)
                containers.kill(record, signal.SIGKILL)

        outputs, ends = output_pipes(False)
        shim.call_with_fds(protocol.Attach(container=record.id, once=True), ends)
        for end in ends:
            os.close(end)
        target = kept.fileno() if kept else 2
        streams = Streams(
            shim,
            dict.fromkeys(outputs, target),
            -1,
            terminal=False,
            stdin=False,
            send_signal=end_command,
        )
        shim.call(protocol.Start(container=record.id))
        flush_own()
        outcome = streams.run(shim.send(protocol.Wait(container=record.id, caretaker=True)))
        if ended_by:
            raise SystemExit(128 + ended_by[0])
        code: int = outcome["exit_code"]
        return code
