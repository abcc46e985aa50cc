"""cgroup v2's own doings, with real processes: entering, freezing, killing, removing. No controller is needed."""

import contextlib
import errno
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minirt.cgroups import lifecycle, tree
from minirt.cgroups.limits import Setting
from minirt.cgroups.missing import V1_DO, check, without_missing
from minirt.cgroups.plan import EnableControllers, MakeCgroup, WriteCgroup, plan_cgroup
from minirt.cgroups.resources import Memory, Resources
from minirt.cgroups.stats import usage
from minirt.errors import Conflict, ControllerMissing, StepFailed
from minirt.linux import operation, process

pytestmark = [pytest.mark.root, pytest.mark.needs("cgroup2_tree")]

Inhabit = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def root() -> Iterator[str]:
    """Our root in the tree, made; with everything in it killed and removed afterwards."""
    root = tree.find().root
    operation.run(plan_cgroup(root, Resources()), None)
    yield root
    lifecycle.kill(root)
    lifecycle.remove(root)


@pytest.fixture
def inhabit() -> Iterator[Inhabit]:
    """Start a process that sleeps in a cgroup; whoever still does at the end is killed."""
    with contextlib.ExitStack() as stack:

        def start(cgroup: str) -> "subprocess.Popen[bytes]":
            sleeper = stack.enter_context(subprocess.Popen(["sleep", "infinity"]))
            stack.callback(sleeper.kill)
            Path(cgroup, "cgroup.procs").write_text(str(sleeper.pid))
            return sleeper

        yield start


DOMAIN_CONTROLLERS = {"memory", "io", "hugetlb", "rdma", "misc"}
"""Those that a cgroup with processes of its own may not give to its children. Source: cgroup-v2.rst, "Threads"."""


@pytest.fixture
def controller() -> Iterator[str]:
    """A controller that the top gives to the cgroups below it, for the length of the test where it did not before."""
    top = tree.find().base
    control = Path(top, "cgroup.subtree_control")
    offered = DOMAIN_CONTROLLERS.intersection(Path(top, "cgroup.controllers").read_text().split())
    given = offered.intersection(control.read_text().split())
    if not offered:
        pytest.skip("cgroup2_tree: no controller of domains at all")
    name = min(given or offered)
    if not given:
        control.write_text(f"+{name}")
    yield name
    if not given:
        control.write_text(f"-{name}")


def make(*path: str) -> str:
    cgroup = "/".join(path)
    os.mkdir(cgroup)
    return cgroup


def test_a_process_is_born_in_its_cgroup(root: str) -> None:
    fd = lifecycle.open_fd(make(root, "born"))
    reader, writer = os.pipe()
    pid, pidfd = process.clone3(0, fd)
    if pid == 0:
        os.write(writer, Path("/proc/self/cgroup").read_bytes())
        os._exit(0)
    for opened in (fd, writer, pidfd):
        os.close(opened)
    with open(reader) as said:
        assert any(line.startswith("0::/") and line.endswith("/born\n") for line in said)
    os.waitpid(pid, 0)


def test_kill_reaches_every_cgroup_below_and_waits(root: str, inhabit: Inhabit) -> None:
    cgroup = make(root, "c")
    sleepers = [inhabit(where) for where in (cgroup, make(cgroup, "a"), make(cgroup, "a", "b"))]
    assert sorted(lifecycle.pids(cgroup)) == sorted(sleeper.pid for sleeper in sleepers)
    assert lifecycle.is_populated(cgroup)
    lifecycle.kill(cgroup)
    assert lifecycle.pids(cgroup) == []
    assert [sleeper.wait() for sleeper in sleepers] == [-signal.SIGKILL] * 3
    lifecycle.remove(cgroup)
    assert not os.path.exists(cgroup)


def test_kill_reaches_the_frozen(root: str, inhabit: Inhabit) -> None:
    sleeper = inhabit(root)
    lifecycle.freeze(root)
    lifecycle.kill(root)
    assert sleeper.wait() == -signal.SIGKILL


def test_kill_as_old_kernels_need_it(root: str, inhabit: Inhabit) -> None:
    sleepers = [inhabit(root), inhabit(make(root, "a"))]
    lifecycle.kill_one_by_one(root)
    assert [sleeper.wait() for sleeper in sleepers] == [-signal.SIGKILL] * 2
    assert not lifecycle.is_frozen(root)


def test_killing_and_removing_what_is_gone_is_fine(root: str) -> None:
    gone = f"{root}/gone"
    lifecycle.kill(gone)
    lifecycle.kill(gone, wait=False)
    lifecycle.remove(gone)
    assert lifecycle.pids(gone) == []
    assert not lifecycle.is_populated(gone)
    with pytest.raises(FileNotFoundError):
        lifecycle.open_fd(gone)


def test_remove_waits_for_the_dying(root: str, inhabit: Inhabit) -> None:
    cgroup = make(root, "c")
    sleepers = [inhabit(make(cgroup, str(number))) for number in range(5)]
    lifecycle.kill(cgroup, wait=False)
    lifecycle.remove(cgroup)
    assert not os.path.exists(cgroup)
    assert {sleeper.wait() for sleeper in sleepers} == {-signal.SIGKILL}


def test_remove_names_who_still_lives_there(root: str, inhabit: Inhabit) -> None:
    sleeper = inhabit(make(root, "a"))
    with pytest.raises(
        StepFailed, match=rf"cannot remove .*: it did not happen .* processes in it: {sleeper.pid}"
    ) as e:
        lifecycle.remove(root, timeout_s=0.05)
    assert e.value.errno == errno.EBUSY


