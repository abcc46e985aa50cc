"""``python -m tests.bench [--runs N] [warm] [cold] [pod]``: the ratios of docs/performance.md."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from minirt.shim.zygote import Zygote
from tests import isolation
from tests.bench import cold, pod, warm
from tests.peers import busybox

BENCHES = {"warm": warm.bench, "cold": cold.bench, "pod": pod.bench}


def main() -> int:
    """Run the benches that are named (all of them otherwise); return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("names", nargs="*", metavar="|".join(BENCHES))
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the bench makes namespaces: run it as root")
    isolation.enter()
    with tempfile.TemporaryDirectory(prefix="minirt-bench-") as name:
        place = Path(name)
        os.environ["MINIRT_STATE"] = "/run/minirt"
        os.environ["MINIRT_ROOT"] = str(place / "root")
        zygote = Zygote()
        try:
            root = busybox.root_file_system(place / "busybox")
            results = []
            for one in chosen.names or BENCHES:
                results.append(BENCHES[one](place / one, root, zygote, chosen.runs))
                print(results[-1].line(), flush=True)
        finally:
            zygote.close()
    return 0 if all(result.is_met for result in results) else 1


sys.exit(main())
