"""Choose between KVM and emulation by what this host has proved.

A /dev/kvm that opens and makes a virtual machine proves nothing: nested in some hypervisors a stock kernel hangs there.
So one machine is booted with it, and what came of that is believed until the host starts again.
"""

import fcntl
import os
from pathlib import Path

from console import converse
from disk import cache, locked
from machine import Job, booted
from report import VmError, say

PROOF_TIMEOUT_S = 25.0


def accelerator(disk: Path) -> str:
    """Return ``kvm`` where a machine booted with it since this host started, else ``tcg``."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    verdict = cache() / f"accelerator-{boot_id}"
    if not verdict.exists():
        with locked(cache() / "accelerator.lock", fcntl.LOCK_EX):
            if not verdict.exists():
                prove(disk, verdict)
    return verdict.read_text()


def prove(disk: Path, verdict: Path) -> None:
    """Write the verdict of this boot of the host in place of those of others; it is never there half written."""
    for old in cache().glob("accelerator-*-*"):
        old.unlink()
    unfinished = cache() / "accelerator.new"
    unfinished.write_text("kvm" if boots_with_kvm(disk) else "tcg")
    unfinished.rename(verdict)


def boots_with_kvm(disk: Path) -> bool:
    """Boot a machine with KVM and see whether it can run ``true``."""
    say("trying KVM, once since this host started")
    job = Job(command=("true",), timeout_s=PROOF_TIMEOUT_S)
    try:
        with booted(disk, job, "kvm") as machine:
            works = converse(machine, job) == 0
    except VmError:
        works = False
    say("KVM works" if works else "KVM does not boot here: emulating, which is about ten times slower")
    return works
