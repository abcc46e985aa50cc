"""``--dry-run``: the operations that starting would execute, in order, with nothing touched."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from minirt.engine.records import ContainerConfig, SandboxConfig


def print_plan(sandbox_config: "SandboxConfig", config: "ContainerConfig") -> int:
    """Print the plan of a container of its own; return the exit code.

    Raises:
        NotFound: its image is not here, and nothing is pulled.
    """
    from minirt.engine import preview

    click.echo(f"# what minirt would do to run {config.name}: nothing has been touched")
    for stage, line in preview.lines(sandbox_config, config):
        click.echo(f"{stage:<7} {line}")
    return 0
