"""``minirt login``, ``logout``, and what ``minirt image`` has to do with registries besides pulling."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from minirt.errors import InvalidInput

if TYPE_CHECKING:
    from minirt.images.registry import Registry

PLAIN = click.option("--plain-http", is_flag=True, default=None, help="Use HTTP (loopback is spoken to so anyway).")


@click.command()
@click.option("-u", "--username", default="", help="The user; asked for if it is left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.option("-p", "--password", default="", help="The password; others on this machine can see it there.")
@PLAIN
@click.argument("registry", default="docker.io")
def login(registry: str, username: str, password: str, password_stdin: bool, plain_http: bool | None) -> None:
    """Log in to REGISTRY (docker.io): the password is tried there, and kept where docker keeps it."""
    from minirt.images import credentials
    from minirt.images.reference import checked_registry
    from minirt.images.registry import Registry

    host = checked_registry(registry)
    given = credentials.Credentials(*_asked(username, password, password_stdin))
    server = Registry(host, plain_http=plain_http, credentials=given)
    try:
        server.check()
    finally:
        server.close()
    where = credentials.store(host, given)
    click.echo(f"Login Succeeded: kept in {where}", err=True)


def _asked(user: str, password: str, from_stdin: bool) -> tuple[str, str]:
    """Return user and password, asked for where there is a terminal. Raises InvalidInput: there is none."""
    if from_stdin and (password or not user):
        raise InvalidInput("log in", "--password-stdin goes with --username, and without --password", "give --username")
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise InvalidInput("log in", "there is no password on stdin", "write it there: … < password-file")
    elif not (user and password) and not sys.stdin.isatty():
        raise InvalidInput("log in", "there is no terminal to ask for the password", "use --password-stdin")
    user = user or click.prompt("Username", err=True)
    return user, password or click.prompt("Password", hide_input=True, err=True)


@click.command()
@click.argument("registry", default="docker.io")
def logout(registry: str) -> None:
    """Forget the credentials for REGISTRY (docker.io)."""
    from minirt.images import credentials
    from minirt.images.reference import checked_registry

    host = checked_registry(registry)
    found = credentials.erase(host)
    click.echo(f"Removed the credentials for {host}" if found else f"Not logged in to {host}", err=True)


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@PLAIN
@click.argument("image")
@click.argument("target", default="")
def push(image: str, target: str, quiet: bool, plain_http: bool | None) -> None:
    """Give IMAGE to the registry of its name, or of the name TARGET."""
    from minirt.cli.pullprogress import showing
    from minirt.images.store import ImageStore, Reference

    name = str(Reference.parse(target or image))
    with showing(name, quiet=quiet, verb="Pushing") as report:
        digest = ImageStore().push(image, name, plain_http=plain_http, progress=report)
    if not quiet:
        click.echo(f"Digest: {digest}", err=True)
    click.echo(name)


@contextlib.contextmanager
def _opened(host: str, plain_http: bool | None) -> "Iterator[Registry]":
    from minirt.images.registry import Registry

    registry = Registry(host, plain_http=plain_http)
    try:
        yield registry
    finally:
        registry.close()


@click.command()
@PLAIN
@click.argument("repository")
def tags(repository: str, plain_http: bool | None) -> None:
    """List the tags of REPOSITORY, as its registry has them."""
    from minirt.images.reference import Reference

    reference = Reference.parse(repository)
    with _opened(reference.registry, plain_http) as registry:
        for tag in registry.tags(reference.repository):
            click.echo(tag)


@click.command()
@PLAIN
@click.option("--type", "kind", default="", help="Of one artifact type only.")
@click.argument("image")
def referrers(image: str, kind: str, plain_http: bool | None) -> None:
    """List what a registry has that refers to IMAGE: signatures, bills of materials."""
    from minirt.cli.containers import table
    from minirt.images.reference import Reference

    reference = Reference.parse(image)
    with _opened(reference.registry, plain_http) as registry:
        digest = reference.digest or registry.manifest(reference.repository, reference.target).digest
        found = registry.referrers(reference.repository, digest, kind)
    table(("DIGEST", "ARTIFACT TYPE", "SIZE"), [(one.digest, one.artifact_type or "-", str(one.size)) for one in found])
