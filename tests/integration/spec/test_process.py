"""How a process is run: scheduler, I/O priority, CPUs, execution domain, clocks, security modules."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import StepFailed
from minirt.security import labels
from tests.contract.clean_start import looks
from tests.integration.spec import running

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "runc", "crun")]
DAY = 86400


def changed(process: dict[str, Any] | None = None, **linux: Any) -> running.Change:
    def change(config: dict[str, Any]) -> None:
        config["process"] |= process or {}
        config["linux"] |= linux

    return change


def with_clocks(path: str = "", **offsets: dict[str, int]) -> running.Change:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "time"} | ({"path": path} if path else {}))
        if offsets:
            config["linux"]["timeOffsets"] = offsets

    return change


def test_scheduler_and_io_priority(tmp_path: Path, busybox_root: Path) -> None:
    asked = {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
    }
    made = running.bundle(tmp_path / "bundle", busybox_root, changed(asked), "sleep", "1000")
    with running.shim(tmp_path) as shim:
        pid = shim.start(made)
        assert looks.scheduling(pid) == ("25", "5", "0", str(os.SCHED_BATCH))
        again = shim.execute({"args": ["sleep", "1000"], "env": ["PATH=/bin"], **asked})
        assert looks.scheduling(again) == ("25", "5", "0", str(os.SCHED_BATCH))
    ran = running.run("minirt", tmp_path / "two", busybox_root, changed(asked), "sh", "-c", "ionice -p $$")
    assert ran.out == "best-effort: prio 6\n"


def test_a_real_time_priority(tmp_path: Path, busybox_root: Path) -> None:
    asked = {"scheduler": {"policy": "SCHED_FIFO", "priority": 9, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}}
    made = running.bundle(tmp_path / "bundle", busybox_root, changed(asked), "sleep", "1000")
    with running.shim(tmp_path) as shim:
        try:
            pid = shim.start(made)
        except StepFailed as error:
            assert "SCHED_FIFO" in str(error)
            pytest.skip(f"this kernel gives cgroups no real-time bandwidth: {error}")
        assert looks.scheduling(pid)[2:] == ("9", str(os.SCHED_FIFO))


@pytest.mark.parametrize("runtime", ["minirt", "crun"])
def test_a_personality(runtime: str, tmp_path: Path, busybox_root: Path) -> None:
    change = changed(personality={"domain": "LINUX32"})
    assert running.run(runtime, tmp_path, busybox_root, change, "uname", "-m").out in {"i686\n", "armv8l\n"}


def test_an_exec_d_process_has_the_personality_and_its_own_cpus(tmp_path: Path, busybox_root: Path) -> None:
    first = min(os.sched_getaffinity(0))
    change = changed(personality={"domain": "LINUX32"})
    made = running.bundle(tmp_path / "bundle", busybox_root, change, "sleep", "1000")
    with running.shim(tmp_path) as shim:
        init = shim.start(made)
        affinity = {"initial": str(first), "final": str(first)}
        pid = shim.execute({"args": ["sleep", "1000"], "env": ["PATH=/bin"], "execCPUAffinity": affinity})
        assert os.sched_getaffinity(pid) == {first}
        assert os.sched_getaffinity(init) == os.sched_getaffinity(0), "it is not init's"
        assert Path(f"/proc/{pid}/personality").read_text() == Path(f"/proc/{init}/personality").read_text()
        assert int(Path(f"/proc/{init}/personality").read_text(), 16) == 8


def test_clocks_ahead_of_the_hosts(tmp_path: Path, busybox_root: Path) -> None:
    made = running.bundle(
        tmp_path / "bundle",
        busybox_root,
        with_clocks(monotonic={"secs": DAY, "nanosecs": 5}, boottime={"secs": 2 * DAY}),
        "sh",
        "-c",
        "cat /proc/uptime; cat /proc/self/timens_offsets",
    )
    with running.shim(tmp_path) as shim:
        uptime, *offsets = shim.run(made).out.splitlines()
    assert 0 <= float(uptime.split()[0]) - 2 * DAY - (time.clock_gettime(time.CLOCK_BOOTTIME) - 60) <= 60
    assert [line.split() for line in offsets] == [["monotonic", str(DAY), "5"], ["boottime", str(2 * DAY), "0"]]


def test_a_time_namespace_is_joined_by_exec_and_by_path(tmp_path: Path, busybox_root: Path) -> None:
    made = running.bundle(tmp_path / "bundle", busybox_root, with_clocks(boottime={"secs": DAY}), "sleep", "1000")
    with running.shim(tmp_path) as shim:
        first = shim.start(made)
        pid = shim.execute({"args": ["sleep", "1000"], "env": ["PATH=/bin"]})
        same = os.stat(f"/proc/{first}/ns/time").st_ino
        assert os.stat(f"/proc/{pid}/ns/time").st_ino == same != os.stat("/proc/self/ns/time").st_ino
        joins = with_clocks(path=f"/proc/{first}/ns/time")
        second = shim.start(running.bundle(tmp_path / "second", busybox_root, joins, "sleep", "1000"))
        assert os.stat(f"/proc/{second}/ns/time").st_ino == same


def test_a_time_namespace_without_offsets(tmp_path: Path, busybox_root: Path) -> None:
    made = running.bundle(tmp_path / "bundle", busybox_root, with_clocks(), "sleep", "1000")
    with running.shim(tmp_path) as shim:
        assert "time" in looks.namespaces(shim.start(made))


@pytest.mark.skipif(labels.has_apparmor(), reason="this kernel has AppArmor")
@pytest.mark.parametrize("runtime", ["minirt", "runc"])
def test_a_profile_without_apparmor_is_an_error_that_says_so(runtime: str, tmp_path: Path, busybox_root: Path) -> None:
    ran = running.run(runtime, tmp_path, busybox_root, changed({"apparmorProfile": "web"}), "true")
    assert ran.code != 0
    assert "apparmor" in ran.said.lower()


@pytest.mark.skipif(labels.has_selinux(), reason="this kernel has SELinux")
def test_a_label_without_selinux_is_an_error_that_says_so(tmp_path: Path, busybox_root: Path) -> None:
    ran = running.run("minirt", tmp_path, busybox_root, changed({"selinuxLabel": "u:r:t:s0"}), "true")
    assert "SELinux is not enabled" in ran.said


def test_what_is_left_out_is_said(tmp_path: Path, busybox_root: Path) -> None:
    ran = running.run("minirt", tmp_path, busybox_root, changed(mountLabel="u:r:t:s0"), "echo", "runs")
    assert ran.out == "runs\n"
    assert "linux.mountLabel u:r:t:s0 is ignored" in ran.said
