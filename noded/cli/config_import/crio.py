"""CRI-O's crio.conf in noded's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    none,
    pairs,
)

_KUBELET = "kubelet decides this"


def _capabilities(values: Sequence[str]) -> list[str]:
    return [name if name.startswith("CAP_") else f"CAP_{name}" for name in map(str.upper, values)]


def _monitor(value: str) -> str:
    if value != "pod" and not value.startswith("/"):
        raise ValueError
    return value


CRIO: Mapping[str, Rule] = {
    "crio.root": differs(ITS_OWN),
    "crio.runroot": differs(ITS_OWN),
    "crio.imagestore": differs("set [images] root to a directory of noded's own"),
    "crio.storage_driver": differs("set [images] storage_driver"),
    "crio.storage_option": differs("the drivers of noded take no options"),
    "crio.log_dir": differs("kubelet says where logs of pods are"),
    "crio.version_file": differs("noded sees a reboot by the kernel's boot id"),
    "crio.version_file_persist": differs("noded repairs its store by itself"),
    "crio.clean_shutdown_file": differs("noded's store survives a power failure"),
    "crio.internal_wipe": differs("always so"),
    "crio.internal_repair": differs("always so"),
    "crio.api.listen": differs(f"{ITS_OWN}; tell kubelet of /run/noded/noded.sock"),
    "crio.api.stream_address": maps("streaming.address", "", address_or_local),
    "crio.api.stream_port": maps("streaming.port", "", int),
    "crio.api.stream_enable_tls": differs("TLS is on when tls_cert is set"),
    "crio.api.stream_tls_cert": maps("streaming.tls_cert"),
    "crio.api.stream_tls_key": maps("streaming.tls_key"),
    "crio.api.stream_tls_ca": maps("streaming.tls_client_ca"),
    "crio.api.stream_idle_timeout": maps("streaming.idle_timeout_seconds", "", duration_seconds),
    "crio.api.grpc_max_send_msg_size": differs("16 MiB, as kubelet accepts; longer lists are streamed"),
    "crio.api.grpc_max_recv_msg_size": differs("16 MiB, as kubelet accepts"),
    "crio.runtime.default_runtime": maps("default_runtime"),
    "crio.runtime.conmon": maps("conmon", "", lambda value: value or "conmon"),
    "crio.runtime.cgroup_manager": maps("cgroup_driver"),
    "crio.runtime.default_capabilities": maps("default_capabilities", "", _capabilities),
    "crio.runtime.default_sysctls": maps("default_sysctls", "", pairs),
    "crio.runtime.log_level": maps("log_level", "", level),
    "crio.runtime.timezone": maps("timezone"),
    "crio.runtime.seccomp_profile": differs(SECCOMP),
    "crio.runtime.apparmor_profile": differs("set apparmor_profile; noded-default is built in"),
    "crio.runtime.selinux": maps("enable_selinux"),
    "crio.runtime.hostnetwork_disable_selinux": maps("hostnetwork_disable_selinux"),
    "crio.runtime.conmon_cgroup": maps("monitor_cgroup", "", _monitor),
    "crio.runtime.drop_infra_ctr": differs("always so: a pod needs no infra container"),
    "crio.runtime.infra_ctr_cpuset": maps("infra_ctr_cpuset"),
    "crio.runtime.shared_cpuset": maps("shared_cpuset"),
    "crio.runtime.pinns_path": differs("noded pins namespaces itself"),
    "crio.runtime.namespaces_dir": differs("/run/netns"),
    "crio.runtime.manage_ns_lifecycle": differs("always so"),
    "crio.runtime.pids_limit": differs("set pids_limit, or kubelet's podPidsLimit"),
    "crio.runtime.log_size_max": none(_KUBELET + ": containerLogMaxSize; else container_log_max_bytes"),
    "crio.runtime.default_ulimits": maps("default_ulimits", "", pairs),
    "crio.runtime.default_env": maps("default_env", "", pairs),
    "crio.runtime.default_mounts_file": maps("default_mounts_file"),
    "crio.runtime.blockio_config_file": maps("blockio_config_file"),
    "crio.runtime.rdt_config_file": maps("rdt_config_file", "the groups below /sys/fs/resctrl must exist"),
    "crio.runtime.hooks_dir": maps("hooks_dirs"),
    "crio.runtime.additional_devices": none("use a device plugin"),
    "crio.runtime.allowed_devices": maps("allowed_devices"),
    "crio.runtime.cdi_spec_dirs": maps("cdi_spec_dirs"),
    "crio.runtime.read_only": none("readOnlyRootFilesystem of the pods"),
    "crio.runtime.ctr_stop_timeout": none(_KUBELET + ": terminationGracePeriodSeconds"),
    "crio.image.insecure_registries": differs("set insecure = true for the registry in registries.conf"),
    "crio.image.registries": differs("unqualified-search-registries in registries.conf"),
    "crio.image.pause_image": none(NO_PAUSE),
    "crio.image.pause_image_auth_file": none(NO_PAUSE),
    "crio.image.pause_command": none(NO_PAUSE),
    "crio.image.global_auth_file": maps("images.auth_file"),
    "crio.image.signature_policy": maps("images.signature_policy"),
    "crio.image.namespaced_auth_dir": maps("images.auth_dir"),
    "crio.image.signature_policy_dir": maps("images.signature_policy_dir"),
    "crio.image.pinned_images": maps("images.pinned"),
    "crio.image.image_volumes": differs("volumes of images are directories of the container"),
    "crio.image.default_transport": differs("docker://, the registry protocol"),
    "crio.image.pull_progress_timeout": maps("images.stall_timeout_seconds", "", duration_seconds),
    "crio.network.network_dir": maps("network.conf_dir"),
    "crio.network.plugin_dirs": maps("network.bin_dirs"),
    "crio.network.cni_default_network": maps("network.default_network"),
    "crio.metrics.enable_metrics": differs("metrics are on when [metrics] listen is set"),
    "crio.metrics.metrics_port": maps("metrics.listen", "on 127.0.0.1", lambda port: f"127.0.0.1:{port}"),
    "crio.metrics.metrics_socket": maps("metrics.listen"),
    "crio.tracing.enable_tracing": differs("set [tracing] endpoint to an OTLP receiver over HTTP"),
    "crio.nri.enable_nri": maps("nri.enable"),
    "crio.nri.nri_listen": maps("nri.socket"),
    "crio.nri.nri_disable_connections": maps("nri.disable_connections"),
    "crio.nri.nri_plugin_dir": maps("nri.plugin_path"),
    "crio.nri.nri_plugin_config_dir": maps("nri.plugin_config_path"),
    "crio.nri.nri_plugin_registration_timeout": maps(
        "nri.registration_timeout_seconds", "", duration_seconds
    ),
    "crio.nri.nri_plugin_request_timeout": maps("nri.request_timeout_seconds", "", duration_seconds),
}

# Keys of a handler's table whose name noded shares.
_SAME = frozenset(
    {"allowed_annotations", "default_annotations", "privileged_without_host_devices", "exec_cpu_affinity"}
)


def translate(found: Translation, merged: Mapping[str, Any]) -> None:
    """Translate a whole configuration, its files merged."""
    metrics = merged["crio"].get("metrics", {})
    for key, value in flat(merged, stop={"crio.runtime.runtimes", "crio.runtime.workloads"}):
        if key == "crio.runtime.runtimes":
            for name, table in value.items():
                _handler(found, name, table)
        elif key == "crio.runtime.workloads":
            found.set("workloads", value)
            found.row(key, ", ".join(value), MAPS, "workloads")
        else:
            found.apply(key, value, CRIO.get(key))
    if not metrics.get("enable_metrics"):
        found.table.pop("metrics", None)


def _handler(found: Translation, name: str, table: Mapping[str, Any]) -> None:
    where, ours = f"crio.runtime.runtimes.{name}", f"runtimes.{name}"
    path = str(table.get("runtime_path", ""))
    program = Path(path).name or name
    shim = table.get("runtime_type") == "vm"
    kind = "kata" if shim else TYPES.get(program) or TYPES.get(name)
    if kind is None:
        kind = "runc"
        found.row(where, program, DIFFERS, "not known: taken for a runtime with runc's command line")
    else:
        found.row(where, program, MAPS, f"[{ours}] type = {kind!r}")
    found.set(f"{ours}.type", kind)
    for key, value in table.items():
        theirs = f"{where}.{key}"
        if key == "runtime_path":
            if path:
                found.maps(theirs, path, f"{ours}.path", path)
        elif key == "runtime_root" and not shim:
            found.row(theirs, value, DIFFERS, "noded's runtimes keep their state apart from CRI-O's")
        elif key == "runtime_type":
            found.row(theirs, value, MAPS, f"{ours}.type")
        elif value in ("", [], {}):
            continue
        elif key in _SAME:
            found.maps(theirs, value, f"{ours}.{key}", value)
        elif key in ("monitor_path", "monitor_cgroup"):
            found.row(theirs, value, DIFFERS, "one for the node: conmon, monitor_cgroup")
        else:
            found.row(theirs, value, NONE, NO_SUCH_KEY)
