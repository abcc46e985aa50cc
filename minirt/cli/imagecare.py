"""``minirt image tag|history|mount|unmount|prune|gc|fsck`` and ``minirt system df``: to keep images in order."""

import json
from pathlib import Path

import click

from minirt.cli.containers import age, table
from minirt.cli.main import need_root
from minirt.errors import InvalidInput


@click.command()
@click.argument("source", metavar="IMAGE")
@click.argument("name")
def tag(source: str, name: str) -> None:
    """Give IMAGE another NAME; another image that has it loses it."""
    from minirt.images.store import ImageStore

    ImageStore().tag(source, name)


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Digests of layers only.")
@click.option("--no-trunc", is_flag=True, help="Whole commands.")
@click.argument("name", metavar="IMAGE")
def history(name: str, quiet: bool, no_trunc: bool) -> None:
    """Show the steps by which IMAGE was made, the last one first, and what each added in bytes."""
    from minirt.cli.image import nanoseconds
    from minirt.cli.pullprogress import megabytes
    from minirt.images.store import ImageStore

    steps = ImageStore().history(name)
    if quiet:
        click.echo("".join(f"{step.diff_id}\n" for step in steps if step.diff_id), nl=False)
        return
    rows: list[tuple[str, ...]] = []
    for step in steps:
        words = " ".join(step.created_by.split())
        if len(words) > 45 and not no_trunc:
            words = f"{words[:44]}…"
        created = f"{age(nanoseconds(step.created))} ago" if step.created else "N/A"
        rows.append((step.diff_id[7:19] or "<none>", created, words, megabytes(step.size_bytes), step.comment))
    table(("LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"), rows)


@click.command()
@click.argument("name", metavar="IMAGE")
@click.argument("target", type=click.Path(path_type=Path))
def mount(name: str, target: Path) -> None:
    """Mount IMAGE's file system on the directory TARGET, read only."""
    need_root("mount an image")
    from minirt.images.mounting import mount_image
    from minirt.images.store import ImageStore

    store = ImageStore()
    mount_image(store.root, store.get(name), target)


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
def unmount(target: Path) -> None:
    """Unmount the image that is mounted on TARGET."""
    need_root("unmount an image")
    from minirt import paths
    from minirt.images.mounting import unmount_image

    unmount_image(paths.data_root(), target)


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Those with names, too.")
def prune(everything: bool) -> None:
    """Remove images without a name that no container stands on, and whatever else nothing uses."""
    need_root("remove images")
    from minirt import paths
    from minirt.cli.pullprogress import megabytes
    from minirt.images import reclaim

    found = reclaim.prune(paths.data_root(), everything=everything)
    for line in found.lines:
        click.echo(line)
    click.echo(f"Total reclaimed space: {megabytes(found.size_bytes)}")


@click.command()
@click.option("--high", type=click.IntRange(0, 100), default=85, show_default=True, help="Begin when it is fuller.")
@click.option("--low", type=click.IntRange(0, 100), default=80, show_default=True, help="End when it is no fuller.")
@click.option("--min-age", type=float, default=120, show_default=True, help="Seconds since an image was used last.")
def gc(high: int, low: int, min_age: float) -> None:
    """Remove images that no container stands on, the longest unused first, while the disk is too full."""
    need_root("remove images")
    from minirt import paths
    from minirt.cli.pullprogress import megabytes
    from minirt.images import reclaim

    if low > high:
        raise InvalidInput("collect garbage", f"--low {low} is above --high {high}", "give a lower one")
    root = paths.data_root()
    size_bytes = 0
    for found in reclaim.gc(root, high, low, min_age):
        size_bytes += found.size_bytes
        click.echo("\n".join(found.lines))
    click.echo(f"Total reclaimed space: {megabytes(size_bytes)}; the disk is {reclaim.percent_used(root):.0f} % full")


@click.command()
@click.option("--repair", is_flag=True, help="Repair it; otherwise it is only looked at.")
def fsck(repair: bool) -> int:
    """Compare the store of images with itself: every blob's digest, images, layers, and what crashes left.

    Exit status: 0 if nothing is wrong or all of it has been repaired, else 1.
    """
    need_root("look at the store of images")
    from minirt import paths
    from minirt.images.fsck import fsck as check

    wrong = unrepaired = 0
    for found in check(paths.data_root(), repair=repair):
        wrong += 1
        unrepaired += not (repair and found.remedy)
        remedy = f" ({found.remedy if repair else f'--repair: {found.remedy}'})" if found.remedy else ""
        click.echo(f"{found.what}: {found.why}{remedy}")
    if not wrong:
        click.echo("nothing is wrong")
    return 1 if unrepaired else 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON, in bytes.")
def df(as_json: bool) -> None:
    """Show what images, containers and kept downloads take of the disk, and how much could go."""
    need_root("measure the store of images")
    import msgspec

    from minirt import paths
    from minirt.cli.pullprogress import megabytes
    from minirt.images import reclaim

    found = reclaim.usage(paths.data_root())
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(share) for share in found], indent=2))
        return
    rows: list[tuple[str, ...]] = []
    for share in found:
        percent = f" ({100 * share.reclaimable_bytes // share.size_bytes}%)" if share.size_bytes else ""
        sizes = (megabytes(share.size_bytes), megabytes(share.reclaimable_bytes) + percent)
        rows.append((share.kind, str(share.total), str(share.active), *sizes))
    table(("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"), rows)
