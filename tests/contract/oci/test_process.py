"""What config.json's ``process`` makes of the container's program.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#process
"""

from pathlib import Path

import pytest

from tests.contract.oci.container import Container, fields
from tests.peers.daemon import await_true, run

pytestmark = [pytest.mark.root, pytest.mark.peer]

SETS = {
    "bounding": "CapBnd",
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "ambient": "CapAmb",
}
BITS = {"CAP_CHOWN": 1 << 0, "CAP_KILL": 1 << 5, "CAP_NET_BIND_SERVICE": 1 << 10, "CAP_NET_RAW": 1 << 13}


def status_of(container: Container) -> dict[str, str]:
    """Return the status of the container's program, once it is started."""
    return dict(line.split(":\t", 1) for line in container.says("cat /proc/self/status").splitlines() if ":\t" in line)


def test_stdin_and_the_outputs_of_run(container: Container) -> None:
    done = container.script("cat; echo err >&2; exit 7").run(stdin="in\n")
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "err\n", 7)


@pytest.mark.parametrize("code", [0, 1, 2, 42, 125, 126, 127, 128, 255])
def test_run_ends_as_the_program_does(container: Container, code: int) -> None:
    assert container.script(f"exit {code}").run().returncode == code


@pytest.mark.parametrize("number", [6, 9, 15])
def test_run_ends_with_128_and_the_signal(container: Container, number: int) -> None:
    """The shell is not process 1's: that one cannot signal itself."""
    container.linux["namespaces"] = [one for one in container.linux["namespaces"] if one["type"] != "pid"]
    assert container.script(f"kill -{number} $$").run().returncode == 128 + number


def test_arguments_are_passed_as_they_are(container: Container) -> None:
    words = ["one two", "", "$HOME", "*", "ü", "-n", "a\nb", "'\""]
    container.args("sh", "-c", 'printf "<%s>" "$@"', "zero", *words)
    assert container.run().stdout == "".join(f"<{word}>" for word in words)


def test_the_first_argument_is_looked_up_in_its_own_path(container: Container, root: Path) -> None:
    (root / "own").mkdir()
    (root / "own/greet").write_text("#!/bin/sh\necho own\n")
    (root / "own/greet").chmod(0o755)
    container.process["env"] = ["PATH=/nowhere:/own:/bin"]
    assert container.args("greet").run().stdout == "own\n"


def test_a_program_by_its_absolute_path(container: Container) -> None:
    container.process["env"] = []
    assert container.args("/bin/echo", "absolute").run().stdout == "absolute\n"


def test_a_program_by_a_path_relative_to_cwd(container: Container) -> None:
    container.process["cwd"] = "/bin"
    assert container.args("./echo", "relative").run().stdout == "relative\n"


def test_the_environment_is_the_configurations(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRAY", "of the caller")
    container.process["env"] = ["PATH=/bin", "HOME=/here", "GREETING=hello world", "EMPTY=", "SIGN=a=b", "ODD=ü"]
    assert sorted(container.args("env").run().stdout.splitlines()) == sorted(container.process["env"])


def test_home_is_looked_up_where_it_is_missing(container: Container) -> None:
    container.process["env"] = ["PATH=/bin"]
    assert container.says("echo $HOME") == "/root"


def test_cwd(container: Container) -> None:
    container.process["cwd"] = "/tmp"
    assert container.says("pwd") == "/tmp"


def test_cwd_that_is_missing_is_made(container: Container, root: Path) -> None:
    container.process["cwd"] = "/var/made/below"
    assert container.says("pwd") == "/var/made/below"
    assert (root / "var/made/below").is_dir()


def test_cwd_on_a_mount(container: Container) -> None:
    container.mount("/mnt", "tmpfs", "tmpfs")
    container.process["cwd"] = "/mnt"
    assert container.says("pwd; stat -f -c %T .") == "/mnt\ntmpfs"


def test_the_user(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 100}
    assert container.says("id -u; id -g; id -G") == "1000\n100\n100"


def test_additional_groups(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 100, "additionalGids": [4, 20]}
    assert set(status_of(container)["Groups"].split()) == {"4", "20"}


def test_the_callers_groups_are_dropped(container: Container) -> None:
    container.process["user"] = {"uid": 0, "gid": 0}
    assert status_of(container)["Groups"].split() in ([], ["0"])


def test_all_four_ids_are_set(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 100}
    status = status_of(container)
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["100"] * 4


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_umask(container: Container, umask: int) -> None:
    container.process["user"]["umask"] = umask
    assert int(container.says("umask"), 8) == umask


def test_umask_is_022_where_none_is_asked(container: Container) -> None:
    assert container.says("umask") == "0022"


@pytest.mark.parametrize("kind", SETS)
def test_a_set_of_capabilities(container: Container, kind: str) -> None:
    """Each of the five differs from the others by what the kernel's rules allow."""
    container.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "ambient": ["CAP_CHOWN"],
    }
    container.process["user"] = {"uid": 1000, "gid": 1000}
    after_exec = {"permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]}
    expected = after_exec.get(kind) or container.process["capabilities"][kind]
    assert int(status_of(container)[SETS[kind]], 16) == sum(BITS[name] for name in expected)


def test_root_without_capabilities(container: Container) -> None:
    container.process["capabilities"] = {}
    status = status_of(container)
    assert {int(status[name], 16) for name in SETS.values()} == {0}


def test_a_user_has_only_the_ambient_ones(container: Container) -> None:
    some = ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]
    container.process["capabilities"] = {"bounding": some, "permitted": some, "effective": some}
    container.process["user"] = {"uid": 1000, "gid": 1000}
    status = status_of(container)
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0x401)


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(container: Container, wanted: bool) -> None:
    container.process["noNewPrivileges"] = wanted
    assert status_of(container)["NoNewPrivs"] == str(int(wanted))


