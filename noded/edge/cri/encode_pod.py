"""From sandbox views to CRI messages."""

from __future__ import annotations

from collections.abc import Iterable

from noded.model.pod import IDMapping, NamespaceOptions
from noded.model.views import SandboxView
from noded.proto.runtime import v1


def entry(view: SandboxView) -> v1.PodSandbox:
    """The list entry."""
    return v1.PodSandbox(
        id=view.id,
        metadata=metadata(view),
        state=v1.PodSandboxState(view.state),
        created_at=view.created_at_ns,
        labels=dict(view.config.labels),
        annotations=dict(view.config.annotations),
        runtime_handler=view.handler,
    )


def status(view: SandboxView) -> v1.PodSandboxStatus:
    """The full status, without the container statuses that only event streams need."""
    return v1.PodSandboxStatus(
        id=view.id,
        metadata=metadata(view),
        state=v1.PodSandboxState(view.state),
        created_at=view.created_at_ns,
        network=_network(view.ips),
        linux=v1.LinuxPodSandboxStatus(
            namespaces=v1.Namespace(options=_namespaces(view.config.namespaces)),
        ),
        labels=dict(view.config.labels),
        annotations=dict(view.config.annotations),
        runtime_handler=view.handler,
    )


def id_mappings(mappings: Iterable[IDMapping]) -> list[v1.IdMapping]:
    return [
        v1.IdMapping(host_id=item.host_id, container_id=item.container_id, length=item.length)
        for item in mappings
    ]


def metadata(view: SandboxView) -> v1.PodSandboxMetadata:
    key = view.config.key
    return v1.PodSandboxMetadata(name=key.name, uid=key.uid, namespace=key.namespace, attempt=key.attempt)


def _network(ips: tuple[str, ...]) -> v1.PodSandboxNetworkStatus:
    if not ips:
        return v1.PodSandboxNetworkStatus()
    return v1.PodSandboxNetworkStatus(ip=ips[0], additional_ips=[v1.PodIp(ip=ip) for ip in ips[1:]])


def _namespaces(options: NamespaceOptions) -> v1.NamespaceOption:
    userns = options.userns
    return v1.NamespaceOption(
        network=v1.NamespaceMode(options.network),
        pid=v1.NamespaceMode(options.pid),
        ipc=v1.NamespaceMode(options.ipc),
        target_id=options.target_id,
        userns_options=None
        if userns is None
        else v1.UserNamespace(
            mode=v1.NamespaceMode(userns.mode), uids=id_mappings(userns.uids), gids=id_mappings(userns.gids)
        ),
    )
