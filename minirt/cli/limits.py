"""Limits that this machine may not be able to keep: refused before anything starts, or with a warning left out."""

import click
from msgspec import structs

from minirt.cgroups import missing
from minirt.cgroups.resources import Resources
from minirt.engine.records import ContainerConfig


def settle(config: ContainerConfig, *, best_effort: bool) -> ContainerConfig:
    """Return ``config`` with the limits that can be kept.

    Raises:
        ControllerMissing: one cannot, and ``best_effort`` is not given.
    """
    if config.resources == Resources():
        return config
    if not best_effort:
        missing.check(config.resources, config.name)
    kept, warnings = missing.without_missing(config.resources, config.name)
    for text in warnings:
        click.echo(f"minirt: warning: {text}", err=True)
    return structs.replace(config, resources=kept)
