"""All RPC methods that the daemon serves on its socket."""

from __future__ import annotations

from noded.edge.admin import AdminService
from noded.edge.cri.core import Bridge, Core
from noded.edge.cri.exec import StreamUrls
from noded.edge.cri.services import cri_methods
from noded.edge.method import Method


def all_methods(bridge: Bridge, core: Core, urls: StreamUrls | None = None) -> list[Method]:
    """CRI v1 and noded's own administration. Without `urls` there are no streams."""
    admin = AdminService(core.images, core.node, core.recordings, core.timelines, core.explain, bridge)
    return [*cri_methods(core, bridge, urls), *admin.methods()]
