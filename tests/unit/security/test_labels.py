"""AppArmor and SELinux: what is written, and what is said where the kernel has neither."""

import pytest

from minirt.errors import StepFailed
from minirt.security import labels
from minirt.security.labels import SetAppArmorProfile, SetSelinuxLabel


def test_described_in_the_kernels_words() -> None:
    assert SetAppArmorProfile("web").describe() == "write exec web to /proc/self/attr/apparmor/exec"
    assert SetSelinuxLabel("a:b:c:s0").describe() == "write a:b:c:s0 to /proc/self/attr/exec"


@pytest.mark.skipif(labels.has_apparmor(), reason="this kernel has AppArmor")
def test_a_kernel_without_apparmor_is_named() -> None:
    with pytest.raises(StepFailed, match="cannot use the AppArmor profile web: AppArmor is not enabled"):
        SetAppArmorProfile("web").execute(None)


@pytest.mark.skipif(labels.has_apparmor(), reason="this kernel has AppArmor")
def test_unconfined_is_what_all_are_without_apparmor() -> None:
    SetAppArmorProfile("unconfined").execute(None)


@pytest.mark.skipif(labels.has_selinux(), reason="this kernel has SELinux")
def test_a_kernel_without_selinux_is_named() -> None:
    with pytest.raises(StepFailed, match="cannot use the SELinux label a:b:c:s0: SELinux is not enabled"):
        SetSelinuxLabel("a:b:c:s0").execute(None)


@pytest.mark.skipif(not labels.has_apparmor(), reason="this kernel has no AppArmor")
def test_a_profile_that_is_not_loaded_is_named() -> None:
    with pytest.raises((StepFailed, PermissionError)):
        SetAppArmorProfile("minirt-has-no-such-profile").execute(None)
