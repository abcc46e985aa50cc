"""Processes named by pid and start time."""

import os

from minirt.linux import process


def test_a_process_that_awaits_its_parent_is_not_alive() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    started = process.start_time(pid)
    assert process.is_alive(pid, started)
    assert not process.is_alive(pid, started + 1)
    os.close(write)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process.start_time(pid) == started
    assert not process.is_alive(pid, started)
    os.waitpid(pid, 0)
    assert not process.is_alive(pid, started)
