"""AppArmor profile and masked or read-only kernel paths."""

from __future__ import annotations

from noded.model.container import ContainerSecurity
from noded.model.host import HostFacts
from noded.model.pod import ProfileType
from noded.spec.inputs import SpecPolicy

# What Kubernetes calls procMount Default: interfaces that leak facts of the node, or control it.
# The kubelet sends its own list; this one protects containers of clients that send none.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_PREFIX = "localhost/"


def container_apparmor(security: ContainerSecurity, host: HostFacts, policy: SpecPolicy) -> str:
    """The profile to confine with, "" = none.

    A profile named by the client holds for privileged containers too; the default one does not,
    as in both peers. `noded.spec.validate` refuses a named profile on a host without AppArmor.
    """
    if not host.apparmor:
        return ""
    profile = security.apparmor
    if profile is not None and profile.type is ProfileType.UNCONFINED:
        return ""
    if profile is not None and profile.type is ProfileType.LOCALHOST:
        return profile.localhost_ref.removeprefix(_PREFIX)
    return "" if security.privileged else policy.apparmor_profile


def protected_paths(
    security: ContainerSecurity, *, user_namespace: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(masked, read-only) paths of a container.

    The CRI cannot tell "no list" from "an empty list". Kubernetes sends empty ones for procMount
    Unmasked, which it allows in pods with a user namespace only; there the kernel's own checks
    protect the node. Everywhere else no list means the default one.
    """
    if security.privileged:
        return (), ()
    masked, readonly = security.masked_paths, security.readonly_paths
    if not user_namespace:
        masked, readonly = masked or MASKED_PATHS, readonly or READONLY_PATHS
    return _unique(masked), _unique(readonly)


def _unique(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))
