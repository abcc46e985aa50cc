"""What the options of a mount do, by minirt and by the runtimes that know them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.spec import running
from tests.integration.spec.running import Change, Ran

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "runc", "crun")]
ALL = pytest.mark.parametrize("runtime", ["minirt", "runc", "crun"])
PASSING_ON = pytest.mark.parametrize("runtime", ["minirt", "runc"])
"""Not crun: where cgroups are hybrid it works in a mount namespace that passes nothing on."""
NEWER = pytest.mark.parametrize("runtime", ["minirt", "crun"])


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A shared tmpfs of the host's with a file, and another tmpfs in it."""
    top = tmp_path / "source"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "top", top], check=True)
    subprocess.run(["mount", "--make-shared", top], check=True)
    (top / "below").mkdir()
    (top / "file").write_text("text\n")
    subprocess.run(["mount", "-t", "tmpfs", "below", top / "below"], check=True)
    yield top
    subprocess.run(["umount", "--recursive", top], check=True)


def mounted(*more: dict[str, Any], **linux: Any) -> Change:
    def change(config: dict[str, Any]) -> None:
        config["mounts"] += more
        config["linux"] |= linux
        for kind in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")

    return change


def bind(source: Path, *options: str, **more: Any) -> dict[str, Any]:
    return {"destination": "/data", "type": "bind", "source": str(source), "options": ["rbind", *options], **more}


def shell(runtime: str, tmp_path: Path, root: Path, change: Change, script: str) -> Ran:
    return running.run(runtime, tmp_path, root, change, "sh", "-c", script)


SHOW = "grep ' /data' /proc/self/mountinfo"


def rows(ran: Ran) -> dict[str, tuple[set[str], list[str]]]:
    """Return, for each mount point, its options and its propagation."""
    assert ran.code == 0, ran
    found = {}
    for line in ran.out.splitlines():
        words = line.split()
        found[words[4]] = set(words[5].split(",")), [word.partition(":")[0] for word in words[6 : words.index("-")]]
    return found


@ALL
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("ro", "nosuid", "nodev", "noexec", "noatime"), {"ro", "nosuid", "nodev", "noexec", "noatime"}),
        (("nodiratime", "relatime"), {"rw", "nodiratime", "relatime"}),
        (("strictatime",), {"rw"}),
    ],
)
def test_options_of_a_bind(
    runtime: str, options: tuple[str, ...], shown: set[str], tmp_path: Path, busybox_root: Path, source: Path
) -> None:
    found = rows(shell(runtime, tmp_path, busybox_root, mounted(bind(source, *options)), SHOW))
    assert found["/data"][0] == shown
    assert found["/data/below"][0] == {"rw", "relatime"}, "they are the mount's own, not of those in it"


@ALL
def test_the_recursive_family_is_for_the_mounts_in_it_too(
    runtime: str, tmp_path: Path, busybox_root: Path, source: Path
) -> None:
    script = f"{SHOW}; touch /data/below/x 2>/dev/null && echo written; true"
    found = rows(shell(runtime, tmp_path, busybox_root, mounted(bind(source, "rro", "rnosuid")), script))
    assert found["/data"][0] == found["/data/below"][0] == {"ro", "nosuid", "relatime"}


@ALL
def test_a_file_over_a_file(runtime: str, tmp_path: Path, busybox_root: Path, source: Path) -> None:
    file = bind(source / "file", "ro") | {"destination": "/etc/deep/data"}
    script = "cat /etc/deep/data; echo more 2>/dev/null >> /etc/deep/data || echo refused"
    assert shell(runtime, tmp_path, busybox_root, mounted(file), script).out == "text\nrefused\n"


@ALL
def test_later_mounts_cover_earlier_ones(runtime: str, tmp_path: Path, busybox_root: Path, source: Path) -> None:
    inner = {"destination": "/data/in", "type": "tmpfs", "source": "inner", "options": ["size=4k"]}
    outer = {"destination": "/data", "type": "tmpfs", "source": "outer", "options": ["size=8k"]}
    ran = shell(runtime, tmp_path, busybox_root, mounted(inner, outer, inner), f"{SHOW} | wc -l")
    assert ran.out == "3\n"


@pytest.mark.parametrize("runtime", ["minirt", "runc"])
def test_a_relative_destination_is_the_roots(runtime: str, tmp_path: Path, busybox_root: Path, source: Path) -> None:
    ran = shell(runtime, tmp_path, busybox_root, mounted(bind(source) | {"destination": "data"}), "cat /data/file")
    assert ran.out == "text\n"
    if runtime == "minirt":
        assert "destination data is relative" in ran.said


@ALL
def test_a_tmpfs_that_begins_with_what_it_covers(runtime: str, tmp_path: Path, busybox_root: Path) -> None:
    (tmp_path / "under/in").mkdir(parents=True)
    (tmp_path / "under/in/file").write_text("copied\n")
    (tmp_path / "under/in/file").chmod(0o640)
    cover = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]}
    change = mounted(bind(tmp_path / "under"), cover)
    script = (
        f"{SHOW} | tail -n 1; cat /data/in/file; stat -c %a /data/in/file; touch /data/x 2>/dev/null || echo refused"
    )
    ran = shell(runtime, tmp_path, busybox_root, change, script)
    assert " - tmpfs " in ran.out.splitlines()[0], ran
    assert ran.out.splitlines()[1:] == ["copied", "640", "refused"]


