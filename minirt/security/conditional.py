"""Seccomp profiles in docker's file format: rules with conditions, which are resolved to the OCI's.

    docker's    rules with conditions: which capabilities, which architecture, which kernel
       │ resolve(bounding set, machine)
       ▼
    the OCI's   rules that all hold (profile.py) ─ seccomp.py ─▶ BPF

SCMP_ACT_NOTIFY and its listener are refused by name here: nobody would listen.
Source: docs.docker.com/engine/security/seccomp; moby's seccomp.go
"""

import os
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from msgspec import Struct, field

from minirt import decoding
from minirt.errors import InvalidInput
from minirt.security.profile import Action, Argument, Flag, Rule, Seccomp

if TYPE_CHECKING:
    from pathlib import Path


class Condition(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """Where a rule of docker's holds. ``arches`` are Go's names, ``min_kernel`` is 4.8 and the like."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: str = ""


class ConditionalRule(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """A rule of docker's: all of ``includes`` must be so, and nothing of ``excludes``. ``name`` is its old form."""

    action: Action
    names: tuple[str, ...] = ()
    name: str = ""
    errno_ret: int | None = None
    args: tuple[Argument, ...] | None = None
    comment: str = ""
    includes: Condition | None = None
    excludes: Condition | None = None


class Family(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """An architecture, and those whose programs its kernel runs as well."""

    architecture: str
    sub_architectures: tuple[str, ...] | None = ()


class Profile(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """A profile in docker's format. An OCI one is such a profile, without conditions."""

    default_action: Action
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] | None = None
    arch_map: tuple[Family, ...] | None = field(default=None, name="archMap")
    flags: tuple[Flag, ...] | None = None
    syscalls: tuple[ConditionalRule, ...] | None = ()


Choice = Profile | Literal["default", "unconfined"]
"""What a container can be given: minirt's own profile, none, or one of the user's."""


class Machine(NamedTuple):
    """What conditions ask of a machine: Go's name of its architecture, libseccomp's, its kernel's version."""

    arch: str
    native: str
    kernel: tuple[int, int]


GO_NAMES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}
"""By uname's machine: what profiles call it, and what libseccomp does."""


@lru_cache(maxsize=1)
def here() -> Machine:
    """Return this machine."""
    about = os.uname()
    return Machine(*GO_NAMES.get(about.machine, (about.machine, "")), _version(about.release))


def _version(text: str) -> tuple[int, int]:
    """Return major and minor of a kernel's version. Raises ValueError: it has none."""
    major, _, rest = text.partition(".")
    minor = "".join(character for character in rest.partition(".")[0].partition("-")[0] if character.isdigit())
    return int(major), int(minor)


def load(path: "Path") -> Profile:
    """Return the profile in a JSON file of docker's or the OCI's format.

    Raises:
        InvalidInput: it cannot be read, or a field is wrong or unsupported (the message names its path).
    """
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"read the seccomp profile {path}", error.strerror or str(error), "name a file") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInput(f"use the seccomp profile {path}", str(error), "see docs/seccomp.md") from error


def parse(content: bytes) -> Profile:
    """Return the profile in JSON. Raises msgspec.DecodeError, ValueError: what is wrong, and where."""
    found = decoding.from_json(content, Profile)
    if found.architectures and found.arch_map:
        raise ValueError("architectures and archMap are both given - at `$`")
    for index, rule in enumerate(found.syscalls or ()):
        if bool(rule.name) == bool(rule.names):
            raise ValueError(f"exactly one of name and names must be given - at `$.syscalls[{index}]`")
        for where, condition in (("includes", rule.includes), ("excludes", rule.excludes)):
            if condition and condition.min_kernel and not _is_version(condition.min_kernel):
                raise ValueError(f"it is no version - at `$.syscalls[{index}].{where}.minKernel`")
    return found


def _is_version(text: str) -> bool:
    try:
        return bool(_version(text))
    except ValueError:
        return False


def resolve(profile: Profile, capabilities: Collection[str], machine: Machine) -> Seccomp:
    """Return what of a profile holds for a container with this bounding set on this machine. Pure."""
    return Seccomp(
        profile.default_action,
        profile.default_errno_ret,
        profile.architectures or _architectures(profile.arch_map or (), machine),
        profile.flags,
        tuple(
            Rule(rule.names or (rule.name,), rule.action, rule.errno_ret, rule.args or ())
            for rule in profile.syscalls or ()
            if _holds(rule, capabilities, machine)
        ),
    )


def _architectures(families: tuple[Family, ...], machine: Machine) -> tuple[str, ...]:
    """Return the native architecture and those that go with it; none (libseccomp: the native) if it is not there."""
    for family in families:
        if family.architecture == machine.native:
            return (family.architecture, *(family.sub_architectures or ()))
    return ()


def _holds(rule: ConditionalRule, capabilities: Collection[str], machine: Machine) -> bool:
    """Say whether a rule is for this container: included by everything named, excluded by nothing."""
    include, exclude = rule.includes or Condition(), rule.excludes or Condition()
    if machine.arch in exclude.arches or any(name in capabilities for name in exclude.caps):
        return False
    if exclude.min_kernel and machine.kernel >= _version(exclude.min_kernel):
        return False
    if include.arches and machine.arch not in include.arches:
        return False
    if include.min_kernel and machine.kernel < _version(include.min_kernel):
        return False
    return all(name in capabilities for name in include.caps)
