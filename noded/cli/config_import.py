"""`noded config import`: what the configuration of CRI-O or containerd is in noded's terms.

Pure but for reading the files: `translate` takes their tables and gives a configuration and a report of
every key that was set, whether it maps, differs or has no equivalent. Nothing is left out silently.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noded import config_text, settings
from noded.cli.table import print_json, printable
from noded.errors import InvalidArgument

MAPS, DIFFERS, NONE = "maps", "differs", "none"
_CRI_V2, _CRI_V3 = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
_IMAGES_V3 = "io.containerd.cri.v1.images"


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one key. `verdict`: maps, differs or none."""

    key: str
    value: str
    verdict: str
    note: str


@dataclass(slots=True)
class Translation:
    """The result: a table as in noded.toml, and the report."""

    table: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def set(self, path: str, value: Any) -> None:
        """Put a value at a dotted path."""
        *parents, name = path.split(".")
        place = self.table
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value


# A rule: (path in noded.toml or "", verdict, note, conversion of the value)
_Rule = tuple[str, str, str, Callable[[Any], Any] | None]


def _maps(path: str, note: str = "", convert: Callable[[Any], Any] | None = None) -> _Rule:
    return path, MAPS, note, convert


def _differs(note: str, path: str = "", convert: Callable[[Any], Any] | None = None) -> _Rule:
    return path, DIFFERS, note, convert


def _none(note: str) -> _Rule:
    return "", NONE, note, None


def _sysctls(values: Sequence[str]) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (each.partition("=") for each in values)}


def _capabilities(values: Sequence[str]) -> list[str]:
    return [name if name.startswith("CAP_") else f"CAP_{name}" for name in map(str.upper, values)]


def _level(value: str) -> str:
    return {"trace": "debug", "warn": "warning", "fatal": "error", "panic": "error"}.get(value, value)


def _monitor(value: str) -> str:
    if value != "pod" and not value.startswith("/"):
        raise ValueError
    return value


_ITS_OWN = "keep noded apart: it has directories and a socket of its own"
_SECCOMP = "noded's RuntimeDefault profile is built in; pods name their own with localhostProfile"
_KUBELET = "kubelet decides this"

