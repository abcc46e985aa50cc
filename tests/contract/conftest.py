"""What holds for every contract: a peer is here to prove the case, and is given three tries at it.

Once in thousands of runs runc says that all went well and has lost what the container printed. Such a case says nothing
of minirt, which has one try.
"""

from pathlib import Path

import pytest

PEERS = {"runc", "crun", "containerd"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a case run again on a peer where it has failed; the closing line counts the reruns."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and isinstance(item, pytest.Function) and _peer_of(item):
            item.add_marker(pytest.mark.flaky(reruns=2))


def _peer_of(item: pytest.Function) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return bool(PEERS & {params.get("runtime"), params.get("face")})