@pytest.mark.parametrize("more", [1, 500])
def test_oom_score_adj_is_raised(container: Container, more: int) -> None:
    """Lowering it takes CAP_SYS_RESOURCE, which not every machine's root has."""
    value = min(int(Path("/proc/self/oom_score_adj").read_text()) + more, 1000)
    container.process["oomScoreAdj"] = value
    assert container.says("cat /proc/self/oom_score_adj") == str(value)


def test_oom_score_adj_is_left_alone_where_none_is_asked(container: Container) -> None:
    assert container.says("cat /proc/self/oom_score_adj") == Path("/proc/self/oom_score_adj").read_text().strip()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("RLIMIT_NOFILE", "Max open files"),
        ("RLIMIT_CORE", "Max core file size"),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
    ],
)
def test_rlimits(container: Container, kind: str, line: str) -> None:
    """Only lowered ones: raising takes CAP_SYS_RESOURCE."""
    container.process["rlimits"] = [{"type": kind, "soft": 8192, "hard": 16384}]
    limits = container.args("cat", "/proc/self/limits").run().stdout.splitlines()
    (found,) = [row[25:].split()[:2] for row in limits if row.startswith(line)]
    assert found == ["8192", "16384"]


def test_several_rlimits(container: Container) -> None:
    container.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_FSIZE", "soft": 300000, "hard": 400000},
    ]
    limits = container.args("cat", "/proc/self/limits").run().stdout
    assert limits.count(" 100 ") == limits.count(" 200 ") == limits.count("300000") == limits.count("400000") == 1


@pytest.mark.parametrize("name", ["SigBlk", "SigIgn", "SigCgt"])
def test_no_signal_is_touched(running: Container, name: str) -> None:
    await_true(running.is_executed, "the program's exec")
    assert int(fields(running.pid)[name], 16) == 0


def test_it_leads_a_session(running: Container) -> None:
    group, session, terminal = running.proc("stat").read_text().rpartition(")")[2].split()[2:5]
    assert (int(group), int(session), terminal) == (running.pid, running.pid, "0")


def test_it_has_three_descriptors(running: Container) -> None:
    await_true(running.is_executed, "the program's exec")
    assert sorted(path.name for path in running.proc("fd").iterdir()) == ["0", "1", "2"]


@pytest.mark.parametrize(("count", "found"), [("0", "0 1 2"), ("1", "0 1 2 3"), ("2", "0 1 2 3 4")])
def test_descriptors_that_are_to_be_kept(container: Container, tmp_path: Path, count: str, found: str) -> None:
    """Those from 3 on; others do not leak, though the caller has them open (as conmon has)."""
    (tmp_path / "kept").write_text("kept\n")
    container.args("sleep", "1000").write()
    words = ("create", "--bundle", container.bundle, "--pid-file", container.pid_file, "--preserve-fds", count)
    opened = f'exec "$0" "$@" 3<{tmp_path}/kept 4<{tmp_path}/kept >/dev/null 2>&1'
    done = run("sh", "-c", opened, *container.runtime.command(*words, container.name))
    assert done.returncode == 0
    await_true(container.start().is_executed, "the program's exec")
    assert sorted(path.name for path in container.proc("fd").iterdir()) == found.split()


@pytest.mark.parametrize("given", ["pipe", "file", "nothing"])
def test_stdin_is_what_run_was_given(container: Container, tmp_path: Path, given: str) -> None:
    container.script("cat; echo end").write()
    (tmp_path / "in").write_text("in\n")
    redirected = {"pipe": f"cat {tmp_path}/in | ", "file": "", "nothing": ""}[given]
    source = {"pipe": "", "file": f"<{tmp_path}/in", "nothing": "</dev/null"}[given]
    command = container.runtime.command("run", "--bundle", container.bundle, container.name)
    done = run("sh", "-c", f'{redirected}"$0" "$@" {source}', *command)
    assert done.stdout == ("end\n" if given == "nothing" else "in\nend\n")


def test_output_that_is_large_arrives_whole(container: Container) -> None:
    assert container.args("head", "-c", "300000", "/dev/zero").run().stdout == "\0" * 300_000


def test_an_environment_that_is_large(container: Container) -> None:
    container.process["env"] = ["PATH=/bin", f"LARGE={'x' * 100_000}"]
    assert container.says("echo ${#LARGE}") == "100000"


def test_a_program_of_several_processes_ends_with_the_last_word_of_its_first(container: Container) -> None:
    assert container.script("(exit 3); (exit 4); exit $(($? + 1))").run().returncode == 5
