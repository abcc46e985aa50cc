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
@click.option(
    "--cni-conf-dir",
    default="/etc/cni/net.d",
    show_default=True,
    help="Where a CNI configuration is; without one pods are on minirt's bridge. '' looks nowhere.",
)
@click.option(
    "--cni-bin-dir",
    multiple=True,
    default=("/opt/cni/bin", "/usr/lib/cni"),
    show_default=True,
    help="Where CNI's plugins are; may be given again.",
)
@click.option("--best-effort-limits", is_flag=True, help="Make pods also without limits that this kernel cannot set.")
def serve(listen: Path, cni_conf_dir: str, cni_bin_dir: tuple[str, ...], best_effort_limits: bool) -> None:
    """Serve the Kubernetes Container Runtime Interface (CRI v1) until SIGTERM. Containers outlive the server."""
    need_root("serve")
    from minirt.engine import probes

    maps_ids = probes.maps_ids()  # in a fork: before anything here could start a thread
    from minirt.cri import serving
    from minirt.network.directories import Directories
    from minirt.shim import zygote

    serving.check(listen)
    logging.basicConfig(level=logging.INFO, format="minirt: %(message)s")
    gc.freeze()  # what is imported by now is no garbage
    gc.enable()
    cni = Directories(cni_conf_dir, cni_bin_dir) if cni_conf_dir else None
    serving.run(zygote.take(), listen, best_effort=best_effort_limits, cni=cni, maps_ids=maps_ids)
