"""Isolated CPUs of one cgroup v2: the scheduler balances nothing onto them.

A partition that is not below another one takes its CPUs by `cpuset.cpus.exclusive` of all cgroups above it
(Linux 6.7; admin-guide/cgroup-v2.rst, "Cpuset Interface Files"). Those cgroups hold the pods of others too,
so CPUs are added there, and only a container's own are taken out again.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import structlog

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.cpus import format_cpus, parse_cpus

log = structlog.get_logger(__name__)

_EXCLUSIVE = "cpuset.cpus.exclusive"
_PARTITION = "cpuset.cpus.partition"
_ANNOTATION = "annotation cpu-load-balancing"
_GONE = (errno.ENOENT, errno.ENODEV)


def to_take(cgroup: Path, cpus: Collection[int]) -> dict[str, frozenset[int]]:
    """Those of the CPUs that each cgroup from this one up does not have for itself yet, by its name. Blocks.

    Where one has them already, somebody else's partition below it uses them: they are not `isolate`'s.
    """
    return {
        str(directory): frozenset(cpus) - _read(directory / _EXCLUSIVE) for directory in _with_parents(cgroup)
    }


def isolate(cgroup: Path, cpus: Collection[int]) -> None:
    """Make a cgroup an isolated partition of some CPUs. Call `join` also when this raises. Blocks.

    Raises: FailedPrecondition naming the file and what the kernel said.
    """
    directories = list(_with_parents(cgroup))
    if not directories:
        raise FailedPrecondition(
            f"{_ANNOTATION}: this kernel isolates no CPUs of one cgroup, {cgroup} has no {_EXCLUSIVE}: "
            "use Linux 6.7 or newer, or boot with isolcpus=domain for them and drop the annotation"
        )
    for directory in reversed(directories):
        file = directory / _EXCLUSIVE
        try:
            file.write_text(format_cpus(_read(file) | frozenset(cpus)))
        except OSError as error:
            raise FailedPrecondition(
                f"{_ANNOTATION}: the kernel refuses CPUs {format_cpus(cpus)} for {file}: {error.strerror}; "
                "another cgroup may use them"
            ) from None
    file = cgroup / _PARTITION
    try:
        file.write_text("isolated")
        state = file.read_text().strip()
    except OSError as error:
        raise FailedPrecondition(f"{_ANNOTATION}: cannot write {file}: {error.strerror}") from None
    if state != "isolated":  # such as: isolated invalid (Cpu list in cpuset.cpus not exclusive)
        raise FailedPrecondition(f"{_ANNOTATION}: the kernel calls {file} {state!r}")


def join(cgroup: Path, taken: Mapping[str, Collection[int]]) -> None:
    """Give the CPUs back. Idempotent, and right when the cgroup is gone or `isolate` half ran. Blocks.

    Args:
        taken: what `to_take` has said before.
    """
    cpus = frozenset[int]().union(*taken.values())
    try:
        (cgroup / _PARTITION).write_text("member")
    except OSError as error:
        if error.errno not in _GONE:
            log.error("CPUs stay isolated", cgroup=str(cgroup), cpus=format_cpus(cpus), error=str(error))
    for directory in _with_parents(cgroup):
        file, ours = directory / _EXCLUSIVE, frozenset(taken.get(str(directory), ()))
        try:
            before = _read(file)
            if before & ours:
                file.write_text(format_cpus(before - ours) or "\n")
        except OSError as error:
            if error.errno not in _GONE:
                log.error("CPUs stay taken", file=str(file), cpus=format_cpus(ours), error=str(error))


def _with_parents(cgroup: Path) -> Iterator[Path]:
    """The cgroup and those above it, but the root, which has no such file; what is gone is left out."""
    for directory in (cgroup, *cgroup.parents):
        if (directory / _EXCLUSIVE).exists():
            yield directory
        elif directory != cgroup and directory.exists():
            return


def _read(file: Path) -> frozenset[int]:
    try:
        return parse_cpus(file.read_text(), file.name)
    except InvalidArgument:
        return frozenset()
