"""The exit code of ``minirt run`` is the container's, or says as docker's does why there was none."""

import pytest

from tests.command import Minirt
from tests.integration.lifecycle.watching import ALONE, inspected

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "exit 255"], 255, ""),
        (["sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"], 139, "Segmentation fault"),
        (["/etc"], 126, "cannot execute '/etc': is a directory"),
        (["/etc/passwd"], 126, "cannot execute '/etc/passwd': permission denied"),
        (["/no/such"], 127, "cannot execute '/no/such': no such file or directory"),
        (["/etc/passwd/below"], 127, "cannot execute '/etc/passwd/below'"),
        (["such"], 127, "cannot execute 'such': executable file not found in $PATH"),
    ],
)
def test_the_exit_code_is_the_commands(minirt: Minirt, busybox: str, command: list[str], code: int, said: str) -> None:
    done = minirt("run", "--rm", *ALONE, busybox, *command)
    assert done.returncode == code
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)


def test_what_a_user_may_not_reach_is_126(minirt: Minirt, busybox: str) -> None:
    done = minirt("run", "--rm", *ALONE, "-u", "nobody", busybox, "/root/tool")
    assert (done.returncode, "permission denied" in done.stderr) == (126, True)


def test_a_script_without_its_interpreter_is_127_and_no_program_at_all_126(
    minirt: Minirt, busybox: str, tmp_path: object
) -> None:
    for name, text in (("orphan", "#!/no/such/interpreter\n"), ("text", "no program\n")):
        path = minirt.root.parent / name
        path.write_text(text)
        path.chmod(0o755)
    share = ("-v", f"{minirt.root.parent}:/share:ro")
    assert minirt("run", "--rm", *ALONE, *share, busybox, "/share/orphan").returncode == 127
    assert minirt("run", "--rm", *ALONE, *share, busybox, "/share/text").returncode == 126


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-such-flag", "localhost/busybox"], "No such option"),
        (["localhost/no-such-image", "true"], "cannot use image localhost/no-such-image: it is not in the store"),
        (["UPPER CASE", "true"], "UPPER CASE"),
        ([], "Missing argument"),
    ],
)
def test_what_minirt_cannot_do_is_125(minirt: Minirt, busybox: str, words: list[str], said: str) -> None:
    done = minirt("run", "--rm", *words)
    assert done.returncode == 125
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_is_128_and_its_number(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, "--pid", "host", busybox, "sleep", "1000")
    minirt.output("kill", "-s", "USR1", "one")
    assert minirt.output("wait", "one") == "138"
    assert inspected(minirt, "one")["state"]["exit_code"] == 138
    minirt.output("rm", "one")


def test_a_start_that_failed_leaves_nothing_to_remove(minirt: Minirt, busybox: str) -> None:
    assert minirt("run", "--name", "one", *ALONE, busybox, "/no/such").returncode == 127
    assert minirt.output("ps", "-a", "-q") == ""
    assert minirt("run", "--rm", "--name", "one", *ALONE, busybox, "true").returncode == 0


def test_exec_has_the_exit_codes_of_run(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    codes = {
        ("sh", "-c", "exit 9"): 9,
        ("sh", "-c", "kill -9 $$"): 137,
        ("/etc",): 126,
        ("such",): 127,
    }
    assert {words: minirt("exec", "one", *words).returncode for words in codes} == codes
    minirt.output("kill", "one")
    assert minirt.output("wait", "one") == "137"
    done = minirt("exec", "one", "true")
    assert (done.returncode, "it is exited" in done.stderr) == (125, True)
    assert minirt("exec", "no-such-container", "true").returncode == 125
    minirt.output("rm", "one")
