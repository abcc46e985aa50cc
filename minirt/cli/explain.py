"""``minirt explain``: the journal of a run made with --trace, every step in order."""

import click

from minirt.cli.main import need_root
from minirt.errors import NotFound


@click.group()
def explain() -> None:
    """Show, step by step, how a pod or container was made (run it with --trace)."""


@explain.command()
@click.argument("name", metavar="POD")
def pod(name: str) -> None:
    """Explain how POD was made."""
    need_root("read the journal")
    from minirt.engine import store

    _show(store.find_pod(name).id)


@explain.command()
@click.argument("name", metavar="CONTAINER")
def container(name: str) -> None:
    """Explain how CONTAINER (of minirt run) was made."""
    need_root("read the journal")
    from minirt.engine import store

    _show(store.find_container(name).sandbox_id)


def _show(sandbox_id: str) -> None:
    from minirt import journal, paths
    from minirt.cli.explanation import lines

    path = paths.sandbox_dir(sandbox_id) / "journal.ndjson"
    if not path.exists():
        raise NotFound("explain it", "it was run without a journal", "run it again with --trace")
    for line in lines(journal.read_file(str(path))):
        click.echo(line)
