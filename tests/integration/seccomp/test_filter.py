"""A container's system calls are filtered: by minirt's own profile, by one of the user's, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import Minirt

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

MODE = ["grep", "^Seccomp:", "/proc/self/status"]
FILTERED, FREE = "Seccomp:\t2", "Seccomp:\t0"
QUIET = ("--rm", "--network", "none")


def written(directory: Path, content: dict[str, Any]) -> str:
    """Return the option that names a profile with this content."""
    path = directory / "profile.json"
    path.write_text(json.dumps(content))
    return f"seccomp={path}"


def refusing(*names: str, **rule: Any) -> dict[str, Any]:
    """Return a profile that allows all but these system calls."""
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_ERRNO", **rule}],
    }


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ([], FILTERED),
        (["--user", "1000:1000"], FILTERED),
        (["--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"], FILTERED),
        (["--security-opt", "seccomp=unconfined"], FREE),
        (["--privileged"], FREE),
        (["--tty"], FILTERED),
    ],
)
def test_who_is_filtered(minirt: Minirt, busybox: str, options: list[str], mode: str) -> None:
    assert minirt.output("run", *QUIET, *options, busybox, *MODE) == mode


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_the_capability_that_loads_the_filter_is_gone_after_it(minirt: Minirt, busybox: str, user: str) -> None:
    look = ["grep", "^Cap", "/proc/self/status"]
    free = minirt.output("run", *QUIET, "-u", user, "--security-opt", "seccomp=unconfined", busybox, *look)
    assert minirt.output("run", *QUIET, "-u", user, busybox, *look) == free


REFUSED = ["unshare -U true", "unshare -m true", "mount -t tmpfs none /tmp", "umount /proc", "swapoff /none"]


@pytest.mark.parametrize("command", REFUSED)
def test_what_the_default_refuses(minirt: Minirt, busybox: str, command: str) -> None:
    done = minirt("run", *QUIET, busybox, "sh", "-c", command)
    assert done.returncode != 0
    assert "Operation not permitted" in done.stderr or "permission denied" in done.stderr


def test_a_capability_gives_its_calls_back(minirt: Minirt, busybox: str) -> None:
    script = "unshare -m true && mount -t tmpfs none /tmp"
    minirt.output("run", *QUIET, "--cap-add", "SYS_ADMIN", busybox, "sh", "-c", script)


def test_a_profile_of_ones_own(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    option = written(tmp_path, refusing("mkdir", "mkdirat"))
    done = minirt("run", *QUIET, "--security-opt", option, busybox, "mkdir", "/new")
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr
    minirt.output("run", *QUIET, "--security-opt", option, busybox, "unshare", "-U", "true")


def test_a_profile_that_allows_nothing_of_what_a_change_of_user_takes(
    minirt: Minirt, busybox: str, tmp_path: Path
) -> None:
    option = written(tmp_path, refusing("capset", "setresuid", "setresgid", "setgroups", "prctl", "seccomp"))
    assert minirt.output("run", *QUIET, "-u", "1000", "--security-opt", option, busybox, *MODE) == FILTERED


def test_a_rule_for_who_lacks_a_capability(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    option = written(tmp_path, refusing("mkdir", excludes={"caps": ["CAP_SYS_TIME"]}, errnoRet=12))
    done = minirt("run", *QUIET, "--security-opt", option, busybox, "mkdir", "/new")
    assert "Out of memory" in done.stderr or "Cannot allocate memory" in done.stderr
    minirt.output("run", *QUIET, "--cap-add", "SYS_TIME", "--security-opt", option, busybox, "mkdir", "/new")


def test_a_filter_that_refuses_the_program_itself(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    option = written(tmp_path, refusing("execve"))
    done = minirt("run", *QUIET, "--security-opt", option, busybox, "true")
    assert done.returncode == 126
    assert "operation not permitted" in done.stderr


def test_a_command_executed_later_is_filtered_too(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--network", "none", "--name", "one", busybox, "sleep", "1000")
    try:
        assert minirt.output("exec", "one", *MODE) == FILTERED
        assert minirt.output("exec", "-u", "1000", "one", *MODE) == FILTERED
        assert minirt("exec", "one", "unshare", "-U", "true").returncode != 0
    finally:
        minirt.output("rm", "-f", "one")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, r"SCMP_ACT_NOTIFY' - at `$.defaultAction`"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}, "listenerPath"),
        (refusing("mkdir", errnoRet=70000), "linux.seccomp.syscalls[0]"),
        (refusing("mkdir", args=[{"index": 0, "value": 0, "op": "SCMP_CMP_X"}]), "$.syscalls[0].args[0].op"),
        (refusing("mkdir", args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]), "syscalls[0].args[0].index"),
    ],
)
def test_what_is_wrong_in_a_profile_is_named(
    minirt: Minirt, busybox: str, tmp_path: Path, content: dict[str, Any], where: str
) -> None:
    done = minirt("run", *QUIET, "--security-opt", written(tmp_path, content), busybox, "true")
    assert done.returncode == 125
    assert where in done.stderr


@pytest.mark.parametrize("option", ["seccomp", "seccomp=", "apparmor=", "no-new-privileges=maybe"])
def test_an_option_that_is_none(minirt: Minirt, busybox: str, option: str) -> None:
    done = minirt("run", *QUIET, "--security-opt", option, busybox, "true")
    assert (done.returncode, option in done.stderr) == (125, True)


def test_a_damaged_file_of_the_cache_is_not_loaded(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", *QUIET, busybox, "true")
    (kept,) = (minirt.state / "seccomp").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-8])
    assert minirt.output("run", *QUIET, busybox, *MODE) == FILTERED
    assert kept.read_bytes() == whole


def test_a_dry_run_says_it_and_keeps_nothing(minirt: Minirt, busybox: str) -> None:
    lines = minirt.output("run", "--dry-run", "--network", "none", busybox, "true").splitlines()
    assert any("seccomp SECCOMP_SET_MODE_FILTER" in line for line in lines)
    assert not (minirt.state / "seccomp").exists()
