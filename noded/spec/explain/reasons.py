"""Why a spec has what nobody asked for, by field: what noded writes into every spec, and why.

The first pattern that matches a whole field name counts.
"""

from __future__ import annotations

import re

from noded.spec.explain.sources import Kind, Source

_KERNEL = "file systems that the runtime specification has a Linux container be given"
_D, _R, _N = Kind.DEFAULT, Kind.RUNTIME, Kind.NODED

_REASONS: tuple[tuple[str, Kind, str], ...] = (
    (r"ociVersion", _R, "the lowest version of the runtime specification that has all this spec needs"),
    (r"process\.terminal", _D, "no terminal"),
    (r"process\.user\..*", _D, "root, where neither request nor image says otherwise"),
    (r"process\.args\[\d+\]", _N, "noded's own command line of a pod's init"),
    (r"process\.env\[PATH\]", _D, "a search path for images that set none"),
    (r"process\.env\[TERM\]", _D, "the usual TERM of a container with a terminal"),
    (r"process\.env\[HOSTNAME\]", _N, "the pod's host name"),
    (r"process\.env", _D, "no variables"),
    (r"process\.rlimits\[.*\]\.type", _D, "a limit that default_ulimits and the base spec both set"),
    (r"process\.cwd", _D, "the root directory, where neither request nor image names one"),
    (r"process\.capabilities\..*", _D, "no capability, unless it is granted"),
    (r"process\.noNewPrivileges", _D, "the CRI's default"),
    (r"process\.oomScoreAdj", _D, "always set: a process must not inherit the daemon's own"),
    (r"root\.readonly", _D, "a writable root, unless the request wants it read-only"),
    (r"root\.path", _N, "where noded has mounted the root file system"),
    (r"hostname", _N, "the pod's host name"),
    (r"mounts\[/(proc|dev|dev/pts|dev/mqueue|sys|sys/fs/cgroup)\]\..*", _R, _KERNEL),
    (r"mounts\[/dev/shm\]\..*", _D, "shared memory of the pod's IPC namespace"),
    (
        r"mounts\[/etc/(resolv\.conf|hostname|hosts|localtime)\]\..*",
        _D,
        "a file of the pod, where the request brings none",
    ),
    (r"mounts\[.*\]\.type", _D, "the CRI knows bind mounts only"),
    (r"mounts\[.*\]\.options\[(rbind|nodev|nosuid|rw|ro|rprivate)\]", _D, "how noded binds such a mount"),
    (r"mounts\[.*\]\..*", _D, "how noded mounts what a container needs"),
    (
        r"annotations\[io\.kubernetes\..*\]",
        _N,
        "how runtimes, shims and hooks learn which pod a container is of",
    ),
    (r"linux\.devices", _D, "no device beside those that runtimes make"),
    (r"linux\.devices\[.*\]\..*", _D, "the device as asked for"),
    (
        r"linux\.resources\.devices\[deny all\]\..*",
        _D,
        "no device but those that follow and those that runtimes make",
    ),
    (r"linux\.resources\.devices\[.*\]\..*", _D, "the rule that the device cgroup needs for the device"),
    (r"linux\.resources\.cpu\.shares", _D, "a pod's init sleeps: the least there is"),
    (r"linux\.resources\.pids\.limit", _D, "no limit of its own"),
    (r"linux\.namespaces\[mount\]\..*", _R, "every container has its own mount namespace"),
    (r"linux\.namespaces\[.*\]\..*", _D, "the CRI's default namespaces"),
    (
        r"linux\.(maskedPaths|readonlyPaths)(\[.*\])?",
        _D,
        "what Kubernetes calls procMount Default: interfaces that leak facts of the node, or control it",
    ),
    (r"linux\.rootfsPropagation", _D, "what the most open mount needs"),
    (r"linux\.seccomp\..*", _D, "noded's own seccomp profile"),
    (r"linux\.[ug]idMappings.*", _N, "the pod's user namespace"),
)
_COMPILED = tuple((re.compile(pattern), kind, text) for pattern, kind, text in _REASONS)


def reason(name: str) -> Source | None:
    """Why noded writes this field by itself; None when nobody has said so yet."""
    for pattern, kind, text in _COMPILED:
        if pattern.fullmatch(name):
            return Source(kind, "", text)
    return None