CRIO: Mapping[str, _Rule] = {
    "crio.root": _differs(_ITS_OWN),
    "crio.runroot": _differs(_ITS_OWN),
    "crio.storage_driver": _differs("set [images] storage_driver"),
    "crio.storage_option": _differs("the drivers of noded take no options"),
    "crio.log_dir": _differs("kubelet says where logs of pods are"),
    "crio.version_file": _differs("noded sees a reboot by the kernel's boot id"),
    "crio.version_file_persist": _differs("noded repairs its store by itself"),
    "crio.clean_shutdown_file": _differs("noded's store survives a power failure"),
    "crio.internal_wipe": _differs("always so"),
    "crio.internal_repair": _differs("always so"),
    "crio.api.listen": _differs(f"{_ITS_OWN}; tell kubelet of /run/noded/noded.sock"),
    "crio.api.stream_address": _maps("streaming.address", "", lambda value: value or "127.0.0.1"),
    "crio.api.stream_port": _maps("streaming.port", "", int),
    "crio.api.stream_enable_tls": _differs("TLS is on when tls_cert is set"),
    "crio.api.stream_tls_cert": _maps("streaming.tls_cert"),
    "crio.api.stream_tls_key": _maps("streaming.tls_key"),
    "crio.api.stream_tls_ca": _maps("streaming.tls_client_ca"),
    "crio.api.stream_idle_timeout": _differs("set [streaming] idle_timeout_seconds"),
    "crio.api.grpc_max_send_msg_size": _differs("16 MiB, as kubelet accepts; longer lists are streamed"),
    "crio.api.grpc_max_recv_msg_size": _differs("16 MiB, as kubelet accepts"),
    "crio.runtime.default_runtime": _maps("default_runtime"),
    "crio.runtime.conmon": _maps("conmon", "", lambda value: value or "conmon"),
    "crio.runtime.cgroup_manager": _maps("cgroup_driver"),
    "crio.runtime.default_capabilities": _maps("default_capabilities", "", _capabilities),
    "crio.runtime.default_sysctls": _maps("default_sysctls", "", _sysctls),
    "crio.runtime.log_level": _maps("log_level", "", _level),
    "crio.runtime.timezone": _maps("timezone"),
    "crio.runtime.seccomp_profile": _differs(_SECCOMP),
    "crio.runtime.apparmor_profile": _differs("set apparmor_profile; noded-default is built in"),
    "crio.runtime.selinux": _maps("enable_selinux"),
    "crio.runtime.hostnetwork_disable_selinux": _maps("hostnetwork_disable_selinux"),
    "crio.runtime.conmon_cgroup": _maps("monitor_cgroup", "", _monitor),
    "crio.runtime.drop_infra_ctr": _differs("always so: a pod needs no infra container"),
    "crio.runtime.infra_ctr_cpuset": _maps("infra_ctr_cpuset"),
    "crio.runtime.shared_cpuset": _maps("shared_cpuset"),
    "crio.runtime.pinns_path": _differs("noded pins namespaces itself"),
    "crio.runtime.namespaces_dir": _differs("/run/netns"),
    "crio.runtime.manage_ns_lifecycle": _differs("always so"),
    "crio.runtime.pids_limit": _differs("set pids_limit, or kubelet's podPidsLimit"),
    "crio.runtime.log_size_max": _none(_KUBELET + ": containerLogMaxSize"),
    "crio.runtime.default_ulimits": _differs('set default_ulimits, a table of NAME = "SOFT:HARD"'),
    "crio.runtime.default_env": _differs("set default_env, a table of NAME = value"),
    "crio.runtime.default_mounts_file": _maps("default_mounts_file"),
    "crio.runtime.blockio_config_file": _maps("blockio_config_file"),
    "crio.runtime.rdt_config_file": _maps("rdt_config_file", "the groups below /sys/fs/resctrl must exist"),
    "crio.runtime.hooks_dir": _maps("hooks_dirs"),
    "crio.runtime.additional_devices": _none("use a device plugin"),
    "crio.runtime.allowed_devices": _maps("allowed_devices"),
    "crio.runtime.cdi_spec_dirs": _maps("cdi_spec_dirs"),
    "crio.runtime.read_only": _none("readOnlyRootFilesystem of the pods"),
    "crio.runtime.ctr_stop_timeout": _none(_KUBELET + ": terminationGracePeriodSeconds"),
    "crio.image.insecure_registries": _differs("set insecure = true for the registry in registries.conf"),
    "crio.image.registries": _differs("unqualified-search-registries in registries.conf"),
    "crio.image.pause_image": _none("a pod needs no pause container"),
    "crio.image.pause_image_auth_file": _none("a pod needs no pause container"),
    "crio.image.pause_command": _none("a pod needs no pause container"),
    "crio.image.global_auth_file": _maps("images.auth_file"),
    "crio.image.signature_policy": _maps("images.signature_policy"),
    "crio.image.signature_policy_dir": _maps("images.signature_policy_dir"),
    "crio.image.pinned_images": _maps("images.pinned"),
    "crio.image.image_volumes": _differs("volumes of images are directories of the container"),
    "crio.image.default_transport": _differs("docker://, the registry protocol"),
    "crio.image.pull_progress_timeout": _differs("set [images] stall_timeout_seconds"),
    "crio.network.network_dir": _maps("network.conf_dir"),
    "crio.network.plugin_dirs": _maps("network.bin_dirs"),
    "crio.network.cni_default_network": _maps("network.default_network"),
    "crio.metrics.enable_metrics": _differs("metrics are on when [metrics] listen is set"),
    "crio.metrics.metrics_port": _maps("metrics.listen", "on 127.0.0.1", lambda port: f"127.0.0.1:{port}"),
    "crio.metrics.metrics_socket": _maps("metrics.listen"),
    "crio.tracing.enable_tracing": _differs("set [tracing] endpoint to an OTLP receiver over HTTP"),
}

