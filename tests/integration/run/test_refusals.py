"""What ``minirt run`` refuses: by name, with the reason and what to do, before anything is touched."""

from pathlib import Path

import pytest

from tests.command import COMMAND, Minirt
from tests.integration.lifecycle.watching import contents
from tests.peers.daemon import run

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-e", "=x"], "cannot set the variable '=x': it has no name (write KEY=VALUE)"),
        (["-v", "relative:/x"], "cannot use the volume 'relative:/x': it is not /HOST/PATH:/CONTAINER/PATH[:ro]"),
        (["-v", "/tmp"], "cannot use the volume '/tmp'"),
        (["-v", "/tmp:/x:rx"], "cannot use the volume '/tmp:/x:rx'"),
        (["-v", "/tmp:/"], "it would hide the whole image"),
        (["-v", "/tmp:/x", "-v", "/var:/x/"], "cannot mount on /x: two volumes want to be there"),
        (["-v", "/etc/passwd/below:/x"], "cannot make the volume /etc/passwd/below: Not a directory"),
        (["-w", "relative"], "cannot work in 'relative': it is not an absolute path (did you mean /relative?)"),
        (["-u", "stranger"], "cannot run as user 'stranger': the image's /etc/passwd has no such user"),
        (["-u", "0:strangers"], "cannot run as group 'strangers': the image's /etc/group has no such group"),
        (["-u", "4294967296"], "cannot run as user '4294967296'"),
        (["-u", "-1"], "cannot run as user '-1'"),
        (["--name", "a/b"], "cannot use the name 'a/b'"),
        (["--name", ".."], "cannot use the name '..'"),
        (["-m", "64x"], "cannot use the size '64x'"),
        (["-m", "infm"], "cannot use the size 'infm'"),
        (["--cap-add", "SYS_TMIE"], "cannot use the capability 'SYS_TMIE'"),
        (["--oom-score-adj", "1001"], "cannot use an oom_score_adj of 1001"),
        (["--stop-signal", "NOPE"], "cannot send the signal 'NOPE'"),
        (["--network", "none", "-p", "80:80"], "cannot publish '80:80': the network is none"),
        (["--network", "host", "-p", "80:80"], "cannot publish '80:80': the network is host"),
        (["-p", "80"], "cannot publish '80': it is not [IP:]HOST:CONTAINER[/udp]"),
        (["-p", "0:80"], "cannot publish '0:80'"),
        (["-p", "80:65536"], "cannot publish '80:65536'"),
        (["-p", "80:80/icmp"], "cannot publish '80:80/icmp'"),
        (["-p", "::1:80:80"], "cannot publish '::1:80:80'"),
        (["-p", "300.0.0.1:80:80"], "cannot publish '300.0.0.1:80:80'"),
        (["--device", "dev/null"], "cannot use the device 'dev/null': it is not /HOST/PATH[:/CONTAINER/PATH][:rwm]"),
        (["--device", "/dev/null:null"], "cannot use the device '/dev/null:null'"),
        (["--device", "/dev/null:/a:/b"], "cannot use the device '/dev/null:/a:/b'"),
        (["--device", "/dev/null:/a:rx"], "cannot use the device '/dev/null:/a:rx'"),
        (["--device", "/dev/no-such"], "cannot use the device /dev/no-such: No such file or directory"),
        (["--device", "/etc/passwd"], "it is no device (mount files and directories with -v)"),
        (["--device", "/sys/kernel"], "no device is in that directory"),
        (["--device-cgroup-rule", "c 1:3"], "cannot use the device rule 'c 1:3': it is not TYPE MAJOR:MINOR ACCESS"),
        (["--device-cgroup-rule", "c 1:3 x"], "cannot use the device rule 'c 1:3 x'"),
        (["--device-cgroup-rule", "c 5000:3 r"], "no device has the number 5000"),
        (["--network", "mine"], "'mine' is not one of"),
        (["--cpus", "half"], "'half' is not a valid float"),
        (["--restart", "always"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_that_makes_no_sense_is_refused_by_name(
    minirt: Minirt, busybox: str, flags: list[str], said: str
) -> None:
    before = contents(minirt)
    done = minirt("run", *flags, busybox, "true")
    assert done.returncode == 125
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(minirt) == before


def test_an_image_without_a_command_needs_one(minirt: Minirt, busybox: str, busybox_root: Path) -> None:
    minirt.output("image", "import", str(busybox_root), "localhost/bare")
    done = minirt("run", "--rm", "localhost/bare")
    assert (done.returncode, "names a command (name one)" in done.stderr) == (125, True)


def _has(controller: str) -> bool:
    from tests import leaks

    return controller in (leaks.cgroup2_tops()[0] / "cgroup.controllers").read_text().split()


LIMITS = {"memory": ["-m", "64m"], "cpu": ["--cpus", "0.5"], "pids": ["--pids-limit", "50"]}


@pytest.mark.parametrize("controller", LIMITS)
def test_a_limit_that_cannot_be_kept_is_refused_or_warned_of(minirt: Minirt, busybox: str, controller: str) -> None:
    if _has(controller):
        pytest.skip(f"{controller}: this machine has it")
    before = contents(minirt)
    flags = ["run", "--rm", "--name", "web", "--network", "none", *LIMITS[controller]]
    done = minirt(*flags, busybox, "echo", "ran")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minirt: cannot limit ")
    assert f"the {controller} controller is not in" in done.stderr
    assert "boot with systemd.unified_cgroup_hierarchy=1, or use vm/run)" in done.stderr
    assert contents(minirt) == before
    done = minirt(*flags, "--best-effort-limits", busybox, "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "minirt: warning: cannot limit" in done.stderr
    assert f"the {controller} controller" in done.stderr


@pytest.mark.needs("setpriv")
def test_only_root_may(minirt: Minirt, busybox: str) -> None:
    """Whoever is not root is told to use sudo. The capability lets it read our own files, wherever they are."""
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    for words in (["run", "--rm", busybox, "true"], ["ps"], ["pod", "ps"], ["stop", "one"]):
        done = run("setpriv", "--reuid=65534", *reading, COMMAND, *words, env=minirt.env)
        assert (done.returncode, "it needs root (run it with sudo)" in done.stderr) == (125, True)
