"""Fields of a configuration that hardly anybody uses: how the kernel runs the process, clocks, and what is refused.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md and config-linux.md
"""

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.oci.container import Container

pytestmark = [pytest.mark.root, pytest.mark.peer]

IOPRIO_GET = {"x86_64": 252}.get(os.uname().machine, 31)
BEST_EFFORT = 2


def io_priority(pid: int) -> tuple[int, int]:
    """Return the class and the level of a process. Source: ioprio_get(2)."""
    found = ctypes.CDLL(None).syscall(IOPRIO_GET, 1, pid)
    return found >> 13, found & 7


@pytest.mark.differs("runc", "1.2 has it")
@pytest.mark.differs("crun", "1.9 has it")
def test_the_scheduler(container: Container) -> None:
    container.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    container.create().start()
    assert os.sched_getscheduler(container.pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, container.pid) == 7


@pytest.mark.differs("runc", "1.2 has it")
@pytest.mark.differs("crun", "1.9 has it")
def test_a_real_time_scheduler_that_children_do_not_inherit(container: Container) -> None:
    container.process["scheduler"] = {
        "policy": "SCHED_FIFO",
        "priority": 3,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    }
    container.create().start()
    assert os.sched_getscheduler(container.pid) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    assert os.sched_getparam(container.pid).sched_priority == 3


@pytest.mark.differs("runc", "1.2 has it")
@pytest.mark.differs("crun", "1.9 has it")
def test_a_deadline_scheduler(container: Container) -> None:
    times = {"runtime": 1_000_000, "deadline": 50_000_000, "period": 100_000_000}
    container.process["scheduler"] = {"policy": "SCHED_DEADLINE", **times}
    container.create().start()
    assert os.sched_getscheduler(container.pid) == 6


@pytest.mark.differs("runc", "1.2 has it")
@pytest.mark.differs("crun", "1.9 has it")
def test_the_io_priority(container: Container) -> None:
    container.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    container.create().start()
    assert io_priority(container.pid) == (BEST_EFFORT, 6)


@pytest.mark.differs("runc", "1.2 has it")
@pytest.mark.differs("crun", "1.9 has it")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scheduler", {"policy": "SCHED_FANCY"}),
        ("ioPriority", {"class": "IOPRIO_CLASS_FANCY", "priority": 4}),
    ],
)
def test_a_policy_that_is_unknown_is_an_error(container: Container, field: str, value: dict[str, Any]) -> None:
    container.process[field] = value
    assert container.try_create().returncode != 0
    assert not container.exists


@pytest.mark.differs("runc", "1.3 has it")
@pytest.mark.differs("crun", "1.21 has it")
def test_the_cpus_of_an_executed_process(running: Container) -> None:
    last = max(os.sched_getaffinity(0))
    said = running.exec_process("cat", "/proc/self/status", execCPUAffinity={"initial": "0", "final": str(last)})
    assert f"Cpus_allowed_list:\t{last}\n" in said


@pytest.mark.differs("runc", "1.2 has it")
def test_the_personality(container: Container) -> None:
    container.linux["personality"] = {"domain": "LINUX32"}
    container.create().start()
    assert container.proc("personality").read_text().strip() == "00000008"


@pytest.mark.differs("runc", "1.2 has it")
def test_a_personality_that_is_unknown_is_an_error(container: Container) -> None:
    container.linux["personality"] = {"domain": "BSD"}
    assert container.try_create().returncode != 0
    assert not container.exists


def uptime(text: str) -> float:
    return float(text.split(maxsplit=1)[0])


@pytest.mark.differs("runc", "1.2 has it")
@pytest.mark.differs("crun", "1.8 has it where it is built with it")
@pytest.mark.parametrize("ahead_s", [100_000, -1])
def test_a_clock_of_its_own(container: Container, ahead_s: int) -> None:
    container.linux["namespaces"].append({"type": "time"})
    container.linux["timeOffsets"] = {"boottime": {"secs": ahead_s, "nanosecs": 0}}
    before = uptime(Path("/proc/uptime").read_text())
    found = uptime(container.says("cat /proc/uptime"))
    assert before + ahead_s - 0.1 < found < uptime(Path("/proc/uptime").read_text()) + ahead_s + 0.1