IDS = [{"containerID": 1000, "hostID": 70000, "size": 1}, {"containerID": 0, "hostID": 0, "size": 1}]


@pytest.mark.parametrize("runtime", ["minirt", "runc"])
@pytest.mark.parametrize("options", [[], ["ro"]])
def test_a_tmpfs_without_a_mode_takes_that_of_the_directory(
    runtime: str, options: list[str], tmp_path: Path, busybox_root: Path
) -> None:
    (tmp_path / "under/data").mkdir(parents=True)
    (tmp_path / "under/data").chmod(0o2750)
    under = bind(tmp_path / "under") | {"destination": "/under"}
    new = {"type": "tmpfs", "source": "t", "options": options}
    change = mounted(under, {"destination": "/under/data", **new}, {"destination": "/fresh", **new})
    ran = shell(
        runtime,
        tmp_path,
        busybox_root,
        change,
        "stat -c %a /under/data /fresh; touch /fresh/x 2>/dev/null && echo written",
    )
    assert ran.out.split() == ["2750", "1777", *([] if options else ["written"])], ran


@NEWER
def test_files_belong_to_other_ids(runtime: str, tmp_path: Path, busybox_root: Path, source: Path) -> None:
    os.chown(source / "file", 1000, 1000)
    change = mounted(bind(source, "idmap", uidMappings=IDS, gidMappings=IDS))
    ran = shell(runtime, tmp_path, busybox_root, change, "stat -c %u:%g /data/file; touch /data/new")
    assert ran.out == "70000:70000\n", ran
    assert (source / "new").stat().st_uid == 0


@pytest.mark.parametrize(("kind", "owner"), [("idmap", "1000:1000"), ("ridmap", "70000:70000")])
def test_ids_of_the_mounts_in_it(kind: str, owner: str, tmp_path: Path, busybox_root: Path, source: Path) -> None:
    (source / "below/file").touch()
    os.chown(source / "below/file", 1000, 1000)
    change = mounted(bind(source, kind, uidMappings=IDS, gidMappings=IDS))
    assert shell("minirt", tmp_path, busybox_root, change, "stat -c %u:%g /data/below/file").out == f"{owner}\n"


def test_a_file_system_whose_ids_cannot_be_mapped_is_named(tmp_path: Path, busybox_root: Path) -> None:
    line = [{"containerID": 0, "hostID": 70000, "size": 1}]
    change = mounted(bind(Path("/proc/sys"), "idmap", uidMappings=line, gidMappings=line))
    ran = shell("minirt", tmp_path, busybox_root, change, "true")
    assert "cannot map the ids of the files in /proc/sys: Invalid argument" in ran.said
    assert "without idmapped mounts" in ran.said


@PASSING_ON
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), []),
        (("shared",), ["shared"]),
        (("rshared",), ["shared"]),
        (("private",), []),
        (("unbindable",), ["unbindable"]),
    ],
)
def test_propagation_of_a_new_file_system(
    runtime: str, options: tuple[str, ...], shown: list[str], tmp_path: Path, busybox_root: Path
) -> None:
    new = {"destination": "/data", "type": "tmpfs", "source": "t", "options": list(options)}
    assert rows(shell(runtime, tmp_path, busybox_root, mounted(new), SHOW))["/data"][1] == shown


def test_a_bind_that_listens_to_the_host(tmp_path: Path, busybox_root: Path, source: Path) -> None:
    found = rows(shell("minirt", tmp_path, busybox_root, mounted(bind(source, "rslave")), SHOW))
    assert found["/data"][1] == found["/data/below"][1] == ["master"]


@PASSING_ON
@pytest.mark.parametrize("kind", ["shared", "rshared"])
def test_with_a_shared_root_mounts_get_to_the_host(
    runtime: str, kind: str, tmp_path: Path, busybox_root: Path, source: Path
) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    change = mounted(bind(source, "rshared"), rootfsPropagation=kind)
    script = (
        "mkdir -p /data/new /dir && mount -t tmpfs made /data/new && mount -t tmpfs no /dir && echo yes > /data/new/x"
    )
    ran = shell(runtime, tmp_path, busybox_root, change, script)
    assert ran.code == 0, ran
    assert (source / "new/x").read_text() == "yes\n"
    after = set(Path("/proc/self/mountinfo").read_text().splitlines()) - set(before.splitlines())
    assert [line.split()[4] for line in after] == [str(source / "new")]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [("shared", ["shared"]), ("unbindable", ["unbindable"]), ("private", []), ("slave", []), ("", [])],
)
def test_what_the_containers_own_root_is(kind: str, shown: list[str], tmp_path: Path, busybox_root: Path) -> None:
    ran = shell("minirt", tmp_path, busybox_root, mounted(rootfsPropagation=kind), "cat /proc/self/mountinfo")
    assert rows(ran)["/"][1] == shown


@ALL
def test_paths_that_are_not_there_are_neither_masked_nor_made(runtime: str, tmp_path: Path, busybox_root: Path) -> None:
    change = mounted(maskedPaths=["/not/there"], readonlyPaths=["/not/either"])
    assert shell(runtime, tmp_path, busybox_root, change, "ls -d /not 2>/dev/null || echo none").out == "none\n"
