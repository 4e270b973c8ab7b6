"""The metrics of containers that their cgroups do not tell: descriptors, disk, times, limits of processes."""

from __future__ import annotations

from collections.abc import Callable

from noded.edge.cri.metric_family import GAUGE, NS, Family, Moment, Values
from noded.engine.samples import ContainerDetail, Filesystem
from noded.proto.runtime import v1


def _container(
    name: str, help_: str, kind: v1.MetricType, pick: Callable[[ContainerDetail, Moment], int | None]
) -> Family:
    return Family(name, help_, kind, of_container=_own(pick))


def _own(
    pick: Callable[[ContainerDetail, Moment], int | None],
) -> Callable[[ContainerDetail, Moment], Values]:
    return lambda one, moment: (((), pick(one, moment)),)


def _disk(
    pick: Callable[[ContainerDetail, Filesystem], int | None],
) -> Callable[[ContainerDetail, Moment], Values]:
    def values(one: ContainerDetail, moment: Moment) -> Values:
        if moment.filesystem is not None:
            yield (moment.filesystem.device,), pick(one, moment.filesystem)

    return values


def _ulimits(one: ContainerDetail, moment: Moment) -> Values:
    yield ("max_open_files",), one.open_files_limit


OF_CONTAINERS: tuple[Family, ...] = (
    _container(
        "container_file_descriptors",
        "Descriptors that the container's processes have open.",
        GAUGE,
        lambda c, _: c.descriptors,
    ),
    Family(
        "container_fs_inodes_free",
        "Inodes left on the file system of the writable layer.",
        GAUGE,
        ("device",),
        of_container=_disk(lambda _, fs: fs.free_inodes),
    ),
    Family(
        "container_fs_inodes_total",
        "Inodes of the file system of the writable layer.",
        GAUGE,
        ("device",),
        of_container=_disk(lambda _, fs: fs.total_inodes),
    ),
    Family(
        "container_fs_limit_bytes",
        "Bytes that the writable layer can take: the size of its file system.",
        GAUGE,
        ("device",),
        of_container=_disk(lambda _, fs: fs.total_bytes),
    ),
    Family(
        "container_fs_usage_bytes",
        "Bytes that the writable layer takes on disk.",
        GAUGE,
        ("device",),
        of_container=_disk(lambda c, _: None if c.disk is None else c.disk.used_bytes),
    ),
    _container(
        "container_last_seen",
        "When the container was last seen alive, in seconds since the epoch.",
        GAUGE,
        lambda _, moment: moment.at_ns // NS,
    ),
    _container(
        "container_sockets",
        "Sockets that the container's processes have open.",
        GAUGE,
        lambda c, _: c.sockets,
    ),
    _container(
        "container_start_time_seconds",
        "When the container was started, in seconds since the epoch.",
        GAUGE,
        lambda c, _: (c.view.started_at_ns or c.view.created_at_ns) // NS,
    ),
    Family(
        "container_ulimits_soft",
        "Soft resource limits of the container's first process.",
        GAUGE,
        ("ulimit",),
        of_container=_ulimits,
    ),
)
