"""``exec``: a further process in a container, from the command line and from a process.json.

Source: https://github.com/opencontainers/runc/blob/v1.1.12/man/runc-exec.8.md, and what conmon and containerd ask for.
"""

import os
from pathlib import Path

import pytest

from tests.contract.oci.container import Container, fields
from tests.peers.daemon import await_true, run

pytestmark = [pytest.mark.root, pytest.mark.peer]

INSTEAD = pytest.mark.differs("crun", "1.8 takes it instead of what the configuration has, not besides")
KINDS = ("pid", "net", "ipc", "uts", "mnt")


def test_the_exit_code(running: Container) -> None:
    assert [running.exec("sh", "-c", f"exit {code}").returncode for code in (0, 7, 255)] == [0, 7, 255]


def test_a_signals_exit_code(running: Container) -> None:
    assert running.exec("sh", "-c", "kill -9 $$").returncode == 128 + 9


def test_stdio(running: Container) -> None:
    done = running.exec("sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_in_the_containers_namespaces(running: Container, kind: str) -> None:
    assert running.exec("readlink", f"/proc/self/ns/{kind}").stdout.strip() == os.readlink(running.proc(f"ns/{kind}"))


def test_it_sees_the_containers_processes(running: Container) -> None:
    await_true(running.is_executed, "the program's exec")
    assert running.exec("cat", "/proc/1/cmdline").stdout.split("\0")[:2] == ["sleep", "1000"]


def test_it_is_in_the_containers_root(running: Container, root: Path) -> None:
    assert running.exec("sh", "-c", "echo new >/etc/new").returncode == 0
    assert (root / "etc/new").read_text() == "new\n"


def test_it_is_in_the_containers_cgroup(running: Container) -> None:
    assert running.proc("cgroup").read_text().splitlines()[-1].endswith("/life")
    pid_file = running.bundle / "exec.pid"
    done = running.runtime.detached("exec", "--detach", "--pid-file", pid_file, running.name, "sleep", "1000")
    assert done.returncode == 0, done.stderr
    assert Path(f"/proc/{pid_file.read_text()}/cgroup").read_text() == running.proc("cgroup").read_text()


def test_it_inherits_the_configurations_environment(container: Container) -> None:
    container.process["env"] = ["PATH=/bin", "HOME=/here", "GREETING=hello world"]
    found = container.create().start().exec("env").stdout.splitlines()
    assert {"PATH=/bin", "HOME=/here", "GREETING=hello world"} <= set(found)


@pytest.mark.parametrize(
    ("options", "script", "said"),
    [
        pytest.param(("--env", "A=1", "--env", "B=two words"), "echo $A-$B", "1-two words", marks=INSTEAD),
        (("-e", "PATH=/nowhere:/bin"), "echo $PATH", "/nowhere:/bin"),
        (("--cwd", "/tmp"), "pwd", "/tmp"),
        (("--user", "1000"), "id -u", "1000"),
        (("--user", "1000:100"), "id -u; id -g", "1000\n100"),
        (("-u", "1000:100"), "id -G", "100"),
        pytest.param(("--cap", "CAP_SYS_TIME"), "grep CapEff /proc/self/status", "22000420", marks=INSTEAD),
        (("--no-new-privs",), "grep NoNewPrivs /proc/self/status | cut -f 2", "1"),
    ],
)
def test_an_option(running: Container, options: tuple[str, ...], script: str, said: str) -> None:
    done = running.exec("sh", "-c", script, options=options)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.differs("crun", "1.8 has no --additional-gids")
def test_additional_groups(running: Container) -> None:
    done = running.exec("id", "-G", options=("--user", "1000:100", "--additional-gids", "4", "--additional-gids", "20"))
    assert sorted(done.stdout.split()) == ["100", "20", "4"]


def test_options_end_where_the_program_begins(running: Container) -> None:
    assert running.exec("echo", "--user", "-e", "--").stdout == "--user -e --\n"


def test_a_process_by_its_description(running: Container) -> None:
    said = running.exec_process("sh", "-c", "echo $A; pwd; id -u; id -g", env=["PATH=/bin", "A=b"], cwd="/tmp")
    assert said == "b\n/tmp\n0\n0"


def test_the_user_of_a_description(running: Container) -> None:
    user = {"uid": 1000, "gid": 100, "additionalGids": [4, 20]}
    assert running.exec_process("id", "-G", user=user).split() == ["100", "4", "20"]


def test_the_capabilities_of_a_description(running: Container) -> None:
    own = {kind: ["CAP_CHOWN"] for kind in ("bounding", "permitted", "effective")}
    said = running.exec_process("grep", "^Cap", "/proc/self/status", capabilities=own)
    found = {line.split()[0]: int(line.split()[1], 16) for line in said.splitlines()}
    assert found == {"CapInh:": 0, "CapPrm:": 1, "CapEff:": 1, "CapBnd:": 1, "CapAmb:": 0}


def test_home_is_looked_up_where_it_is_missing(running: Container) -> None:
    assert running.exec_process("sh", "-c", "echo $HOME", env=["PATH=/bin"]) == "/root"


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges_of_a_description(running: Container, wanted: bool) -> None:
    said = running.exec_process("grep", "NoNewPrivs", "/proc/self/status", noNewPrivileges=wanted)
    assert said.split()[1] == str(int(wanted))


def test_rlimits_of_a_description(running: Container) -> None:
    said = running.exec_process("sh", "-c", "ulimit -n", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 99}])
    assert said == "99"


