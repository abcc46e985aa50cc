from pathlib import Path

from minirt.cgroups.events import OomWatch, memory_events
from minirt.cgroups.stats import Usage, parse_table, usage


def test_usage_of_a_whole_cgroup(tmp_path: Path) -> None:
    for name, text in {
        "cpu.stat": "usage_usec 90\nuser_usec 50\nsystem_usec 40\nnr_periods 9\nnr_throttled 3\nthrottled_usec 7\n",
        "memory.current": "1000\n",
        "memory.max": "4096\n",
        "memory.stat": "anon 300\ninactive_file 400\npgfault 11\npgmajfault 2\n",
        "memory.swap.current": "8\n",
        "pids.current": "5\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=10 wbytes=20\n7:0\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert usage(str(tmp_path)) == Usage(
        cpu_usec=90,
        cpu_user_usec=50,
        cpu_system_usec=40,
        nr_throttled=3,
        throttled_usec=7,
        memory_bytes=1000,
        working_set_bytes=600,
        rss_bytes=300,
        memory_limit_bytes=4096,
        swap_bytes=8,
        page_faults=11,
        major_page_faults=2,
        pids=5,
        read_bytes=11,
        write_bytes=22,
    )


def test_what_no_controller_tells_is_none(tmp_path: Path) -> None:
    assert usage(str(tmp_path)) == Usage()
    assert usage(str(tmp_path / "gone")) == Usage()


def test_no_limit_is_none_and_a_working_set_is_never_negative(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    (tmp_path / "memory.stat").write_text("inactive_file 400\n")
    found = usage(str(tmp_path))
    assert (found.memory_limit_bytes, found.working_set_bytes) == (None, 0)


def test_odd_lines_are_skipped() -> None:
    assert parse_table("a 1\n\nb\nc x\nd -2\ne 3\n") == {"a": 1, "e": 3}


def test_oom_events_are_read(tmp_path: Path) -> None:
    assert memory_events(str(tmp_path)) == {}
    assert OomWatch.open(str(tmp_path)) is None
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\noom_group_kill 0\n")
    assert memory_events(str(tmp_path))["oom_kill"] == 2
    watch = OomWatch.open(str(tmp_path))
    assert watch is not None
    assert watch.oom_kills() == 2
    (tmp_path / "memory.events").write_text("oom_kill 3\n")
    assert watch.oom_kills() == 3
    watch.close()