@pytest.mark.differs("runc", "1.2 has it")
@pytest.mark.differs("crun", "1.8 ignores it")
def test_a_clock_without_a_namespace_for_it_is_an_error(container: Container) -> None:
    container.linux["timeOffsets"] = {"monotonic": {"secs": 5}}
    assert container.try_create().returncode != 0
    assert not container.exists


def test_annotations_are_told(container: Container) -> None:
    container.config["annotations"] = {"org.example.one": "yes", "org.example.two": "é"}
    container.create()
    assert {"org.example.one": "yes", "org.example.two": "é"}.items() <= container.state()["annotations"].items()


@pytest.mark.parametrize(
    "version",
    ["1.0.0", "1.0.2-dev", "1.1.0+dev", pytest.param("1.2.0", marks=pytest.mark.differs("crun", "1.8 ends at 1.1"))],
)
def test_a_version_that_is_known(container: Container, version: str) -> None:
    container.config["ociVersion"] = version
    assert container.says("echo fine") == "fine"


@pytest.mark.differs("runc", "1.1 does not look at it")
def test_a_version_to_come_is_an_error(container: Container) -> None:
    container.config["ociVersion"] = "2.0.0"
    assert container.try_create().returncode != 0
    assert not container.exists


@pytest.mark.skipif(Path("/sys/fs/resctrl/schemata").exists(), reason="resctrl: it is mounted here")
@pytest.mark.differs("crun", "1.8 ignores it")
def test_cache_allocation_is_an_error(container: Container) -> None:
    container.linux["intelRdt"] = {"closID": "test", "l3CacheSchema": "L3:0=f"}
    assert container.try_create().returncode != 0
    assert not container.exists


@pytest.mark.skipif(Path("/sys/fs/selinux").exists(), reason="selinux: this kernel has it")
@pytest.mark.differs("runc", "1.1 hands it to the kernel, which has no SELinux")
@pytest.mark.differs("crun", "1.8 hands it to the kernel, which has no SELinux")
def test_a_label_of_mounts_is_left_out_with_a_warning(container: Container) -> None:
    container.linux["mountLabel"] = "system_u:object_r:container_file_t:s0"
    done = container.try_create()
    assert done.returncode == 0
    assert "level=warning" in done.stderr
    assert "linux.mountLabel" in done.stderr


@pytest.mark.differs("runc", "1.1 takes it, and uses nothing of it")
@pytest.mark.parametrize(
    "name",
    [
        "windows",
        "vm",
        *(
            pytest.param(name, marks=pytest.mark.differs("crun", "1.8 takes what says nothing"))
            for name in ("solaris", "zos")
        ),
    ],
)
def test_what_is_for_another_platform_is_an_error(container: Container, name: str) -> None:
    container.config[name] = {}
    assert container.try_create().returncode != 0
    assert not container.exists


@pytest.mark.differs("runc", "1.2 has it")
def test_a_bind_mounts_ids_by_a_map_of_its_own(container: Container, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("")
    os.chown(tmp_path / "data/file", 5, 6)
    container.mount("/mnt", "bind", tmp_path / "data", "bind", "idmap")
    line = [{"containerID": 0, "hostID": 1000, "size": 100}]
    container.config["mounts"][-1] |= {"uidMappings": line, "gidMappings": line}
    assert container.says("stat -c '%u %g' /mnt/file") == "1005 1006"


def test_a_tmpfs_that_begins_with_what_it_covers(container: Container, root: Path) -> None:
    (root / "var/file").write_text("old\n")
    container.mount("/var", "tmpfs", "tmpfs", "tmpcopyup")
    assert container.says("cat /var/file; echo new >/var/file; cat /var/file").split() == ["old", "new"]
    assert (root / "var/file").read_text() == "old\n"


def test_an_option_for_all_that_is_mounted_below(container: Container, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    container.mount("/mnt", "bind", tmp_path / "data", "rbind", "rro")
    assert container.script("touch /mnt/new").run().returncode != 0
