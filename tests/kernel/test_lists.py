"""Lists that are remembered beside lists that are read: after whatever happens on the disk they are the same."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from minirt import paths
from minirt.crimessages import api_pb2 as cri
from minirt.engine import store
from minirt.engine.face import EngineFace
from minirt.engine.lists import Lists
from minirt.engine.records import CRI, ContainerConfig, ContainerRecord, SandboxConfig, SandboxRecord
from minirt.linux import process
from minirt.shim import status as statuses
from minirt.shim.status import Status

REQUESTS = (
    ("ListPodSandbox", cri.ListPodSandboxRequest()),
    ("ListPodSandbox", cri.ListPodSandboxRequest(filter={"state": {"state": cri.PodSandboxState.SANDBOX_READY}})),
    ("ListContainers", cri.ListContainersRequest()),
    ("ListContainers", cri.ListContainersRequest(filter={"state": {"state": cri.ContainerState.CONTAINER_RUNNING}})),
    ("ListContainers", cri.ListContainersRequest(filter={"pod_sandbox_id": "pod1"})),
    ("ListContainers", cri.ListContainersRequest(filter={"label_selector": {"app": "web"}})),
)


class World:
    """A state directory, lists of it that are remembered, and the face that reads it each time."""

    def __init__(self) -> None:
        self.face = EngineFace(None, CRI)
        self.lists = Lists(self.face, CRI)
        self.processes: list[subprocess.Popen[bytes]] = []

    def process(self) -> tuple[int, int]:
        """Start a process; return its pid and start time."""
        started = subprocess.Popen(["sleep", "1000000"])
        self.processes.append(started)
        return started.pid, process.start_time(started.pid)

    def kill(self, pid: int) -> None:
        """Kill one of the processes; nobody reaps it."""
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def sandbox(self, key: str, owner: str = CRI) -> SandboxRecord:
        config = SandboxConfig(name=key, uid=key, owner=owner)
        made = SandboxRecord(key, config, paths.boot_id(), "creating", time.time_ns(), store.me())
        store.create(made)
        return made

    def container(self, key: str, pod: str, owner: str = CRI) -> ContainerRecord:
        config = ContainerConfig(name=key, image="image", labels={"app": "web" if "1" in key else "other"})
        now = time.time_ns()
        made = ContainerRecord(key, pod, config, paths.boot_id(), "image", now, "cgroup", "", owner=owner)
        store.create(made)
        return made

    def is_remembered(self) -> bool:
        """Say whether all lists are answered without a look at the disk."""
        return all(self.lists.again(name, asked.SerializeToString()) is not None for name, asked in REQUESTS)

    def check(self) -> None:
        """Compare each list, answered as a server does, with what is read; then once more, as it is remembered."""
        for name, asked in REQUESTS * 2:
            request = asked.SerializeToString()
            known = self.lists.again(name, request)
            told = self.lists.answer(name, request) if known is None else known
            assert told == getattr(self.face, name)(asked).SerializeToString(), name


def ready(record: SandboxRecord, shim: tuple[int, int]) -> SandboxRecord:
    """Return a sandbox's record once it is ready."""
    return structs.replace(record, state="ready", shim=shim)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("MINIRT_STATE", str(tmp_path / "state"))
    for kind in ("sandboxes", "containers"):
        (tmp_path / "state" / kind).mkdir(parents=True)
    world = World()
    yield world
    world.lists.close()
    for each in world.processes:
        each.kill()
        each.wait()


def test_each_change_is_in_the_very_next_list(world: World) -> None:
    pod = world.sandbox("pod1")
    world.check()
    pid, started = world.process()
    init = world.process()
    running = Status("running", init[0], init[1])
    steps: tuple[Callable[[], object], ...] = (
        lambda: store.save(ready(pod, (pid, started))),
        lambda: world.container("box1", "pod1"),
        lambda: (paths.container_dir("box1") / "config.json").write_text("{}"),
        lambda: statuses.write("box1", Status("created", *init)),
        lambda: statuses.write("box1", running),
        lambda: (world.container("box2", "pod1"), (paths.container_dir("box2") / "config.json").touch()),
        lambda: world.kill(init[0]),
        lambda: statuses.write("box1", running.exited(3, "Error")),
        lambda: world.kill(pid),
        lambda: (paths.container_dir("box2") / "status.json").write_text("{damaged"),
        (paths.container_dir("box2") / "container.json").unlink,
        lambda: store.remove_directory(paths.container_dir("box1")),
        lambda: (world.container("box1", "pod1"), (paths.container_dir("box1") / "config.json").touch()),
        lambda: shutil.rmtree(paths.container_dir("box1")),
        lambda: (world.sandbox("pod2"), world.sandbox("other", "cli"), world.container("box3", "other", "cli")),
        lambda: store.remove_directory(paths.sandbox_dir("pod1")),
    )
    for number, step in enumerate(steps):
        step()
        world.check()
        assert world.is_remembered(), number


def test_one_directory_may_be_another_by_the_same_name(world: World) -> None:
    for key in ("pod1", "pod2"):
        store.save(ready(world.sandbox(key), world.process()))
    world.check()
    first, second, aside = paths.sandbox_dir("pod1"), paths.sandbox_dir("pod2"), paths.state_root() / "aside"
    first.rename(aside)
    second.rename(first)
    world.check()
    store.save(structs.replace(store.sandbox("pod1"), id="pod1", state="stopped"))
    world.check()


def test_before_there_is_a_state_directory_and_after_it_is_another(world: World) -> None:
    shutil.rmtree(paths.state_root())
    world.check()
    assert not world.is_remembered()
    world.sandbox("pod1")
    world.container("box1", "pod1")
    world.check()
    assert world.is_remembered()
    paths.state_root().rename(paths.state_root().with_name("old"))
    world.check()
    store.save(ready(world.sandbox("pod2"), world.process()))
    (paths.state_root() / "containers").mkdir()
    world.check()
    assert world.is_remembered()


def test_more_than_the_kernel_queues_is_read_anew(world: World) -> None:
    world.sandbox("pod1")
    world.check()
    top = paths.state_root() / "sandboxes"
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (top / "x0").mkdir()
    for number in range(most // 2 + 2):
        (top / f"x{number}").rename(top / f"x{number + 1}")
    store.save(ready(store.sandbox("pod1"), world.process()))
    assert world.lists.again("ListPodSandbox", b"") is None
    world.check()
    assert world.is_remembered()


def test_where_nothing_can_be_watched_everything_is_read(world: World) -> None:
    pod = world.sandbox("pod1")
    with few_descriptors():
        world.check()
        store.save(ready(pod, (os.getpid(), process.start_time(os.getpid()))))
        world.check()
    assert not world.is_remembered()


@contextlib.contextmanager
def few_descriptors() -> Iterator[None]:
    """Let this process open one file more, and no second."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/", os.O_PATH)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
