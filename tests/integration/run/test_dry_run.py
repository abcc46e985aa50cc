"""``--dry-run`` says what would be done and touches nothing; ``--trace`` and ``explain`` say what was done."""

import re
from pathlib import Path

import pytest

from tests import leaks
from tests.command import Minirt
from tests.integration.lifecycle.watching import contents, inspected

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

LINE = re.compile(r"(engine|shim|keeper|stage|init) +\S.*")


def steps(text: str) -> list[tuple[str, str]]:
    """Return (stage, what) of each line of a dry run."""
    head, *lines = text.splitlines()
    assert head.startswith("# what minirt would do to run")
    assert all(LINE.fullmatch(line) for line in lines), lines
    return [(stage, what.strip()) for stage, _, what in (line.partition(" ") for line in lines)]


def test_a_dry_run_touches_nothing(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    before = contents(minirt), leaks.look(leaks.KINDS)
    missing = tmp_path / "missing"
    flags = ["--name", "one", "-p", "18080:80", "-v", f"{missing}:/share"]
    minirt.output("run", "--dry-run", *flags, busybox, "true")
    assert not missing.exists()
    assert contents(minirt) == before[0]
    assert leaks.leaks_since(before[1], leaks.KINDS) == []
    assert minirt.output("ps", "-aq") == ""


def test_it_lists_the_steps_in_order_stage_by_stage(minirt: Minirt, busybox: str) -> None:
    found = steps(minirt.output("run", "--dry-run", busybox, "echo", "two words"))
    stages = list(dict.fromkeys(stage for stage, _ in found))
    assert stages == ["shim", "keeper", "engine", "init"]
    whats = [what for _, what in found]
    order = ["unshare CLONE_NEWNET", "clone3 CLONE_NEWNS", "mount overlay", "mount -t proc", "pivot_root", "execve"]
    places = [next(place for place, what in enumerate(whats) if what.startswith(begin)) for begin in order]
    assert places == sorted(places)
    assert whats[-1] == "execve echo two words"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--read-only"], r"init mount_setattr / MOUNT_ATTR_RDONLY"),
        (["-h", "web"], r"keeper sethostname web"),
        (["-v", "/tmp:/share:ro"], r"init mount --rbind /tmp /share -o ro"),
        (["-w", "/work"], r"init chdir /work"),
        (["-p", "18080:80/udp"], r"engine nft .* dnat \*:18080/udp to port 80"),
        (["--oom-score-adj", "5"], r"init write 5 to /proc/self/oom_score_adj"),
        (["-t"], r"init open /dev/ptmx, make its peer the controlling terminal and /dev/console"),
        (["--cap-drop", "ALL"], r"init prctl PR_CAPBSET_DROP all but none"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_flag_is_seen_in_the_plan(minirt: Minirt, busybox: str, flags: list[str], wanted: str) -> None:
    lines = [" ".join(step) for step in steps(minirt.output("run", "--dry-run", *flags, busybox, "true"))]
    assert any(re.fullmatch(wanted, line) for line in lines), "\n".join(lines)


def test_networks_differ_in_what_the_engine_does(minirt: Minirt, busybox: str) -> None:
    def of_engine(*flags: str) -> list[str]:
        found = steps(minirt.output("run", "--dry-run", *flags, busybox, "true"))
        return [what for stage, what in found if stage == "engine"]

    assert of_engine("--network", "none") == of_engine("--network", "host") == []
    assert any("veth" in what for what in of_engine("--network", "bridge"))


def test_a_dry_run_refuses_what_a_run_would(minirt: Minirt, busybox: str) -> None:
    done = minirt("run", "--dry-run", "localhost/no-such-image", "true")
    assert (done.returncode, "it is not in the store" in done.stderr) == (125, True)
    done = minirt("run", "--dry-run", "-u", "stranger", busybox, "true")
    assert (done.returncode, "cannot run as user 'stranger'" in done.stderr) == (125, True)


def test_a_trace_can_be_explained_while_it_runs_and_after(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--trace", "--name", "one", "--network", "none", busybox, "sleep", "1000")
    init = inspected(minirt, "one")["state"]["pid"]
    text = minirt.output("explain", "container", "one")
    assert f"\ninit (pid {init})\n" in text
    names = re.findall(r"^ +[\d.]+ ms  (\w+)\(", text, re.MULTILINE)
    order = ["fork", "clone3", "unshare", "fsopen", "move_mount", "pivot_root", "execve"]
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    minirt.output("stop", "-t", "0", "one")
    assert minirt.output("explain", "container", "one").startswith(text.splitlines()[0])
    minirt.output("rm", "one")


def test_without_a_trace_there_is_nothing_to_explain(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "--name", "one", "--network", "none", busybox, "true")
    done = minirt("explain", "container", "one")
    assert (done.returncode, "it was run without a journal (run it again with --trace)" in done.stderr) == (125, True)
    minirt.output("rm", "one")
