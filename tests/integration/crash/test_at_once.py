"""Many callers at once, and two of the same thing at the same moment: everybody is served, or told why not."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.command import Minirt
from tests.integration.crash.lab import POD, Done, Lab
from tests.integration.lifecycle.watching import contents

pytestmark = [pytest.mark.root, pytest.mark.needs("cgroup2_tree", "nft", "busybox")]
ROUNDS = 10


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_twenty_runs_at_once(minirt: Minirt, busybox: str, network: str) -> None:
    minirt.output("run", "--rm", "--network", network, busybox, "true")
    before = contents(minirt)
    with ExitStack() as stack:
        words = ["run", "--rm", "--network", network, busybox, "sh", "-c"]
        runs = [stack.enter_context(minirt.start(*words, f"echo I am {n}; exit {n}")) for n in range(20)]
        told = [run.communicate(timeout=120) for run in runs]
    assert told == [(f"I am {n}\n", "") for n in range(20)]
    assert [run.returncode for run in runs] == list(range(20))
    assert contents(minirt) == before
    assert minirt.output("ps", "-aq") == ""


def test_twenty_containers_side_by_side(minirt: Minirt, busybox: str) -> None:
    """All of them live at the same time, on the bridge, each with an address of its own."""
    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(lambda _: minirt.output("run", "-d", busybox, "sleep", "60", timeout_s=120), range(20)))
        found = json.loads(minirt.output("inspect", *ids))
        assert {one["state"]["status"] for one in found} == {"running"}
        assert len({one["address"] for one in found}) == 20
        list(pool.map(lambda id_: minirt.output("rm", "-f", id_, timeout_s=120), ids))
    assert minirt.output("ps", "-aq") == ""
    assert minirt.output("system", "prune") == "nothing to remove"


@pytest.fixture
def labs(minirt: Minirt, busybox: str, tmp_path: Path) -> Iterator[tuple[Lab, Lab]]:
    """Two warm command lines of one minirt: they meet where two cold ones would hardly ever."""
    with Lab(minirt, tmp_path / "fuse1") as one, Lab(minirt, tmp_path / "fuse2") as other:
        yield one, other


def both(labs: tuple[Lab, Lab], *words: str) -> list[Done]:
    """Run the same command in both at the same moment; return what they said, who succeeded first."""
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda lab: lab(*words), labs))
    return sorted(done, key=lambda one: one.code)


def test_two_remove_the_same_container(labs: tuple[Lab, Lab], minirt: Minirt) -> None:
    lab = labs[0]
    for turn in range(ROUNDS):
        network = ("none", "bridge")[turn % 2]
        lab.output("run", "-d", "--name", "web", "--network", network, "localhost/busybox", "sleep", "60")
        first, second = both(labs, "rm", "-f", "web")
        assert first == Done(0, "web\n")
        assert second in (Done(0, "web\n"), Done(1, second.output))
        assert "Traceback" not in second.output
        assert lab.output("system", "prune") == "nothing to remove"


def test_two_stop_the_same_container(labs: tuple[Lab, Lab]) -> None:
    lab = labs[0]
    for _ in range(ROUNDS):
        lab.output("run", "-d", "--name", "web", "--network", "none", "localhost/busybox", "sleep", "60")
        assert both(labs, "stop", "-t0", "web") == [Done(0, "web\n")] * 2
        assert lab.output("wait", "web") == "137"
        lab.output("rm", "web")


def test_two_want_the_same_name(labs: tuple[Lab, Lab]) -> None:
    for _ in range(ROUNDS):
        command = ["run", "-d", "--name", "web", "--network", "none", "localhost/busybox", "sleep", "60"]
        winner, loser = both(labs, *command)
        assert winner.code == 0
        assert loser.code == 125
        assert loser.output.startswith("minirt: cannot use the name 'web': container ")
        assert loser.output.endswith(" has it (remove it first (minirt rm web), or choose another name)\n")
        assert labs[0].output("ps", "-q") == winner.output[:12]
        labs[0].output("rm", "-f", "web")


def test_a_name_is_free_again(labs: tuple[Lab, Lab]) -> None:
    """One removes a container while another takes its name: there is never a moment in which nobody may have it."""
    one, other = labs
    run = ["run", "-d", "--name", "web", "--network", "none", "localhost/busybox", "sleep", "60"]
    for _ in range(ROUNDS):
        one.output(*run)
        with ThreadPoolExecutor(2) as pool:
            removal, taking = pool.submit(one, "rm", "-f", "web"), pool.submit(other, *run)
        assert removal.result() == Done(0, "web\n")
        if taking.result().code == 0:
            assert one.output("ps", "-q") == taking.result().output[:12]
            one.output("rm", "-f", "web")
        assert one.output("system", "prune") == "nothing to remove"


@pytest.mark.parametrize("explicit", ["", "uid: 00000000-0000-0000-0000-000000000001"], ids=["", "uid"])
def test_two_run_the_same_manifest(labs: tuple[Lab, Lab], tmp_path: Path, explicit: str) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        (POD % "true").replace('["true"]', '["sleep", "60"]').replace("name: web", f"name: web, {explicit}")
    )
    for _ in range(ROUNDS // 2):
        winner, loser = both(labs, "pod", "run", "-d", str(manifest))
        assert winner.code == 0, winner
        assert loser.code == 125
        assert "minirt: cannot run the pod" in loser.output
        assert len(labs[0].output("pod", "ps", "-q").split()) == 1
        assert both(labs, "pod", "rm", "-f", "web")[0] == Done(0, "web\n")
        assert labs[0].output("system", "prune") == "nothing to remove"


def test_prune_while_others_work(labs: tuple[Lab, Lab]) -> None:
    """It takes nothing away from a container that is being made, runs, or is being removed."""
    one, other = labs
    with ThreadPoolExecutor(1) as pool:
        for _ in range(ROUNDS):
            run = pool.submit(one, "run", "--rm", "localhost/busybox", "sh", "-c", "echo alive; exit 5")
            while not run.done():
                assert other("system", "prune") == Done(0, "nothing to remove\n")
            assert run.result() == Done(5, "alive\n")
