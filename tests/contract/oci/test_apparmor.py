"""AppArmor's profiles, where the kernel has them: the VM has.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#linux-process
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.oci.container import Container
from tests.peers.daemon import output, run

ENABLED = Path("/sys/module/apparmor/parameters/enabled")

pytestmark = [
    pytest.mark.vm,
    pytest.mark.peer,
    pytest.mark.skipif(not (ENABLED.exists() and ENABLED.read_text().startswith("Y")), reason="apparmor: not there"),
]
PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  ptrace,
  mount,
  umount,
  pivot_root,
  deny /tmp/** w,
}}
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A loaded profile that lets nobody write below /tmp."""
    name = f"minirt-test-{os.getpid()}"
    file = tmp_path_factory.mktemp("apparmor") / "profile"
    file.write_text(PROFILE.format(name=name))
    output("apparmor_parser", "--replace", "--skip-cache", file)
    yield name
    run("apparmor_parser", "--remove", file)


@pytest.fixture
def confined(container: Container, profile: str) -> Container:
    container.process["apparmorProfile"] = profile
    return container


OWN = "cat /proc/self/attr/apparmor/current; mkdir /tmp/new 2>&1 | grep -o 'Permission denied'"


def test_a_profile_confines_the_program(confined: Container, profile: str) -> None:
    assert confined.says(OWN).splitlines() == [f"{profile} (enforce)", "Permission denied"]


def test_with_new_privileges(confined: Container, profile: str) -> None:
    confined.process["noNewPrivileges"] = False
    assert profile in confined.says("cat /proc/self/attr/apparmor/current")


def test_exec_is_confined_too(confined: Container, profile: str) -> None:
    confined.create().start()
    assert confined.exec("sh", "-c", OWN).stdout.splitlines() == [f"{profile} (enforce)", "Permission denied"]


def test_the_profile_of_a_description(container: Container, profile: str) -> None:
    container.create().start()
    found = container.exec_process("sh", "-c", OWN, apparmorProfile=profile)
    assert found.splitlines() == [f"{profile} (enforce)", "Permission denied"]


def test_the_profile_of_an_option(container: Container, profile: str) -> None:
    container.create().start()
    done = container.exec("sh", "-c", OWN, options=("--apparmor", profile))
    assert done.stdout.splitlines() == [f"{profile} (enforce)", "Permission denied"]


def test_unconfined(container: Container) -> None:
    container.process["apparmorProfile"] = "unconfined"
    assert container.says("cat /proc/self/attr/apparmor/current") == "unconfined"


def test_in_a_user_namespace(confined: Container, profile: str, root: Path) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    confined.linux.update(uidMappings=maps, gidMappings=maps)
    confined.linux["namespaces"].append({"type": "user"})
    for path in [root.parent, *root.parents]:
        path.chmod(path.stat().st_mode | 0o011)
    assert profile in confined.says("cat /proc/self/attr/apparmor/current")


def test_a_profile_that_is_not_loaded_is_an_error(container: Container) -> None:
    container.process["apparmorProfile"] = "minirt-has-no-such-profile"
    done = container.try_create()
    assert done.returncode != 0
    assert "apparmor" in done.stderr.lower()
    assert not container.exists


def test_one_that_is_not_loaded_is_an_error_for_exec(container: Container) -> None:
    container.create().start()
    assert container.try_exec_process("true", apparmorProfile="minirt-has-no-such-profile").returncode != 0
    assert container.status() == "running"
