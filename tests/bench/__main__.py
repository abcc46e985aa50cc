"""``python -m tests.bench [--runs N] [NAME…]``: the ratios of docs/performance.md, or those of the benches named.

The zygote is forked before the benches are imported, as the command line forks it before anything else: what it has
not imported, its children need not copy.
"""

import os
import sys
from typing import Any

from minirt import archive, imports
from tests import isolation

NAMES = ("warm", "exec", "cold", "oci", "pod", "pull", "cri")


def main() -> int:
    """Run the benches that are named (all of them otherwise); return 1 if a target is missed."""
    if os.geteuid() != 0:
        sys.exit("the bench makes namespaces: run it as root")
    isolation.enter()
    place = f"/tmp/minirt-bench-{os.getpid()}"
    os.mkdir(place, 0o700)
    os.environ |= {"MINIRT_STATE": "/run/minirt", "MINIRT_ROOT": f"{place}/root", "MINIRT_CGROUP": "minirt-bench"}
    archive.install("minirt")
    imports.msgspec_alone()
    from minirt.shim.zygote import Zygote

    zygote = Zygote()
    try:
        return _run(place, zygote)
    finally:
        import shutil

        from minirt.cgroups import lifecycle, tree

        zygote.close()
        lifecycle.end(tree.find().at("/minirt-bench"))
        shutil.rmtree(place)


def _run(directory: str, zygote: Any) -> int:
    import argparse
    import importlib
    from pathlib import Path

    from tests.peers import busybox

    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--pods", type=int, default=110, help="how many of them the CRI's bench starts")
    parser.add_argument("names", nargs="*", metavar="|".join(NAMES))
    chosen = parser.parse_args()
    place = Path(directory)
    root = busybox.root_file_system(place / "busybox")
    met = True
    for one in chosen.names or NAMES:
        bench = importlib.import_module(f"tests.bench.{one}").bench
        further = {"pods": chosen.pods} if one == "cri" else {}
        results = bench(place / one, root, zygote, chosen.runs, **further)
        for result in results if isinstance(results, list) else [results]:
            print(result.line(), flush=True)
            met = met and result.is_met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