def test_what_lives_in_a_cgroup_apart_goes_on_in_the_one_above(root: str, inhabit: Inhabit) -> None:
    cgroup = make(root, "c")
    apart = lifecycle.make_apart(cgroup, "apart")
    sleeper = inhabit(apart)
    lifecycle.dissolve(apart)
    assert not os.path.exists(apart)
    assert lifecycle.pids(cgroup) == [sleeper.pid]
    lifecycle.dissolve(apart)


def test_a_cgroup_that_is_divided_by_threads_has_none_apart(root: str) -> None:
    cgroup = make(root, "c")
    Path(make(root, "c", "threads"), "cgroup.type").write_text("threaded")
    assert lifecycle.make_apart(cgroup, "apart") == ""
    assert [os.path.basename(child) for child in lifecycle.children(cgroup)] == ["threads"]


def test_freeze_and_thaw(root: str, inhabit: Inhabit) -> None:
    inhabit(root)
    assert not lifecycle.is_frozen(root)
    lifecycle.freeze(root)
    assert lifecycle.is_frozen(root)
    lifecycle.thaw(root)
    assert not lifecycle.is_frozen(root)


def test_thaw_below_a_frozen_one_says_that_it_did_not_happen(root: str, inhabit: Inhabit) -> None:
    below = make(root, "a")
    inhabit(below)
    lifecycle.freeze(root)
    with pytest.raises(StepFailed, match="thaw"):
        lifecycle.thaw(below, timeout_s=0.05)
    lifecycle.thaw(root)


def test_a_further_process_enters_where_init_is(root: str, inhabit: Inhabit, controller: str) -> None:
    init = inhabit(root)
    assert lifecycle.leaf_of(init.pid) == root
    assert lifecycle.entrance(root, init.pid) == root
    leaf = make(root, "its-own")
    Path(leaf, "cgroup.procs").write_text(str(init.pid))
    Path(root, "cgroup.subtree_control").write_text(f"+{controller}")
    assert lifecycle.delegates(root)
    with pytest.raises(OSError, match="busy"):
        process.clone3(0, fd := lifecycle.open_fd(root))
    os.close(fd)
    assert lifecycle.entrance(root, init.pid) == leaf
    with pytest.raises(FileNotFoundError):
        lifecycle.leaf_of(2**22 + 1)


def test_a_plan_makes_its_cgroup_and_those_above(root: str) -> None:
    cgroup = tree.find().at("pod1/web")
    plan = plan_cgroup("pod1/web", Resources(unified={"cgroup.max.depth": "3"}))
    operation.run(plan, None)
    assert Path(cgroup, "cgroup.max.depth").read_text() == "3\n"
    operation.run(plan_cgroup("pod1/client", Resources()), None)
    assert sorted(lifecycle.children(f"{root}/pod1")) == [f"{root}/pod1/client", cgroup]
    found = usage(cgroup)
    assert (found.cpu_usec, found.pids) in [(0, None), (0, 0)]


def test_a_new_cgroup_replaces_a_dead_one_and_refuses_a_living(root: str, inhabit: Inhabit) -> None:
    cgroup = make(root, "c")
    Path(cgroup, "cgroup.max.depth").write_text("3")
    make(cgroup, "left-by-a-container")
    operation.run([MakeCgroup(cgroup)], None)
    assert lifecycle.children(cgroup) == []
    assert Path(cgroup, "cgroup.max.depth").read_text() == "max\n"
    inhabit(cgroup)
    with pytest.raises(Conflict, match="processes live in it"):
        operation.run([MakeCgroup(cgroup)], None)
    operation.run([MakeCgroup(cgroup, new=False)], None)


def test_controllers_are_not_given_past_processes(root: str, inhabit: Inhabit, controller: str) -> None:
    inhabit(root)
    operation.run([EnableControllers(root)], None)
    with pytest.raises(StepFailed, match=f"processes live in {root} itself") as e:
        operation.run([EnableControllers(root, frozenset({controller}))], None)
    assert e.value.errno == errno.EBUSY


def test_controllers_are_given_once(root: str, controller: str) -> None:
    for _ in range(2):
        operation.run([EnableControllers(root, frozenset({controller}))], None)
    assert lifecycle.delegates(root)


def test_a_file_that_is_not_there_is_explained(root: str) -> None:
    with pytest.raises(StepFailed, match=r"write 5 to .*: No such file .*memory controller has no such file here") as e:
        operation.run([WriteCgroup(root, Setting("memory.nonesuch", "5", "memory"))], None)
    assert e.value.errno == errno.ENOENT


def test_a_value_that_the_kernel_refuses_is_named(root: str) -> None:
    with pytest.raises(StepFailed, match=r"write many to .*/cgroup.max.depth: Invalid argument"):
        operation.run([WriteCgroup(root, Setting("cgroup.max.depth", "many", ""))], None)


def test_a_limit_without_its_controller_is_refused_before_anything_starts() -> None:
    found = tree.find()
    resources = Resources(memory=Memory(limit=64 << 20))
    if "memory" in found.controllers():
        check(resources, "web/nginx")
        assert without_missing(resources, "web/nginx") == (resources, [])
        return
    says = f"cannot limit memory of web/nginx to 64Mi: the memory controller is not in {found.mount}/cgroup.controllers"
    with pytest.raises(ControllerMissing) as e:
        check(resources, "web/nginx")
    assert str(e.value) == f"{says} ({V1_DO})"
    assert without_missing(resources, "web/nginx") == (Resources(), [str(e.value)])


def test_events_wake_a_poll(root: str, inhabit: Inhabit) -> None:
    sleeper = inhabit(root)
    with open(f"{root}/cgroup.events") as events:
        assert "populated 1" in events.read()
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        sleeper.kill()
        assert poll.poll(5000)
        events.seek(0)
        assert "populated 0" in events.read()
