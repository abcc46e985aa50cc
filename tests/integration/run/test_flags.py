"""The flags of ``minirt run``: each does what docker's does."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.command import Minirt

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

ALONE = ("--network", "none")
RUN = ("run", "--rm", *ALONE)


def test_env_is_set_or_taken_from_our_own(minirt: Minirt, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "from outside")
    monkeypatch.delenv("UNSET", raising=False)
    flags = ["-e", "OURS", "-e", "UNSET", "-e", "EMPTY=", "-e", "EQUALS=a=b", "--env", "PATH=/bin", "-e", "HOSTNAME=me"]
    found = minirt.output(*RUN, *flags, busybox, "env").splitlines()
    assert sorted(found) == ["EMPTY=", "EQUALS=a=b", "HOME=/root", "HOSTNAME=me", "OURS=from outside", "PATH=/bin"]


def test_nothing_of_our_environment_gets_in(minirt: Minirt, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    found = dict(line.split("=", 1) for line in minirt.output(*RUN, busybox, "env").splitlines())
    assert found.keys() == {"PATH", "HOSTNAME", "HOME"}
    assert len(found["HOSTNAME"]) == 12


def test_a_volume_is_the_hosts_directory(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    script = "cat /share/in; echo back > /share/out; chown 7:8 /share/out"
    assert minirt.output(*RUN, "-v", f"{tmp_path}:/share", busybox, "sh", "-c", script) == "from the host"
    assert (tmp_path / "out").read_text() == "back\n"
    assert (tmp_path / "out").stat().st_uid == 7


def test_a_read_only_volume_cannot_be_written(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    done = minirt(*RUN, "-v", f"{tmp_path}:/share:ro", busybox, "touch", "/share/x")
    assert (done.returncode, "Read-only file system" in done.stderr) == (1, True)
    assert list(tmp_path.glob("x")) == []


def test_a_missing_source_is_made_as_a_directory_of_roots(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    minirt.output(*RUN, "-v", f"{tmp_path}/a/b:/made/here", busybox, "touch", "/made/here/x")
    assert (tmp_path / "a/b/x").exists()


def test_a_file_is_a_source_too_and_keeps_what_is_written(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one\n")
    script = "cat /etc/own; echo two >> /etc/own; ls -l /etc/own | cut -c 1"
    assert minirt.output(*RUN, "-v", f"{file}:/etc/own", busybox, "sh", "-c", script) == "one\n-"
    assert file.read_text() == "one\ntwo\n"


def test_a_symbolic_link_is_followed_on_the_host_and_never_in_the_container(
    minirt: Minirt, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("real\n")
    (tmp_path / "link").symlink_to("real")
    assert minirt.output(*RUN, "-v", f"{tmp_path}/link:/share", busybox, "cat", "/share/file") == "real"
    minirt.output(*RUN, "-v", f"{tmp_path}/real:/bin/../../../../../share", busybox, "cat", "/share/file")


def test_the_pods_own_files_can_be_mounted_over(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("1.2.3.4 mine\n")
    assert minirt.output(*RUN, "-v", f"{tmp_path}/hosts:/etc/hosts", busybox, "cat", "/etc/hosts") == "1.2.3.4 mine"


def test_volumes_lie_in_each_other_whatever_their_order(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "outer/inner").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("other\n")
    volumes = ["-v", f"{tmp_path}/other:/a/inner", "-v", f"{tmp_path}/outer:/a"]
    assert minirt.output(*RUN, *volumes, busybox, "cat", "/a/inner/file") == "other"


def test_the_working_directory_is_made_when_it_is_missing(minirt: Minirt, busybox: str) -> None:
    assert minirt.output(*RUN, "-w", "/a/b/c", busybox, "sh", "-c", "pwd; stat -c '%u %a' .") == "/a/b/c\n0 755"
    assert minirt.output(*RUN, "-w", "/tmp", busybox, "stat", "-c", "%a", ".") == "1777"


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("33", "uid=33(www-data) gid=33(www-data) groups=33(www-data) /var/www"),
        ("www-data", "uid=33(www-data) gid=33(www-data) groups=33(www-data) /var/www"),
        ("4242", "uid=4242 gid=0(root) groups=0(root) /"),
        ("4242:33", "uid=4242 gid=33(www-data) groups=33(www-data) /"),
        ("www-data:nogroup", "uid=33(www-data) gid=65534(nogroup) groups=65534(nogroup) /var/www"),
        ("0:0", "uid=0(root) gid=0(root) groups=0(root) /root"),
        ("4294967294", "uid=4294967294 gid=0(root) groups=0(root) /"),
    ],
)
def test_a_user_is_a_number_or_a_name_with_a_group_or_without(
    minirt: Minirt, busybox: str, user: str, found: str
) -> None:
    assert minirt.output(*RUN, "-u", user, busybox, "sh", "-c", 'echo "$(id) $HOME"') == found


def test_another_user_than_root_has_no_capability(minirt: Minirt, busybox: str) -> None:
    lines = minirt.output(*RUN, "-u", "nobody", busybox, "grep", "Cap", "/proc/self/status").split()
    sets = dict(zip(lines[::2], lines[1::2], strict=True))
    assert sets == {
        "CapInh:": "0" * 16,
        "CapPrm:": "0" * 16,
        "CapEff:": "0" * 16,
        "CapBnd:": "00000000a80425fb",
        "CapAmb:": "0" * 16,
    }


@pytest.mark.parametrize(
    ("flags", "mask"),
    [
        ([], 0xA80425FB),
        (["--cap-drop", "ALL"], 0),
        (["--cap-drop", "all", "--cap-add", "CHOWN"], 1),
        (["--cap-drop", "chown", "--cap-drop", "CAP_KILL"], 0xA80425DA),
        (["--cap-add", "SYS_TIME", "--cap-add", "cap_net_admin"], 0xAA0435FB),
    ],
)
def test_capabilities_are_added_and_dropped(minirt: Minirt, busybox: str, flags: list[str], mask: int) -> None:
    found = minirt.output(*RUN, *flags, busybox, "grep", "-E", "Cap(Prm|Eff|Bnd)", "/proc/self/status").split()
    assert {int(text, 16) for text in found[1::2]} == {mask}


def test_privileged_has_all_that_we_have(minirt: Minirt, busybox: str) -> None:
    ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm"))
    script = "grep CapPrm /proc/self/status; touch /sys/fs/cgroup/x 2>&1 | head -1; mkdir /sys/fs/cgroup/y && echo made"
    found = minirt.output(*RUN, "--privileged", busybox, "sh", "-c", f"{script}; cat /proc/sys/kernel/hostname >&2")
    assert found.splitlines()[0].split() == ours.split()
    assert found.splitlines()[-1] == "made"


def test_a_read_only_root_still_has_its_mounts(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    script = "touch /x || echo refused; touch /share/x /dev/shm/x && echo written; mount | grep ' / '"
    found = minirt.output(*RUN, "--read-only", "-v", f"{tmp_path}:/share", busybox, "sh", "-c", script).splitlines()
    assert found[:2] == ["refused", "written"]
    assert "(ro," in found[2]


def test_the_host_name_is_given_or_the_ids_beginning(minirt: Minirt, busybox: str) -> None:
    script = "hostname; cat /etc/hostname; echo $HOSTNAME; grep -c web /etc/hosts"
    assert minirt.output(*RUN, "-h", "web", busybox, "sh", "-c", script).split() == ["web", "web", "web", "1"]
    assert minirt.output(*RUN, "--hostname", "web", "--network", "host", busybox, "hostname") == "web"
    assert minirt.output(*RUN, "--network", "host", busybox, "hostname") == os.uname().nodename
    key = minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    assert minirt.output("exec", "one", "hostname") == key[:12]
    minirt.output("rm", "-f", "one")


def test_the_network_is_none_the_hosts_or_a_bridge(minirt: Minirt, busybox: str) -> None:
    def links(kind: str) -> list[str]:
        return minirt.output("run", "--rm", "--network", kind, busybox, "ls", "/sys/class/net").split()

    ours = sorted(name for _, name in socket.if_nameindex())
    assert links("none") == ["lo"]
    assert links("bridge") == ["eth0", "lo"]
    assert links("host") == ours
    found = minirt.output("run", "--rm", "--network", "host", busybox, "readlink", "/proc/self/ns/net")
    assert found == str(Path("/proc/self/ns/net").readlink())


def test_a_published_port_leads_to_the_container(minirt: Minirt, busybox: str) -> None:
    serve = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"
    minirt.output("run", "-d", "--name", "web", "-p", "18080:80", busybox, "sh", "-c", serve)
    fetch = "until wget -qO- http://$0:18080/; do sleep 0.05; done"
    gateway = minirt.output("exec", "web", "sh", "-c", "ip route | awk '/default/ {print $3}'")
    assert minirt.output("run", "--rm", "--network", "host", busybox, "sh", "-c", fetch, gateway) == "hello"
    minirt.output("rm", "-f", "web")


def test_the_entrypoint_is_replaced_or_taken_away(minirt: Minirt, busybox: str, busybox_root: Path) -> None:
    words = ["--entrypoint", '["echo", "entry"]', "--cmd", '["cmd"]']
    minirt.output("image", "import", str(busybox_root), "localhost/entry", *words, "-e", "PATH=/bin")
    assert minirt.output(*RUN, "localhost/entry") == "entry cmd"
    assert minirt.output(*RUN, "localhost/entry", "args") == "entry args"
    assert minirt.output(*RUN, "--entrypoint", "echo", "localhost/entry") == ""
    assert minirt.output(*RUN, "--entrypoint", "echo", "localhost/entry", "own") == "own"
    assert minirt.output(*RUN, "--entrypoint", "", "localhost/entry", "echo", "alone") == "alone"
    done = minirt(*RUN, "--entrypoint", "", "localhost/entry")
    assert (done.returncode, "there is no command either" in done.stderr) == (125, True)


def test_what_the_image_says_holds_until_a_flag_says_otherwise(
    minirt: Minirt, busybox: str, busybox_root: Path
) -> None:
    words = ["--cmd", "id -u", "-e", "A=image", "-e", "B=image", "-e", "PATH=/bin", "-w", "/var", "-u", "nobody"]
    minirt.output("image", "import", str(busybox_root), "localhost/own", *words)
    assert minirt.output(*RUN, "localhost/own") == "65534"
    script = "echo $A $B $PWD $(id -u)"
    assert minirt.output(*RUN, "localhost/own", "sh", "-c", script) == "image image /var 65534"
    flags = ["-e", "B=flag", "-w", "/tmp", "-u", "0"]
    assert minirt.output(*RUN, *flags, "localhost/own", "sh", "-c", script) == "image flag /tmp 0"


def test_the_oom_score_adjustment_is_set(minirt: Minirt, busybox: str) -> None:
    assert minirt.output(*RUN, "--oom-score-adj", "321", busybox, "cat", "/proc/self/oom_score_adj") == "321"


def test_pid_and_ipc_can_be_the_hosts(minirt: Minirt, busybox: str) -> None:
    script = "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; echo $$"
    own = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("pid", "ipc")]
    found = minirt.output(*RUN, "--pid", "host", "--ipc", "host", busybox, "sh", "-c", script).split()
    assert found[:2] == own
    assert found[2] != "1"
    found = minirt.output(*RUN, busybox, "sh", "-c", script).split()
    assert not set(found[:2]) & set(own)
    assert found[2] == "1"


def test_labels_and_the_name_are_kept(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "web.1_x-y", "-l", "a=b", "--label", "c", *ALONE, busybox, "true")
    assert minirt.output("wait", "web.1_x-y") == "0"
    assert '"labels": {\n        "a": "b",\n        "c": ""\n      }' in minirt.output("inspect", "web.1_x-y")
    minirt.output("rm", "web.1_x-y")


def test_a_container_of_its_own_has_all_its_signals(minirt: Minirt, busybox: str) -> None:
    """What we were started to ignore or block is not the container's affair."""
    command = [*RUN, busybox, "grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"]

    def numb() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    with minirt.start(*command, preexec_fn=numb) as client:
        found = client.communicate(timeout=20)[0].split()
    assert set(found[1::2]) == {"0" * 16}


@pytest.mark.needs("runc")
def test_another_runtime_runs_it(minirt: Minirt, busybox: str) -> None:
    done = minirt(*RUN, "--runtime", "runc", "-i", busybox, "sh", "-c", "cat; exit 3", stdin="through\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, "through\n", "")
    minirt.output("run", *ALONE, "--runtime", "runc", "--trace", "--name", "traced", busybox, "true")
    assert "execve(runc create)" in minirt.output("explain", "container", "traced")
    minirt.output("rm", "traced")
    missing = minirt(*RUN, "--runtime", "runc", busybox, "no-such-program")
    assert (missing.returncode, "runc says" in missing.stderr) == (127, True)
    assert "there are minirt" in minirt(*RUN, "--runtime", "kata", busybox, "true").stderr
