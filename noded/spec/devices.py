"""Device nodes and the rules of the device cgroup (config-linux.md "Devices", "Allowed devices").

Runtimes make the default nodes (null, zero, full, random, urandom, tty, ptmx) and allow them by
themselves.
"""

from __future__ import annotations

from typing import Any

from noded.spec.inputs import ContainerInputs, ResolvedDevice

# Nodes of the container's own devpts, shm and console: the host's would reach into the host.
_OWN = frozenset({"/dev/console", "/dev/ptmx", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"})
_OWN_TREES = ("/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/fd/")


def container_devices(inputs: ContainerInputs) -> list[dict[str, Any]]:
    """`linux.devices`, sorted by path; a device that the client names wins over the host's."""
    nodes = {device.container_path: _node(device) for device in _host_devices(inputs)}
    for device in inputs.devices:
        nodes[device.container_path] = _node(device, _owner(inputs))
    return [nodes[path] for path in sorted(nodes)]


def device_rules(inputs: ContainerInputs) -> list[dict[str, Any]]:
    """`linux.resources.devices`: everything for privileged containers, else what was named."""
    if inputs.privileged and not inputs.policy.privileged_without_host_devices:
        return [{"allow": True, "access": "rwm"}]
    allowed = {
        (device.type, device.major, device.minor): device.permissions or "rwm" for device in inputs.devices
    }
    return [{"allow": False, "access": "rwm"}] + [
        {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
        for (kind, major, minor), access in sorted(allowed.items())
    ]


def _host_devices(inputs: ContainerInputs) -> list[ResolvedDevice]:
    if not inputs.privileged or inputs.policy.privileged_without_host_devices:
        return []
    return [
        device
        for device in inputs.host_devices
        if device.container_path not in _OWN and not device.container_path.startswith(_OWN_TREES)
    ]


def _owner(inputs: ContainerInputs) -> tuple[int, int] | None:
    """Ids that own the client's devices by policy, so that non-root processes can open them."""
    if not inputs.policy.device_ownership_from_security_context:
        return None
    security = inputs.container.security
    if security.run_as_user is None and not security.run_as_username:
        return None
    return inputs.user.uid, inputs.user.gid


def _node(device: ResolvedDevice, owner: tuple[int, int] | None = None) -> dict[str, Any]:
    uid, gid = owner if owner is not None else (device.uid, device.gid)
    return {
        "path": device.container_path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode & 0o7777,
        "uid": uid,
        "gid": gid,
    }
