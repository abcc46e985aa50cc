"""Death at every step: of the command line, the zygote, the shim, the sandbox's keeper, and init, before and after.

After each death the user removes what is listed and prunes; then there is no process, mount, link, cgroup, rule or file
left that was not there before.
"""

import pytest

from tests.integration.crash.lab import Lab, Scenario

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("cgroup2_tree", "nft", "busybox")]
BUSYBOX = "localhost/busybox"
when = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


def check(lab: Lab, found: list[str]) -> None:
    """Say how many deaths there were, and that nothing is left of any."""
    print(f"{lab.tried} deaths")
    assert not found, "\n".join(found)
    assert lab.tried


@when
@pytest.mark.parametrize("stage", ["cli", "zygote", "shim", "keeper", "init"])
def test_a_run_without_a_network(lab: Lab, stage: str, after: bool) -> None:
    run = Scenario("run", "--rm", "--network", "none", BUSYBOX, "true")
    check(lab, lab.die_everywhere(run, stage, after=after))


@when
@pytest.mark.parametrize("stage", ["cli", "shim", "keeper"])
def test_a_run_on_the_bridge(lab: Lab, stage: str, after: bool) -> None:
    """Init and the zygote do on the bridge what they do without a network."""
    run = Scenario("run", "--rm", BUSYBOX, "true")
    check(lab, lab.die_everywhere(run, stage, after=after))


@pytest.mark.parametrize("stage", ["cli", "shim"])
def test_between_any_two_changes_of_files(lab: Lab, stage: str) -> None:
    """No step of the journal, and yet a moment to die at: each change of a state file, a name or a layer."""
    run = Scenario("run", "--rm", "--name", "web", "--network", "none", BUSYBOX, "true")
    check(lab, lab.die_everywhere(run, stage, files=True))


@when
@pytest.mark.parametrize("stage", ["cli", "shim", "init"])
@pytest.mark.parametrize("words", [["stop", "-t0"], ["stop", "-t5"], ["kill"], ["rm", "-f"], ["exec"]], ids=" ".join)
def test_what_is_done_to_a_container(lab: Lab, words: list[str], stage: str, after: bool) -> None:
    start = ["run", "-d", "--name", "web", "--network", "none", BUSYBOX, "sh", "-c", "trap exit TERM; sleep 60 & wait"]
    scenario = Scenario(*words, "web", *(["true"] if words == ["exec"] else []), first=start)
    check(lab, lab.die_everywhere(scenario, stage, after=after))
