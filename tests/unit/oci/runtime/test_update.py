"""What ``update`` is told, and what it adds from the cgroup as it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from minirt.cgroups.resources import Cpu, Memory, Pids, Resources
from minirt.errors import InvalidInput
from minirt.oci.runtime import arguments, update

FLAGS = arguments.parse(["update", "one"]).flags


def asked(**flags: Any) -> Resources:
    return update._resources(FLAGS | flags)


def test_each_flag_has_its_field() -> None:
    assert set(update.FIELDS) == set(FLAGS) - {flag.key for flag in arguments.GLOBAL} - {"resources"}
    assert asked(pids_limit="7", cpuset_cpus="0-1") == Resources(pids=Pids(7), cpu=Cpu(cpus="0-1"))
    assert asked(cpu_idle="0").cpu == Cpu(idle=0)


def test_flags_come_after_the_document(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(json.dumps({"memory": {"limit": 5, "swap": 6}, "pids": {"limit": 1}, "cpu": None}))
    found = asked(resources=str(tmp_path / "r"), memory="9", cpu_quota="-1")
    assert found == Resources(memory=Memory(limit=9, swap=6), pids=Pids(1), cpu=Cpu(quota=-1))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "5", '{"pids": 5}', '{"pids": {"limit": "x"}}', '{"x": 1}', "[" * 9999]
)
def test_what_is_no_document(tmp_path: Path, text: str) -> None:
    (tmp_path / "r").write_text(text)
    with pytest.raises(InvalidInput, match="use the limits"):
        asked(resources=str(tmp_path / "r"), pids_limit="")


@pytest.mark.parametrize("flags", [{"memory": "much"}, {"pids_limit": str(1 << 70)}])
def test_what_is_no_number(flags: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="use the limits"):
        asked(**flags)


@pytest.mark.parametrize(
    ("now", "cpu", "then"),
    [
        ("20000 50000", Cpu(quota=10000), Cpu(quota=10000, period=50000)),
        ("20000 50000", Cpu(period=40000), Cpu(quota=20000, period=40000)),
        ("max 50000", Cpu(period=40000), Cpu(quota=-1, period=40000)),
        ("20000 50000", Cpu(burst=100), Cpu(quota=20000, period=50000, burst=100)),
        ("20000 50000", Cpu(shares=5), Cpu(shares=5)),
        ("", Cpu(quota=10000), Cpu(quota=10000)),
    ],
)
def test_the_other_half_of_a_bandwidth(tmp_path: Path, now: str, cpu: Cpu, then: Cpu) -> None:
    (tmp_path / "cpu.max").write_text(f"{now}\n")
    assert update._completed(Resources(cpu=cpu), str(tmp_path)).cpu == then


def test_swap_is_counted_with_the_memory_that_there_is(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("4096\n")
    found = update._completed(Resources(memory=Memory(swap=8192)), str(tmp_path)).memory
    assert found == Memory(limit=4096, swap=8192)


def test_less_than_is_used_is_refused_on_demand(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("8192\n")
    update._completed(Resources(memory=Memory(limit=4096)), str(tmp_path))
    with pytest.raises(InvalidInput, match=r"memory\.limit asks: it uses 8192"):
        update._completed(Resources(memory=Memory(limit=4096, check_before_update=True)), str(tmp_path))
