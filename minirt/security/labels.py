"""The security modules' names for what a program may do: AppArmor's profile, SELinux's label.

They are asked for now and take effect at execve, so init works unconfined until then. Written first, through the
host's /proc, for a container may fake its own (CVE-2019-16884); what is forked meanwhile inherits the wish.
Source: proc_pid_attr(5), the kernel's Documentation/admin-guide/LSM/.
"""

import os

from minirt.errors import StepFailed
from minirt.linux import fds
from minirt.linux.operation import Operation

DEFAULT_PROFILE = "minirt-default"
"""minirt's own AppArmor profile: see apparmor.py."""
PARSERS = tuple(f"{place}/apparmor_parser" for place in ("/usr/sbin", "/sbin", "/usr/bin", "/bin"))
APPARMOR_ENABLED = "/sys/module/apparmor/parameters/enabled"


class SetAppArmorProfile(Operation[object], frozen=True):
    """Have the next execve confine the program by an AppArmor profile, which must be loaded."""

    profile: str

    def describe(self) -> str:
        """Return one line."""
        return f"write exec {self.profile} to /proc/self/attr/apparmor/exec"

    def execute(self, context: object, /) -> None:
        """Write it; ``unconfined`` is what all are where the kernel has no AppArmor.

        Raises:
            StepFailed: the kernel has no AppArmor, or knows no such profile.
        """
        if not has_apparmor():
            if self.profile != "unconfined":
                why = "AppArmor is not enabled in this kernel"
                raise StepFailed(f"use the AppArmor profile {self.profile}", why, "leave process.apparmorProfile out")
            return
        own = "/proc/self/attr/apparmor/exec"
        try:
            fds.write_file(own if os.path.exists(own) else "/proc/self/attr/exec", f"exec {self.profile}")
        except FileNotFoundError as error:
            do = f"load it with apparmor_parser; aa-status lists those that are ({error.strerror})"
            raise StepFailed(f"use the AppArmor profile {self.profile}", "it is not loaded", do) from error


class SetSelinuxLabel(Operation[object], frozen=True):
    """Have the next execve give the program an SELinux context (``user:role:type:level``)."""

    label: str

    def describe(self) -> str:
        """Return one line."""
        return f"write {self.label} to /proc/self/attr/exec"

    def execute(self, context: object, /) -> None:
        """Write it. Raises StepFailed: the kernel has no SELinux. OSError: EINVAL, the policy has no such context."""
        if not has_selinux():
            why = "SELinux is not enabled in this kernel"
            raise StepFailed(f"use the SELinux label {self.label}", why, "leave process.selinuxLabel out")
        fds.write_file("/proc/self/attr/exec", self.label)


def has_apparmor() -> bool:
    """Say whether AppArmor is there and on."""
    try:
        with open(APPARMOR_ENABLED) as switch:
            return switch.read().startswith("Y")
    except FileNotFoundError:
        return False


def parser() -> str:
    """Return the program that loads AppArmor's profiles, "" where there is none."""
    return next((one for one in PARSERS if os.access(one, os.X_OK)), "")


def default_profile() -> str:
    """Return the profile of a container that names none, "" where there is no AppArmor, or nothing to load it with."""
    return DEFAULT_PROFILE if has_apparmor() and parser() else ""


def has_selinux() -> bool:
    """Say whether SELinux is there and on: only then does the kernel know its file system."""
    with open("/proc/filesystems") as known:
        return "\tselinuxfs\n" in known.read()
