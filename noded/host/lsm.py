"""Linux security modules of this node: AppArmor and SELinux."""

from __future__ import annotations

from pathlib import Path

_APPARMOR_PARAMETER = Path("/sys/module/apparmor/parameters/enabled")
_APPARMOR_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_SELINUX = Path("/sys/fs/selinux")


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