_CONTAINERD_CRI: Mapping[str, _Rule] = {
    "containerd.default_runtime_name": _maps("default_runtime"),
    "containerd.snapshotter": _differs("set [images] storage_driver"),
    "snapshotter": _differs("set [images] storage_driver"),
    "discard_unpacked_layers": _maps("images.keep_blobs", "", lambda value: not value),
    "containerd.discard_unpacked_layers": _maps("images.keep_blobs", "", lambda value: not value),
    "cni.bin_dir": _maps("network.bin_dirs", "", lambda value: [value]),
    "cni.bin_dirs": _maps("network.bin_dirs"),
    "cni.conf_dir": _maps("network.conf_dir"),
    "cni.conf_template": _maps("network.conf_template"),
    "cni.max_conf_num": _differs("one network: the first file, or default_network"),
    "cni.ip_pref": _differs("the first address that the network gives"),
    "registry.config_path": _maps("images.config_path", "", lambda value: str(value).split(":")[0]),
    "max_concurrent_downloads": _maps("images.max_parallel_downloads", "", lambda value: max(1, int(value))),
    "image_pull_progress_timeout": _differs("set [images] stall_timeout_seconds"),
    "stream_server_address": _maps("streaming.address", "", lambda value: value or "127.0.0.1"),
    "stream_server_port": _maps("streaming.port", "", int),
    "stream_idle_timeout": _differs("set [streaming] idle_timeout_seconds"),
    "enable_tls_streaming": _differs("TLS is on when tls_cert is set"),
    "x509_key_pair_streaming.tls_cert_file": _maps("streaming.tls_cert"),
    "x509_key_pair_streaming.tls_key_file": _maps("streaming.tls_key"),
    "sandbox_image": _none("a pod needs no pause container"),
    "pinned_images.sandbox": _none("a pod needs no pause container"),
    "systemd_cgroup": _differs("cgroup_driver; auto finds systemd", "cgroup_driver",
                               lambda value: "systemd" if value else "auto"),
    "enable_selinux": _maps("enable_selinux"),
    "selinux_category_range": _maps("selinux_categories"),
    "unset_seccomp_profile": _differs(_SECCOMP),
    "enable_unprivileged_ports": _differs("net.ipv4.ip_unprivileged_port_start in default_sysctls"),
    "enable_unprivileged_icmp": _differs("net.ipv4.ping_group_range in default_sysctls"),
    "enable_cdi": _differs("always so"),
    "cdi_spec_dirs": _maps("cdi_spec_dirs"),
    "max_container_log_line_size": _differs("conmon cuts long lines at 8 KiB"),
    "restrict_oom_score_adj": _differs("noded lowers no score that it may not"),
    "tolerate_missing_hugetlb_controller": _differs("always so"),
    "disable_hugetlb_controller": _differs("always so where it is missing"),
    "netns_mounts_under_state_dir": _differs("/run/netns"),
    "ignore_image_defined_volumes": _none("volumes of images are directories of the container"),
    "drain_exec_sync_io_timeout": _differs("an exec ends with its command"),
}  # fmt: skip

_CONTAINERD: Mapping[str, _Rule] = {
    "version": _differs("version of this file's format"),
    "root": _differs(_ITS_OWN),
    "state": _differs(_ITS_OWN),
    "oom_score": _differs("OOMScoreAdjust= of noded.service"),
    "imports": _differs("give these files, too: noded config import FILE FILE"),
    "grpc.address": _differs(f"{_ITS_OWN}; tell kubelet of /run/noded/noded.sock"),
    "grpc.gid": _differs("listen_group takes the name of a group"),
    "debug.level": _maps("log_level", "", _level),
    "debug.format": _maps("log_format", "", lambda value: "json" if value == "json" else "auto"),
    "metrics.address": _maps("metrics.listen"),
    "disabled_plugins": _differs("names of containerd's plugins mean nothing to noded"),
    "required_plugins": _differs("names of containerd's plugins mean nothing to noded"),
}

# OCI runtimes by program or shim, and the type of noded that runs them.
_TYPES = {
    "runc": "runc", "crun": "crun", "youki": "runc", "runsc": "runsc",
    "io.containerd.runc.v2": "runc", "io.containerd.runc.v1": "runc", "io.containerd.runsc.v1": "runsc",
    "io.containerd.kata.v2": "kata", "io.containerd.kata-qemu.v2": "kata",
}  # fmt: skip


