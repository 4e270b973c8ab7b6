"""Linux security modules of this node: AppArmor and SELinux."""

from __future__ import annotations

from pathlib import Path

from noded.errors import InvalidArgument

_APPARMOR_PARAMETER = Path("/sys/module/apparmor/parameters/enabled")
_APPARMOR_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_SELINUX = Path("/sys/fs/selinux")
_SELINUX_CONFIG = Path("/etc/selinux")
_SELINUX_CONTEXTS = Path("/usr/share/containers/selinux/contexts")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def apparmor_enabled() -> bool:
    """Tell whether the kernel enforces AppArmor profiles."""
    return _read(_APPARMOR_PARAMETER).startswith("Y")


def parse_apparmor_profiles(text: str) -> frozenset[str]:
    """Return the names in the kernel's list of lines `NAME (MODE)`; a name may hold spaces."""
    return frozenset(line.rpartition(" (")[0] for line in text.splitlines() if " (" in line)


def apparmor_profiles() -> frozenset[str]:
    """Return the profiles that are loaded; empty without AppArmor or securityfs."""
    return parse_apparmor_profiles(_read(_APPARMOR_PROFILES))


def selinux_enabled() -> bool:
    """Tell whether a SELinux policy is loaded."""
    return (_SELINUX / "enforce").exists()


def selinux_enforcing() -> bool:
    """Tell whether SELinux denies, not just reports."""
    return _read(_SELINUX / "enforce") == "1"


def selinux_policy_config() -> str:
    """Return the text of /etc/selinux/config, "" without one."""
    return _read(_SELINUX_CONFIG / "config")


def selinux_container_contexts(policy: str) -> tuple[Path, str]:
    """Return the file with the contexts of containers in a policy, and its text, "" without one."""
    for path in (_SELINUX_CONTEXTS, _SELINUX_CONFIG / policy / "contexts" / "lxc_contexts"):
        if text := _read(path):
            break
    return path, text


def check_selinux_context(context: str, *, file: Path = _SELINUX / "context") -> None:
    """Ask the loaded policy whether it knows a context. Spec: selinuxfs `context`, security_check_context(3).

    Raises: InvalidArgument.
    """
    try:
        with file.open("r+b", buffering=0) as asked:
            asked.write(context.encode() + b"\0")
    except OSError as error:
        raise InvalidArgument(f"the SELinux policy refuses {context!r}: {error.strerror}") from None
