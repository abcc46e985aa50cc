"""vm/run: its machine has what it promises, and the command's output and end come back whatever becomes of the two.

Every machine takes ten seconds to a minute to boot under emulation, so each test asks one for all it wants to know.
"""

import io
import os
import select
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from tests.isolation import children_of
from tests.peers.daemon import await_true
from tests.requirements import CONTROLLERS

RUN = Path(__file__).parents[3] / "vm" / "run"
LIMIT_S = 280
MACHINE_FAILED = 125

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


@pytest.fixture(scope="module")
def built() -> None:
    """Skip where there is no machine to boot: a test does not take the minutes, nor have the network, to build one."""
    asked = subprocess.run([RUN, "--no-build", "--build"], capture_output=True, text=True, check=False)
    if asked.returncode:
        pytest.skip(asked.stderr.strip())


def start(directory: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [RUN, "--no-build", "--timeout", str(LIMIT_S), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory), **environment},
    )


def machines_of(pid: int) -> list[int]:
    return [child for child in children_of(pid) if "qemu" in Path(f"/proc/{child}/comm").read_text()]


def read_up_to(terminal: io.RawIOBase, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        assert select.select([terminal], [], [], LIMIT_S)[0], seen
        seen += os.read(terminal.fileno(), 4096)
    return seen


def await_end(pid: int) -> None:
    with os.fdopen(os.pidfd_open(pid)) as gone:
        assert select.select([gone], [], [], LIMIT_S)[0]


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_a_command_runs_in_the_tree_and_its_output_and_status_come_back(tmp_path: Path) -> None:
    script = """
        pwd
        cat /sys/fs/cgroup/cgroup.subtree_control
        echo "$MINIRT_VM_TEST" "$MINIRT_ROOT"
        python3 -c 'print("x" * 300000)'
        /opt/minirt-venv/bin/python -c 'from minirt.linux import mount; print(mount.__name__)'
        grep -E 'Sig(Ign|Blk)' /proc/self/status
        ls -d .git .venv >&2
        exit 42"""
    with start(tmp_path, "sh", "-c", script, MINIRT_VM_TEST="two  words") as run:
        out, err = run.communicate()
    assert run.returncode == 42, err
    tree, controllers, variables, long, module, *signals = out.splitlines()
    assert (tree, variables, module) == ("/srv/minirt", "two  words ", "minirt.linux.mount")
    assert set(CONTROLLERS) <= set(controllers.split())
    assert long == "x" * 300000
    assert [line.split()[1] for line in signals] == ["0" * 16] * 2
    assert err.count("No such file") == 2, err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_a_shell_has_the_terminal_its_size_and_its_keys() -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (33, 101))
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        command = [RUN, "--no-build", "--timeout", str(LIMIT_S)]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as run:
            os.close(theirs)
            read_up_to(terminal, b"# ")
            # Quotes keep what is typed, which the terminal shows too, apart from what is awaited.
            terminal.write(b"stty size; sh -c 'echo g\"\"o; exec sleep 1000'\n")
            assert b"33 101" in read_up_to(terminal, b"\ngo\r\n")
            terminal.write(b"\x03")
            terminal.write(b"exit 7\n")
            read_up_to(terminal, b"logout")
    assert run.returncode == 7


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_two_machines_at_once_share_nothing_they_write(tmp_path: Path) -> None:
    script = "echo $0 >>/srv/mark; sync; cat /srv/mark"
    with start(tmp_path, "sh", "-c", script, "one") as one, start(tmp_path, "sh", "-c", script, "two") as two:
        assert [one.communicate(), two.communicate()] == [("one\n", ""), ("two\n", "")]


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_a_machine_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with start(tmp_path, "sh", "-c", "echo c >/proc/sysrq-trigger") as run:
        _, err = run.communicate()
    assert run.returncode == MACHINE_FAILED
    assert "the machine ended before the command did" in err
    assert "Kernel panic - not syncing: sysrq triggered crash" in err


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_a_machine_whose_caller_is_killed_switches_itself_off(tmp_path: Path) -> None:
    with start(tmp_path, "sh", "-c", "echo up; sleep 1000") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        (qemu,) = machines_of(run.pid)
        run.kill()
        await_end(qemu)


@pytest.mark.usefixtures("built")
def test_a_terminated_run_takes_its_machine_along(tmp_path: Path) -> None:
    with start(tmp_path, "sleep", "1000") as run:
        await_true(lambda: bool(machines_of(run.pid)), "a machine")
        (qemu,) = machines_of(run.pid)
        run.send_signal(signal.SIGTERM)
        await_end(qemu)
    assert run.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("built")
def test_a_command_that_takes_too_long_ends_as_under_timeout(tmp_path: Path) -> None:
    with start(tmp_path, "--timeout", "1", "sleep", "1000") as run:
        _, err = run.communicate()
    assert run.returncode == 124
    assert "did not end in time" in err


def test_what_is_missing_on_the_host_is_named_as_debian_names_it(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to("/usr/bin/python3")
    with start(tmp_path, "true", PATH=str(tmp_path)) as run:
        out, err = run.communicate()
    assert (run.returncode, out) == (MACHINE_FAILED, "")
    assert "apt-get install qemu-system-x86 mmdebstrap" in err


def test_a_shell_needs_a_terminal(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        out, err = run.communicate()
    assert (run.returncode, out) == (MACHINE_FAILED, "")
    assert "no terminal" in err