def translate(documents: Sequence[Mapping[str, Any]]) -> Translation:
    """Translate the files of one runtime, in their order; a later one replaces keys of an earlier one.

    Raises: InvalidArgument for files that are neither CRI-O's nor containerd's.
    """
    merged = _merged(documents)
    found = Translation()
    if "crio" in merged:
        _crio(found, merged)
    elif {"plugins", "grpc", "version"} & set(merged):
        _containerd(found, merged)
    else:
        raise InvalidArgument(
            "neither a crio.conf ([crio]) nor containerd's config.toml ([plugins], version)"
        )
    known = {"runc", "crun", *found.table.get("runtimes", {})}
    if (default := found.table.get("default_runtime", "runc")) not in known:
        del found.table["default_runtime"]
        found.rows.append(Row("default_runtime", default, NONE, "no handler of this name was translated"))
    return found


def _merged(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = _merged([result[key], value]) if both else value
    return result


def _crio(found: Translation, merged: Mapping[str, Any]) -> None:
    metrics = merged["crio"].get("metrics", {})
    for key, value in _flat(merged, stop={"crio.runtime.runtimes", "crio.runtime.workloads"}):
        if key == "crio.runtime.runtimes":
            for name, table in value.items():
                _crio_handler(found, name, table)
        elif key == "crio.runtime.workloads":
            found.set("workloads", value)
            found.rows.append(Row(key, ", ".join(value), MAPS, "workloads"))
        else:
            _apply(found, key, value, CRIO.get(key))
    if not metrics.get("enable_metrics"):
        found.table.pop("metrics", None)


def _crio_handler(found: Translation, name: str, table: Mapping[str, Any]) -> None:
    where = f"crio.runtime.runtimes.{name}"
    path = str(table.get("runtime_path", ""))
    program = Path(path).name or name
    shim = table.get("runtime_type") == "vm"
    kind = "kata" if shim else _TYPES.get(program) or _TYPES.get(name)
    if kind is None:
        kind = "runc"
        found.rows.append(
            Row(where, program, DIFFERS, "not known: taken for a runtime with runc's command line")
        )
    else:
        found.rows.append(Row(where, program, MAPS, f"[runtimes.{name}] type = {kind!r}"))
    found.set(f"runtimes.{name}.type", kind)
    for key, value in table.items():
        if key == "runtime_path":
            if path:
                found.set(f"runtimes.{name}.path", path)
                found.rows.append(Row(f"{where}.{key}", path, MAPS, f"runtimes.{name}.path"))
        elif key == "runtime_root" and not shim:
            note = "noded's runtimes keep their state apart from CRI-O's"
            found.rows.append(Row(f"{where}.{key}", _shown(value), DIFFERS, note))
        elif key == "allowed_annotations":
            found.set(f"runtimes.{name}.allowed_annotations", list(value))
            note = f"runtimes.{name}.allowed_annotations; docs/annotations.md says what each does"
            found.rows.append(Row(f"{where}.{key}", _shown(value), MAPS, note))
        elif key == "default_annotations":
            found.set(f"runtimes.{name}.default_annotations", dict(value))
            found.rows.append(
                Row(f"{where}.{key}", _shown(value), MAPS, f"runtimes.{name}.default_annotations")
            )
        elif key == "runtime_type":
            found.rows.append(Row(f"{where}.{key}", _shown(value), MAPS, f"runtimes.{name}.type"))
        else:
            found.rows.append(
                Row(f"{where}.{key}", _shown(value), NONE, "noded has no such key for a handler")
            )


def _containerd(found: Translation, merged: Mapping[str, Any]) -> None:
    plugins = merged.get("plugins", {})
    for key, value in _flat({key: value for key, value in merged.items() if key != "plugins"}):
        _apply(found, key, value, _CONTAINERD.get(key))
    for plugin, table in plugins.items():
        if plugin not in (_CRI_V2, _CRI_V3, _IMAGES_V3, "cri", "io.containerd.grpc.v1.cri"):
            for key, value in _flat(table, prefix=f"plugins.{plugin}"):
                _apply(found, key, value, _none("a part of containerd that noded does not have"))
            continue
        stop = {"containerd.runtimes", "registry.mirrors", "registry.configs"}
        for key, value in _flat(table, stop=stop):
            where = f"plugins.{plugin}.{key}"
            if key == "containerd.runtimes":
                for name, each in value.items():
                    _containerd_handler(found, f"{where}.{name}", name, each)
            elif key in stop:
                note = "write registries.conf, or a hosts.toml for each registry and [images] config_path"
                # Their values hold passwords.
                found.rows.append(Row(where, ", ".join(map(str, value)), DIFFERS, note))
            else:
                _apply(found, where, value, _CONTAINERD_CRI.get(key))


def _containerd_handler(found: Translation, where: str, name: str, table: Mapping[str, Any]) -> None:
    shim = str(table.get("runtime_type", "io.containerd.runc.v2"))
    options = table.get("options") or {}
    binary = str(options.get("BinaryName", ""))
    kind = _TYPES.get(Path(binary).name) or _TYPES.get(shim)
    if kind is None:
        note = f"the type shim runs any containerd shim; see noded plugins describe shim for {shim}"
        found.rows.append(Row(where, shim, DIFFERS, note))
        return
    found.set(f"runtimes.{name}.type", kind)
    found.rows.append(Row(where, shim, MAPS, f"[runtimes.{name}] type = {kind!r}"))
    if binary:
        found.set(f"runtimes.{name}.path", binary)
        found.rows.append(Row(f"{where}.options.BinaryName", binary, MAPS, f"runtimes.{name}.path"))
    for key, value in options.items():
        if key == "SystemdCgroup":
            driver = "systemd" if value else "cgroupfs"
            found.set("cgroup_driver", driver)
            found.rows.append(
                Row(f"{where}.options.{key}", _shown(value), MAPS, f"cgroup_driver = {driver!r}")
            )
        elif key == "NoPivotRoot" and value:
            found.set(f"runtimes.{name}.no_pivot", True)
            found.rows.append(Row(f"{where}.options.{key}", "true", MAPS, f"runtimes.{name}.no_pivot"))
        elif key != "BinaryName" and value not in ("", False, 0):
            found.rows.append(
                Row(f"{where}.options.{key}", _shown(value), NONE, "an option of containerd's shim")
            )
    for key, value in table.items():
        if key == "pod_annotations" and value:
            found.set(f"runtimes.{name}.allowed_annotations", list(value))
            found.rows.append(
                Row(f"{where}.{key}", _shown(value), MAPS, f"runtimes.{name}.allowed_annotations")
            )
        elif key not in ("runtime_type", "options", "pod_annotations") and value not in (
            "",
            False,
            [],
            0,
            {},
        ):
            found.rows.append(
                Row(f"{where}.{key}", _shown(value), NONE, "noded has no such key for a handler")
            )


def _flat(
    table: Mapping[str, Any], *, prefix: str = "", stop: set[str] | frozenset[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; tables of `stop` are not taken apart."""
    for key, value in table.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict) and value and name not in stop:
            yield from _flat(value, prefix=name, stop=stop)
        elif value != {}:
            yield name, value


def _apply(found: Translation, key: str, value: Any, rule: _Rule | None) -> None:
    if value in ("", [], {}):
        return  # as good as not set
    if rule is None:
        found.rows.append(Row(key, _shown(value), NONE, "not known to noded: look whether you need it"))
        return
    path, verdict, note, convert = rule
    if path:
        try:
            made = convert(value) if convert else value
        except (TypeError, ValueError, AttributeError):
            found.rows.append(Row(key, _shown(value), NONE, "a value that noded has not"))
            return
        found.set(path, made)
        note = f"{path}; {note}" if note else path
    found.rows.append(Row(key, _shown(value), verdict, note))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def toml(table: Mapping[str, Any]) -> str:
    """A table as a noded.toml with only what is in it, checked by noded's own parser.

    Raises: InvalidArgument when a value does not fit its key.
    """
    text = config_text.render_table(table)
    settings.interpret(settings.parse(text, "noded.toml"))
    return text


def import_(arguments: argparse.Namespace) -> int:
    """Print a noded.toml on standard output and the report on standard error; with --json both as one."""
    documents = []
    for name in arguments.files:
        try:
            documents.append(tomllib.loads(Path(name).read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{name}: not TOML: {error}") from None
    found = translate(documents)
    text = toml(found.table)
    if arguments.json:
        rows = [
            {"key": each.key, "value": each.value, "verdict": each.verdict, "note": each.note}
            for each in found.rows
        ]
        print_json({"config": found.table, "toml": text, "report": rows})
        return 0
    print(text, end="")
    sys.stdout.flush()
    for row in found.rows:
        print(printable(f"{row.verdict:<8} {row.key} = {row.value}: {row.note}"), file=sys.stderr)
    return 0
