"""``minirt image``: what docker and crictl users expect of images."""

import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirt.cli import build, imagecare, registry
from minirt.cli.containers import age, table
from minirt.errors import InvalidInput, MinirtError

if TYPE_CHECKING:
    from minirt.images.store import Image


@click.group()
def image() -> None:
    """Pull, import, list and remove images."""


for command in (build.build, registry.push, registry.tags, registry.referrers):
    image.add_command(command)
for command in (imagecare.tag, imagecare.history, imagecare.mount, imagecare.unmount):
    image.add_command(command)
for command in (imagecare.prune, imagecare.gc, imagecare.fsck):
    image.add_command(command)


@image.command()
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Another platform than this machine's.")
@click.option("--all-platforms", is_flag=True, help="Each platform's image; the name is this machine's.")
@registry.PLAIN
@click.argument("reference")
def pull(reference: str, quiet: bool, platform: str | None, all_platforms: bool, plain_http: bool | None) -> None:
    """Fetch an image from its registry and unpack it."""
    from minirt.cli.pullprogress import showing
    from minirt.images.store import ImageStore, Reference

    if platform and all_platforms:
        raise InvalidInput(f"pull {reference}", "--platform and --all-platforms do not go together", "leave one out")
    name = str(Reference.parse(reference))
    with showing(name, quiet=quiet) as report:
        if all_platforms:
            ImageStore().pull_others(name, plain_http=plain_http, progress=report)
        found = ImageStore().pull(name, platform=platform, plain_http=plain_http, progress=report)
    if not quiet:
        click.echo(f"Digest: {found.digests[-1].partition('@')[2]}", err=True)
    click.echo(name)


