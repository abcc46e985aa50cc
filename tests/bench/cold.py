"""Cold start: ``minirt run --rm --network none`` and docker's, from the call of the command to its end."""

import subprocess
from pathlib import Path

from minirt.shim.zygote import Zygote
from tests.bench.measure import Result, interleaved
from tests.command import COMMAND
from tests.peers import busybox
from tests.peers.docker import Dockerd

FLAGS = ["--rm", "--network", "none", busybox.NAME, "true"]


def bench(place: Path, root: Path, zygote: Zygote, runs: int) -> Result:
    """Return the ratio of a cold ``minirt run`` to ``docker run``."""
    import_image(root)
    place.mkdir()
    docker = Dockerd(place / "docker", [busybox.archive(place / "busybox.tar", root)])
    client = ["docker", "--host", docker.socket, "run", *FLAGS]
    try:
        timings = interleaved({"minirt": lambda: _run([COMMAND, "run", *FLAGS]), "docker": lambda: _run(client)}, runs)
    finally:
        docker.close()
    return Result("cold run of a container", "docker", timings["minirt"], timings["docker"], 0.5)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def import_image(root: Path) -> None:
    """Give our store localhost/busybox."""
    from minirt.images.image import ImageConfig
    from minirt.images.store import ImageStore

    config = ImageConfig(cmd=("sh",), env=("PATH=/usr/bin:/bin",))
    ImageStore().import_rootfs(root, busybox.NAME, config=config)
