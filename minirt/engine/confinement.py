"""What the CRI's security contexts allow a container: user and groups, capabilities, seccomp, AppArmor.

Several fields have an old form beside the new one; where both are given, the new one counts. What this kernel or this
version cannot do is refused by its name.
"""

from pathlib import Path

from minirt.crimessages import api_pb2 as cri
from minirt.engine.records import Security
from minirt.errors import InvalidInput, Unsupported
from minirt.security import conditional as profiles
from minirt.security.labels import DEFAULT_PROFILE, has_apparmor

PROFILES = cri.SecurityProfile.ProfileType
LOCALHOST = "localhost/"
"""How the old fields name a profile of the node's own."""


def refuse(asked: bool, name: str) -> None:
    """Refuse what is understood and not offered. Raises Unsupported."""
    if asked:
        raise Unsupported(f"use {name}", "it is not supported yet", "leave it out")


def security(context: cri.LinuxContainerSecurityContext) -> Security:
    """Return what a container may do.

    Raises:
        InvalidInput: a group without a user; a seccomp profile that is missing or wrong.
        Unsupported: SELinux options; an AppArmor profile where there is no such thing.
    """
    refuse_selinux(context)
    capabilities = context.capabilities
    return Security(
        user=_user(context),
        groups=tuple(context.supplemental_groups),
        image_groups=context.supplemental_groups_policy == cri.SupplementalGroupsPolicy.Merge,
        add=tuple(capabilities.add_capabilities),
        drop=tuple(capabilities.drop_capabilities),
        ambient=tuple(capabilities.add_ambient_capabilities),
        privileged=context.privileged,
        readonly_rootfs=context.readonly_rootfs,
        no_new_privileges=context.no_new_privs,
        masked=tuple(context.masked_paths),
        readonly=tuple(context.readonly_paths),
        seccomp=_seccomp(context),
        apparmor="" if context.privileged else apparmor(context),
    )


def _user(context: cri.LinuxContainerSecurityContext) -> str:
    user = str(context.run_as_user.value) if context.HasField("run_as_user") else context.run_as_username
    if context.HasField("run_as_group"):
        if not user:
            raise InvalidInput("use runAsGroup", "it is given without a user", "give runAsUser, too")
        user += f":{context.run_as_group.value}"
    return user


def refuse_selinux(context: cri.LinuxSandboxSecurityContext | cri.LinuxContainerSecurityContext) -> None:
    """Refuse SELinux options, which would be ignored. Raises Unsupported."""
    options = context.selinux_options
    refuse(bool(options.user or options.role or options.type or options.level), "SELinux options")


def _seccomp(context: cri.LinuxContainerSecurityContext) -> profiles.Choice:
    """Return a container's seccomp profile. None named is none, and so is a privileged container's, as in containerd.

    Raises:
        InvalidInput: a profile on this node is missing or wrong.
    """
    kind, path = seccomp_of(context)
    if context.privileged or kind == PROFILES.Unconfined:
        return "unconfined"
    return "default" if kind == PROFILES.RuntimeDefault else profiles.load(Path(path))


def seccomp_of(context: cri.LinuxSandboxSecurityContext | cri.LinuxContainerSecurityContext) -> tuple[int, str]:
    """Return the type of a seccomp profile, and its path (Localhost). Raises InvalidInput: the old field is odd."""
    if context.HasField("seccomp"):
        return context.seccomp.profile_type, context.seccomp.localhost_ref
    return _old_form(context.seccomp_profile_path, "seccomp_profile_path")


def _old_form(text: str, field: str) -> tuple[int, str]:
    """Return (type, reference) of a profile named in one word. Raises InvalidInput."""
    if text in ("", "unconfined"):
        return PROFILES.Unconfined, ""
    if text in ("runtime/default", "docker/default"):
        return PROFILES.RuntimeDefault, ""
    if text.startswith(LOCALHOST):
        return PROFILES.Localhost, text.removeprefix(LOCALHOST)
    why = "it is none of runtime/default, unconfined, localhost/<profile>"
    raise InvalidInput(f"use {field} {text!r}", why, "name one of these")


def apparmor(context: cri.LinuxContainerSecurityContext) -> str:
    """Return the AppArmor profile to run under: "default" where none is named, "" for none.

    Raises:
        Unsupported: one that is named, on a kernel without AppArmor.
    """
    if not context.apparmor_profile and not context.HasField("apparmor"):
        return "default"
    kind, name = _old_form(context.apparmor_profile, "apparmor_profile")
    if context.HasField("apparmor"):
        kind, name = context.apparmor.profile_type, context.apparmor.localhost_ref.removeprefix(LOCALHOST)
    if kind == PROFILES.Unconfined or (kind == PROFILES.RuntimeDefault and not has_apparmor()):
        return ""
    if kind == PROFILES.RuntimeDefault:
        return DEFAULT_PROFILE
    if not has_apparmor():
        raise Unsupported(f"use the AppArmor profile {name}", "AppArmor is not enabled in this kernel", "leave it out")
    return name
