"""minirt's own AppArmor profile: that of every container that names none, where the kernel has AppArmor.

It is a second fence behind namespaces, capabilities and masked paths: it holds also for who has got CAP_SYS_ADMIN, or
finds /proc or /sys mounted writable. It is loaded when the first container wants it, and stays loaded.

Source: apparmor.d(5)
"""

import contextlib
import subprocess

from minirt.errors import StepFailed, Unsupported
from minirt.security.labels import DEFAULT_PROFILE, parser

NAME = DEFAULT_PROFILE
LOADED = "/sys/kernel/security/apparmor/profiles"
TIME_TO_LOAD_S = 60
PROFILE = f"""
profile {NAME} flags=(attach_disconnected,mediate_deleted) {{
  # Capabilities, files and sockets are what the container's other fences leave.
  capability,
  file,
  network,
  unix,
  umount,

  # What the seccomp filter refuses too, but for i386's socketcall, whose arguments no filter sees.
  deny network alg,
  deny network vsock,

  # Who is outside stops containers; inside, they are each other's.
  signal (receive) peer=unconfined,
  signal (send, receive) peer={NAME},
  ptrace (read, trace, readby, tracedby) peer={NAME},

  deny mount,

  # The kernel's settings and its memory.
  deny /proc/sys/** w,
  deny /proc/{{kcore,kmem,mem,sysrq-trigger}} rwkl,
  deny /proc/{{acpi,bus,fs,irq,scsi}}/** w,
  deny /sys/kernel/security/** rwkl,
  deny /sys/{{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}}/** wl,
  deny /sys/fs/{{[^c],c[^g]}}** wl,
}}
"""


def load() -> None:
    """Load the profile, unless it is loaded.

    Raises:
        Unsupported: there is no apparmor_parser.
        StepFailed: it refused the profile.
    """
    if is_loaded():
        return
    what = f"load the AppArmor profile {NAME}"
    command = [parser(), "--replace", "--skip-cache"]
    if not command[0]:
        raise Unsupported(what, "there is no apparmor_parser", "install the package apparmor")
    try:
        done = subprocess.run(
            command, input=PROFILE, capture_output=True, text=True, check=False, timeout=TIME_TO_LOAD_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StepFailed(what, str(error)) from error
    if done.returncode:
        raise StepFailed(what, f"apparmor_parser: {done.stderr.strip()}", "does this kernel know all of its rules?")


def is_loaded() -> bool:
    """Say whether the kernel has the profile; where securityfs is not mounted that is not known, and no."""
    with contextlib.suppress(OSError), open(LOADED) as profiles:
        return any(line.split(" ")[0] == NAME for line in profiles)
    return False