@image.command(name="import")
@click.option("--cmd", default="", help="Default command: words as in a shell, or a JSON list.")
@click.option("--entrypoint", default="", help="What the command is given to, likewise.")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="An environment variable.")
@click.option("-w", "--workdir", default="", help="Working directory.")
@click.option("-u", "--user", default="", help="User: name or uid, with :group.")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="A label.")
@click.option("--expose", multiple=True, metavar="PORT[/udp]", help="A port it listens on.")
@click.option("--stop-signal", default="", help="What stop sends first.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="What it runs on, if not this machine.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("name")
def import_image(source: Path, name: str, platform: str | None, **options: Any) -> None:
    """Make an image NAME of one layer from SOURCE, a tar archive or a directory."""
    from minirt.images.store import ImageConfig, ImageStore

    config = ImageConfig(
        entrypoint=_words(options["entrypoint"]),
        cmd=_words(options["cmd"]),
        env=tuple(f"{key}={value}" for key, value in _pairs(options["env"]).items()),
        user=options["user"],
        working_dir=options["workdir"],
        stop_signal=options["stop_signal"],
        exposed_ports=tuple(port if "/" in port else f"{port}/tcp" for port in options["expose"]),
        labels=_pairs(options["label"]),
    )
    click.echo(ImageStore().import_rootfs(source, name, config=config, platform=platform).id)


@image.command()
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("-i", "--input", "given", type=click.Path(path_type=Path), help="The same as ARCHIVE, as docker has it.")
@click.argument("archive", type=click.Path(path_type=Path), required=False)
def load(archive: Path | None, given: Path | None, quiet: bool) -> None:
    """Add the images of ARCHIVE: docker's or OCI's, or an OCI layout directory; without one, of stdin."""
    import sys

    from minirt.cli.pullprogress import showing
    from minirt.images.store import ImageStore

    source = archive or given
    if archive and given:
        raise InvalidInput(f"load {archive}", f"{given} is to be loaded, too", "load one after the other")
    if (source is None or str(source) == "-") and sys.stdin.isatty():
        raise InvalidInput("load from a terminal", "nobody types an archive", "name a file, or give a pipe")
    with showing(str(source or "-"), quiet=quiet) as report:
        store = ImageStore()
        if source is None or str(source) == "-":
            found = store.load_stream(sys.stdin.buffer, progress=report)
        else:
            found = store.load(source, progress=report)
    for one in found:
        click.echo(f"Loaded image: {', '.join(one.names) or one.id}")


@image.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write, instead of stdout.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
def save(names: tuple[str, ...], output: Path | None) -> None:
    """Write images to one archive: docker's and OCI's form at once, over the same blobs."""
    import sys

    from minirt.images.archive import whole_file
    from minirt.images.store import ImageStore

    if output:
        with whole_file(output) as target:
            ImageStore().save(names, target)
    elif sys.stdout.isatty():
        raise InvalidInput("save to a terminal", "an archive is nothing to look at", "give --output, or a pipe")
    else:
        ImageStore().save(names, sys.stdout.buffer)


@image.command()
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
def ls(quiet: bool, no_trunc: bool) -> None:
    """List images, a line for each of their names."""
    from minirt.images.store import ImageStore

    images = ImageStore().list()
    if quiet:
        click.echo("".join(f"{_id(one, no_trunc)}\n" for one in images), nl=False)
        return
    rows = [(*name, *_facts(one, no_trunc)) for one in images for name in _names(one)]
    table(("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"), sorted(rows))


@image.command()
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
def inspect(names: tuple[str, ...]) -> None:
    """Show everything about images, as JSON in docker's words."""
    from minirt.images.store import ImageStore

    store = ImageStore()
    click.echo(json.dumps([_described(store.get(name)) for name in names], indent=4))


@image.command()
@click.option("-f", "--force", is_flag=True, help="Remove it with all its names.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Take away a name of an image, and with the last one the image."""
    from minirt.images.store import ImageStore

    store, code = ImageStore(), 0
    for name in names:
        try:
            click.echo("\n".join(store.remove(name, force=force)))
        except MinirtError as error:
            click.echo(f"minirt: {error}", err=True)
            code = 1
    return code


def _words(text: str) -> tuple[str, ...]:
    """Return a command's words. Raises InvalidInput: neither a shell's words nor a JSON list of them."""
    try:
        words = json.loads(text) if text.startswith("[") else shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"read the command {text!r}", str(error), "write it as in a shell, or as a list") from error
    if not all(isinstance(word, str) for word in words):
        raise InvalidInput(f"read the command {text!r}", "not all of the list are strings", 'for example ["sh", "-c"]')
    return tuple(words)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if text.find("=") < 1:
            raise InvalidInput(f"read {text!r}", "there is no name and '='", "write it as KEY=VALUE")
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def _names(one: "Image") -> list[tuple[str, str]]:
    """Return (repository, tag) of each name; docker's <none> where there is none."""
    if one.names:
        return [(name.rpartition(":")[0], name.rpartition(":")[2]) for name in one.names]
    return [(digest.partition("@")[0], "<none>") for digest in one.digests] or [("<none>", "<none>")]


def _facts(one: "Image", no_trunc: bool) -> tuple[str, str, str]:
    from minirt.cli.pullprogress import megabytes

    created = f"{age(nanoseconds(one.created))} ago" if one.created else "N/A"
    return _id(one, no_trunc), created, megabytes(one.size_bytes)


def _id(one: "Image", no_trunc: bool) -> str:
    return one.id if no_trunc else one.id[7:19]


def nanoseconds(created: str) -> int:
    """Return an RFC 3339 time, whose fraction may have nine digits, in nanoseconds since 1970."""
    return int(datetime.fromisoformat(created).timestamp() * 10**9)


def _described(one: "Image") -> dict[str, Any]:
    config = one.config
    return {
        "Id": one.id,
        "RepoTags": one.names,
        "RepoDigests": one.digests,
        "Created": one.created,
        "Architecture": one.platform.architecture,
        "Variant": one.platform.variant,
        "Os": one.platform.os,
        "Size": one.size_bytes,
        "Config": {
            "User": config.user,
            "ExposedPorts": {port: {} for port in config.exposed_ports},
            "Env": config.env,
            "Entrypoint": config.entrypoint or None,
            "Cmd": config.cmd or None,
            "Volumes": {volume: {} for volume in config.volumes},
            "WorkingDir": config.working_dir,
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
        },
        "RootFS": {"Type": "layers", "Layers": one.diff_ids},
    }
