"""containerd's config.toml, versions 2 and 3, in noded's terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noded.cli.config_import.translation import (
    DIFFERS,
    ITS_OWN,
    MAPS,
    NO_PAUSE,
    NO_SUCH_KEY,
    NONE,
    SECCOMP,
    TYPES,
    Rule,
    Translation,
    address_or_local,
    differs,
    duration_seconds,
    flat,
    level,
    maps,
    negated,
    none,
)

# The CRI parts of containerd: version 2, then the two of version 3.
_CRI_PLUGINS = (
    "io.containerd.grpc.v1.cri",
    "cri",
    "io.containerd.cri.v1.runtime",
    "io.containerd.cri.v1.images",
)
_NRI_PLUGIN = "io.containerd.nri.v1.nri"


def _alone(value: str) -> list[str]:
    return [value]


def _first_directory(value: str) -> str:
    return str(value).split(":")[0]


CRI: Mapping[str, Rule] = {
    "containerd.default_runtime_name": maps("default_runtime"),
    "containerd.snapshotter": differs("set [images] storage_driver"),
    "snapshotter": differs("set [images] storage_driver"),
    "discard_unpacked_layers": maps("images.keep_blobs", "", negated),
    "containerd.discard_unpacked_layers": maps("images.keep_blobs", "", negated),
    "cni.bin_dir": maps("network.bin_dirs", "", _alone),
    "cni.bin_dirs": maps("network.bin_dirs"),
    "cni.conf_dir": maps("network.conf_dir"),
    "cni.conf_template": maps("network.conf_template"),
    "cni.max_conf_num": differs("one network: the first file, or default_network"),
    "cni.ip_pref": differs("the first address that the network gives"),
    "registry.config_path": maps("images.config_path", "", _first_directory),
    "max_concurrent_downloads": maps("images.max_parallel_downloads", "", lambda value: max(1, int(value))),
    "image_pull_progress_timeout": maps("images.stall_timeout_seconds", "", duration_seconds),
    "stream_server_address": maps("streaming.address", "", address_or_local),
    "stream_server_port": maps("streaming.port", "", int),
    "stream_idle_timeout": maps("streaming.idle_timeout_seconds", "", duration_seconds),
    "enable_tls_streaming": differs("TLS is on when tls_cert is set"),
    "x509_key_pair_streaming.tls_cert_file": maps("streaming.tls_cert"),
    "x509_key_pair_streaming.tls_key_file": maps("streaming.tls_key"),
    "sandbox_image": none(NO_PAUSE),
    "pinned_images.sandbox": none(NO_PAUSE),
    "systemd_cgroup": differs("cgroup_driver; auto finds systemd", "cgroup_driver",
                               lambda value: "systemd" if value else "auto"),
    "enable_selinux": maps("enable_selinux"),
    "selinux_category_range": maps("selinux_categories"),
    "unset_seccomp_profile": differs(SECCOMP),
    "enable_unprivileged_ports": differs("net.ipv4.ip_unprivileged_port_start in default_sysctls"),
    "enable_unprivileged_icmp": differs("net.ipv4.ping_group_range in default_sysctls"),
    "enable_cdi": differs("always so"),
    "cdi_spec_dirs": maps("cdi_spec_dirs"),
    "max_container_log_line_size": differs("conmon cuts long lines at 8 KiB"),
    "restrict_oom_score_adj": differs("noded lowers no score that it may not"),
    "tolerate_missing_hugetlb_controller": differs("always so"),
    "disable_hugetlb_controller": differs("always so where it is missing"),
    "netns_mounts_under_state_dir": differs("/run/netns"),
    "ignore_image_defined_volumes": none("volumes of images are directories of the container"),
    "device_ownership_from_security_context": maps("device_ownership_from_security_context"),
    "drain_exec_sync_io_timeout": differs("an exec ends with its command"),
}  # fmt: skip

CONTAINERD: Mapping[str, Rule] = {
    "version": differs("version of this file's format"),
    "root": differs(ITS_OWN),
    "state": differs(ITS_OWN),
    "oom_score": differs("OOMScoreAdjust= of noded.service"),
    "imports": differs("give these files, too: noded config import FILE FILE"),
    "grpc.address": differs(f"{ITS_OWN}; tell kubelet of /run/noded/noded.sock"),
    "grpc.gid": differs("listen_group takes the name of a group"),
    "debug.level": maps("log_level", "", level),
    "debug.format": maps("log_format", "", lambda value: "json" if value == "json" else "auto"),
    "metrics.address": maps("metrics.listen"),
    "disabled_plugins": differs("names of containerd's plugins mean nothing to noded"),
    "required_plugins": differs("names of containerd's plugins mean nothing to noded"),
}

NRI: Mapping[str, Rule] = {
    "disable": maps("nri.enable", "", negated),
    "socket_path": maps("nri.socket"),
    "disable_connections": maps("nri.disable_connections"),
    "plugin_path": maps("nri.plugin_path"),
    "plugin_config_path": maps("nri.plugin_config_path"),
    "plugin_registration_timeout": maps("nri.registration_timeout_seconds", "", duration_seconds),
    "plugin_request_timeout": maps("nri.request_timeout_seconds", "", duration_seconds),
}

# Keys of a handler's table, and what noded calls them.
_HANDLER_KEYS = {
    "pod_annotations": "allowed_annotations",
    "privileged_without_host_devices": "privileged_without_host_devices",
    "cgroup_writable": "cgroup_writable",
    "base_runtime_spec": "base_spec",
    "cni_conf_dir": "cni_conf_dir",
}


def translate(found: Translation, merged: Mapping[str, Any]) -> None:
    """Translate a whole configuration, its files merged."""
    for key, value in flat({key: value for key, value in merged.items() if key != "plugins"}):
        found.apply(key, value, CONTAINERD.get(key))
    for plugin, table in merged.get("plugins", {}).items():
        if plugin in _CRI_PLUGINS:
            _cri(found, f"plugins.{plugin}", table)
            continue
        rules = NRI if plugin == _NRI_PLUGIN else {}
        absent = None if rules else none("a part of containerd that noded does not have")
        for key, value in flat(table):
            found.apply(f"plugins.{plugin}.{key}", value, rules.get(key, absent))


def _cri(found: Translation, plugin: str, table: Mapping[str, Any]) -> None:
    stop = {"containerd.runtimes", "registry.mirrors", "registry.configs"}
    for key, value in flat(table, stop=stop):
        where = f"{plugin}.{key}"
        if key == "containerd.runtimes":
            for name, each in value.items():
                _handler(found, f"{where}.{name}", name, each)
        elif key in stop:
            note = "write registries.conf, or a hosts.toml for each registry and [images] config_path"
            # Their values hold passwords.
            found.row(where, ", ".join(map(str, value)), DIFFERS, note)
        else:
            found.apply(where, value, CRI.get(key))


def _handler(found: Translation, where: str, name: str, table: Mapping[str, Any]) -> None:
    ours = f"runtimes.{name}"
    shim = str(table.get("runtime_type", "io.containerd.runc.v2"))
    options = table.get("options") or {}
    binary = str(options.get("BinaryName", ""))
    kind = TYPES.get(Path(binary).name) or TYPES.get(shim)
    if kind is None:
        note = f"the type shim runs any containerd shim; see noded plugins describe shim for {shim}"
        found.row(where, shim, DIFFERS, note)
        return
    found.set(f"{ours}.type", kind)
    found.row(where, shim, MAPS, f"[{ours}] type = {kind!r}")
    for key, value in options.items():
        theirs = f"{where}.options.{key}"
        if key == "BinaryName":
            if binary:
                found.maps(theirs, binary, f"{ours}.path", binary)
        elif key == "SystemdCgroup":
            driver = "systemd" if value else "cgroupfs"
            found.set("cgroup_driver", driver)
            found.row(theirs, value, MAPS, f"cgroup_driver = {driver!r}")
        elif key == "NoPivotRoot" and value:
            found.maps(theirs, value, f"{ours}.no_pivot", True)
        elif value not in ("", False, 0):
            found.row(theirs, value, NONE, "an option of containerd's shim")
    for key, value in table.items():
        if key in ("runtime_type", "options") or value in ("", False, [], 0, {}):
            continue
        if key in _HANDLER_KEYS:
            found.maps(f"{where}.{key}", value, f"{ours}.{_HANDLER_KEYS[key]}", value)
        else:
            found.row(f"{where}.{key}", value, NONE, NO_SUCH_KEY)
