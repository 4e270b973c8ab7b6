"""From container views to CRI messages."""

from __future__ import annotations

from collections.abc import Callable

from noded.edge.cri.encode_pod import id_mappings
from noded.edge.cri.signals import member_of
from noded.model.container import ContainerConfig, ContainerUser, Mount
from noded.model.pod import Resources
from noded.model.views import ContainerView
from noded.proto.runtime import v1


def entry(view: ContainerView) -> v1.Container:
    """The list entry."""
    return v1.Container(
        id=view.id,
        pod_sandbox_id=view.sandbox_id,
        metadata=metadata(view.config),
        image=_image(view.config),
        image_ref=view.image_id,
        state=v1.ContainerState(view.state),
        created_at=view.created_at_ns,
        labels=dict(view.config.labels),
        annotations=dict(view.config.annotations),
        image_id=view.image_id,
    )


def status(view: ContainerView, image_id: Callable[[str], str]) -> v1.ContainerStatus:
    """The full status. `image_id` gives the ID of a mounted image that the view does not name."""
    config = view.config
    return v1.ContainerStatus(
        id=view.id,
        metadata=metadata(config),
        state=v1.ContainerState(view.state),
        created_at=view.created_at_ns,
        started_at=view.started_at_ns,
        finished_at=view.finished_at_ns,
        exit_code=view.exit_code,
        image=_image(config),
        image_ref=view.image_id,
        reason=view.reason,
        message=view.message,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        mounts=[
            _mount(mount, _volume_image(view, index, image_id)) for index, mount in enumerate(config.mounts)
        ],
        log_path=view.log_path,
        resources=_resources(view.resources),
        image_id=view.image_id,
        user=_user(view.user),
        stop_signal=member_of(view.stop_signal or config.stop_signal),
    )


def metadata(config: ContainerConfig) -> v1.ContainerMetadata:
    return v1.ContainerMetadata(name=config.name, attempt=config.attempt)


def _image(config: ContainerConfig) -> v1.ImageSpec:
    """What kubelet shows as the image of a container: the name a person wrote, if known."""
    return v1.ImageSpec(
        image=config.user_specified_image or config.image,
        user_specified_image=config.user_specified_image,
    )


def _volume_image(view: ContainerView, index: int, image_id: Callable[[str], str]) -> str:
    if index < len(view.volume_images):  # as mounted, whatever its name means by now
        return view.volume_images[index]
    image = view.config.mounts[index].image
    return image_id(image) if image else ""


def _mount(mount: Mount, image_id: str) -> v1.Mount:
    return v1.Mount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly=mount.readonly,
        selinux_relabel=mount.selinux_relabel,
        propagation=v1.MountPropagation(mount.propagation),
        uid_mappings=id_mappings(mount.uid_mappings),
        gid_mappings=id_mappings(mount.gid_mappings),
        recursive_read_only=mount.recursive_read_only,
        image=v1.ImageSpec(image=mount.image, image_ref=image_id) if mount.image else None,
        image_sub_path=mount.image_sub_path,
    )


def _resources(resources: Resources | None) -> v1.ContainerResources | None:
    if resources is None:
        return None
    return v1.ContainerResources(
        linux=v1.LinuxContainerResources(
            cpu_period=resources.cpu_period_us,
            cpu_quota=resources.cpu_quota_us,
            cpu_shares=resources.cpu_shares,
            memory_limit_in_bytes=resources.memory_limit_bytes,
            oom_score_adj=resources.oom_score_adj,
            cpuset_cpus=resources.cpuset_cpus,
            cpuset_mems=resources.cpuset_mems,
            hugepage_limits=[
                v1.HugepageLimit(page_size=item.page_size, limit=item.limit_bytes)
                for item in resources.hugepage_limits
            ],
            unified=dict(resources.unified),
            memory_swap_limit_in_bytes=resources.memory_swap_limit_bytes,
        )
    )


def _user(user: ContainerUser | None) -> v1.ContainerUser | None:
    if user is None:
        return None
    return v1.ContainerUser(
        linux=v1.LinuxContainerUser(
            uid=user.uid, gid=user.gid, supplemental_groups=list(user.supplemental_groups)
        )
    )