def test_detached(running: Container) -> None:
    pid_file = running.bundle / "exec.pid"
    done = running.runtime.detached("exec", "--detach", "--pid-file", pid_file, running.name, "sleep", "1001")
    assert done.returncode == 0, done.stderr
    pid = int(pid_file.read_text())
    await_true(lambda: Path(f"/proc/{pid}/cmdline").read_text().startswith("sleep\x001001"), "its exec")
    assert fields(pid)["PPid"] == str(os.getppid())


def test_detached_ends_with_the_container(running: Container) -> None:
    pid_file = running.bundle / "exec.pid"
    running.runtime.detached("exec", "--detach", "--pid-file", pid_file, running.name, "sleep", "1001")
    running.stop()
    await_true(lambda: not Path(f"/proc/{pid_file.read_text()}").exists(), "its end")


def test_its_end_is_not_the_containers(running: Container) -> None:
    running.exec("true")
    assert running.status() == "running"


def test_ps_lists_it(running: Container) -> None:
    pid_file = running.bundle / "exec.pid"
    running.runtime.detached("exec", "--detach", "--pid-file", pid_file, running.name, "sleep", "1001")
    done = running.runtime("ps", "--format", "json", running.name)
    assert sorted(map(int, done.stdout.strip("[]\n").split(","))) == sorted([running.pid, int(pid_file.read_text())])


def test_a_program_that_is_missing(running: Container) -> None:
    done = running.exec("no-such-program")
    assert done.returncode in (1, 127, 255)
    assert "executable file not found" in done.stderr or "no such file or directory" in done.stderr.lower()


def test_a_program_that_may_not_be_executed(running: Container) -> None:
    done = running.exec("/etc/passwd")
    assert done.returncode in (1, 126, 255)
    assert "permission denied" in done.stderr.lower()


def test_a_directory_that_is_missing(running: Container) -> None:
    assert running.exec("true", options=("--cwd", "/no/such/directory")).returncode != 0


def test_a_description_that_is_missing(running: Container) -> None:
    assert running.runtime("exec", "--process", "/no/such/file", running.name).returncode != 0


def test_a_description_that_is_no_json(running: Container) -> None:
    (running.bundle / "process.json").write_text("{")
    assert running.runtime("exec", "--process", running.bundle / "process.json", running.name).returncode != 0


def test_in_a_stopped_container(stopped: Container) -> None:
    done = stopped.exec("true")
    assert done.returncode != 0
    assert "stopped" in done.stderr or "not running" in done.stderr


@pytest.mark.differs("crun", "1.8 names the file that it misses")
def test_in_a_container_that_is_not_there(container: Container) -> None:
    done = container.exec("true")
    assert done.returncode != 0
    assert "does not exist" in done.stderr


def test_in_a_created_container(created: Container) -> None:
    """It waits for start no more than the init does: namespaces and mounts are there."""
    assert created.exec("echo", "early").stdout == "early\n"


@pytest.mark.parametrize(("count", "found"), [("0", ["0", "1", "2"]), ("1", ["0", "1", "2", "3"])])
def test_descriptors_that_are_to_be_kept(running: Container, tmp_path: Path, count: str, found: list[str]) -> None:
    pid_file = tmp_path / "exec.pid"
    words = ("exec", "--detach", "--preserve-fds", count, "--pid-file", pid_file, running.name, "sleep", "1001")
    opened = f'exec "$0" "$@" 3<{tmp_path} 4<{tmp_path} >/dev/null 2>&1'
    assert run("sh", "-c", opened, *running.runtime.command(*words)).returncode == 0
    proc = Path(f"/proc/{pid_file.read_text()}")
    await_true(lambda: (proc / "cmdline").read_text().startswith("sleep"), "its exec")
    assert sorted(path.name for path in (proc / "fd").iterdir()) == found
