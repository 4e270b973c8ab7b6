"""The annotations that ask for a feature: their spellings, and who may use them.

CRI-O's new spelling is `FEATURE.crio.io`, noded's `FEATURE.noded.io`; the old ones follow no rule. The
annotation of one container (`KEY/CONTAINER`) wins over the pod's (`KEY`), noded's spelling over CRI-O's new
one, that over the old one. One counts only when `allowed_annotations` match it, with or without what
names the container: that is how CRI-O's configurations name them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from noded.errors import InvalidArgument

T = TypeVar("T")

# Feature -> CRI-O's old key, "" where the new one is the only one.
CONTAINER_FEATURES: Mapping[str, str] = {
    "cgroup2-mount-hierarchy-rw": "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw",
    "cpu-shared": "",
    "devices": "io.kubernetes.cri-o.Devices",
    "disable-fips": "io.kubernetes.cri-o.DisableFIPS",
    "stop-signal": "org.opencontainers.image.stopSignal",
    "umask": "io.kubernetes.cri-o.umask",
    "unified-cgroup": "io.kubernetes.cri-o.UnifiedCgroup",
}
POD_FEATURES: Mapping[str, str] = {
    "link-logs": "io.kubernetes.cri-o.LinkLogs",
    "shm-size": "io.kubernetes.cri-o.ShmSize",
    "userns-mode": "io.kubernetes.cri-o.userns-mode",
}
# Annotations that peers act on and noded does not -> why not, and what does the same here.
_SCHEDULED = "the pod's RuntimeClass chooses its runtime handler"
NOT_SUPPORTED: Mapping[str, str] = {
    **dict.fromkeys(
        ("platform-runtime-path.crio.io", "io.kubernetes.cri-o.PlatformRuntimePath"),
        "a pod must not choose a program of the node; configure a runtime handler with that path",
    ),
    **dict.fromkeys(
        ("spoofed.crio.io", "io.kubernetes.cri-o.Spoofed"),
        "every container runs; use a simulated node to test the control plane",
    ),
    **dict.fromkeys(
        ("try-skip-volume-selinux-label.crio.io", "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel"),
        "volumes are labelled as the request says; set seLinuxChangePolicy in the pod",
    ),
    "skip-gomaxprocs.crio.io": "noded sets no GOMAXPROCS",
    "io.containers.trace-syscall": "use the annotation seccomp-record.noded.io, or noded seccomp record",
    "io.kubernetes.cri-o.TrustedSandbox": _SCHEDULED,
    "io.kubernetes.cri.untrusted-workload": _SCHEDULED,
}


def is_allowed(key: str, base: str, patterns: tuple[str, ...]) -> bool:
    """Whether `allowed_annotations` match an annotation, or it without the name of its container."""
    return any(fnmatchcase(key, pattern) or fnmatchcase(base, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Asked:
    """Annotations of a pod that ask for some features.

    Args:
        granted: those that count.
        ignored: those that `allowed_annotations` do not match, sorted.
    """

    features: Mapping[str, str]
    container: str
    granted: Mapping[str, str]
    ignored: tuple[str, ...]

    def of(self, feature: str, parse: Callable[[str], T], default: T) -> T:
        """The value of a feature. Raises: InvalidArgument naming the annotation."""
        for key, _ in _keys(feature, self.features[feature], self.container):
            if key in self.granted:
                try:
                    return parse(self.granted[key])
                except InvalidArgument as error:
                    raise InvalidArgument(f"annotation {key}: {error}") from None
        return default


def asked(
    features: Mapping[str, str], annotations: Mapping[str, str], container: str, patterns: tuple[str, ...]
) -> Asked:
    """What a pod's annotations ask.

    Args:
        features: CONTAINER_FEATURES or the like.
        container: name of the container, "" for the pod itself.
        patterns: the `allowed_annotations` that count for the pod.
    """
    granted: dict[str, str] = {}
    ignored: list[str] = []
    for feature, old in features.items():
        for key, base in _keys(feature, old, container):
            if key not in annotations:
                continue
            if is_allowed(key, base, patterns):
                granted[key] = annotations[key]
            else:
                ignored.append(key)
    return Asked(features, container, granted, tuple(sorted(ignored)))


def not_allowed(keys: tuple[str, ...]) -> tuple[str, ...]:
    """What to tell an operator of annotations that nothing allows."""
    return tuple(
        f"annotation {key} is ignored: the runtime handler's allowed_annotations do not match it"
        for key in keys
    )


def not_supported(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """What to tell an operator of a pod's annotations that other runtimes act on."""
    return tuple(
        f"annotation {key} is ignored: {reason}"
        for key in sorted(annotations)
        if (reason := NOT_SUPPORTED.get(key.partition("/")[0]))
    )


def enabled(text: str) -> bool:
    """Raises: InvalidArgument for anything but enable and disable."""
    if text not in ("enable", "disable"):
        raise InvalidArgument(f"{text!r} is neither enable nor disable")
    return text == "enable"


def flag(text: str) -> bool:
    """Raises: InvalidArgument for anything but true and false."""
    if text not in ("true", "false"):
        raise InvalidArgument(f"{text!r} is neither true nor false")
    return text == "true"


def _keys(feature: str, old: str, container: str) -> Iterator[tuple[str, str]]:
    """The annotations that may hold a feature, the strongest first, and each without the container."""
    bases = (f"{feature}.noded.io", f"{feature}.crio.io", *((old,) if old else ()))
    if container:
        yield from ((f"{base}/{container}", base) for base in bases)
        if old:
            yield f"{old}.{container}", old
    yield from ((base, base) for base in bases)
