"""``minirt system``: this machine, rather than one pod or container."""

import json

import click

from minirt.cli import imagecare

COLOURS = {"ok": "green", "limited": "yellow", "missing": "red"}


@click.group()
def system() -> None:
    """Look at this machine, and keep it tidy."""


system.add_command(imagecare.df)


@system.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Try out what this kernel offers, and say what to do about what it does not.

    Exit status: 0 if everything that minirt needs is there, else 1.
    """
    from minirt.engine import check as checks

    findings = checks.check()
    if as_json:
        click.echo(json.dumps([finding.as_plain() for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            click.echo(_line(finding.name.ljust(width), finding.status, finding.detail, finding.do))
    context.exit(0 if checks.is_enough(findings) else 1)


@system.command()
def prune() -> None:
    """Remove what crashes left: nothing that lives is touched."""
    from minirt.cli.main import need_root

    need_root("prune")
    from minirt.engine import prune as engine
    from minirt.kubelet import prune as kubelet

    removed = 0
    for line in (*engine.prune(), *kubelet.prune()):
        removed += 1
        click.echo(f"removed {line}")
    if not removed:
        click.echo("nothing to remove")


@system.command(hidden=True)
@click.argument("sandbox_id")
def cleanup(sandbox_id: str) -> None:
    """Do what must follow a container's end; its shim calls this when nobody waits."""
    from minirt.engine.prune import clean_up

    clean_up(sandbox_id)


def _line(name: str, status: str, detail: str, do: str) -> str:
    remedy = f" ({do})" if do else ""
    told = f"{click.style(status, COLOURS[status])}{' ' * (9 - len(status))}{detail}{remedy}"
    return f"{name}  {told.rstrip()}"
