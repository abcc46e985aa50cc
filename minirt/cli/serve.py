"""``minirt serve``: the CRI's server, for kubelets and crictl."""

import gc
import logging
from pathlib import Path

import click

from minirt.cli.main import need_root

SOCKET = "/run/minirt/minirt.sock"


@click.command()
@click.option(
    "--listen", type=click.Path(path_type=Path), default=Path(SOCKET), show_default=True, help="The unix socket."
)
@click.option("--best-effort-limits", is_flag=True, help="Make pods also without limits that this kernel cannot set.")
def serve(listen: Path, best_effort_limits: bool) -> None:
    """Serve the Kubernetes Container Runtime Interface (CRI v1) until SIGTERM. Containers outlive the server."""
    need_root("serve")
    from minirt.cri import serving
    from minirt.shim import zygote

    serving.check(listen)
    logging.basicConfig(level=logging.INFO, format="minirt: %(message)s")
    gc.freeze()  # what is imported by now is no garbage
    gc.enable()
    serving.run(zygote.take(), listen, best_effort=best_effort_limits)
