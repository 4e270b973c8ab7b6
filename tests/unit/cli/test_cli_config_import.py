"""Configurations of CRI-O and containerd in noded's terms; no key that was set is left out silently."""

from __future__ import annotations

import json
import tomllib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded import settings, tables
from noded.cli.config_import import containerd, crio, toml, translate
from noded.cli.config_import.translation import duration_seconds
from noded.cli.main import run
from noded.config import Config
from noded.errors import InvalidArgument

TABLES = [crio.CRIO, containerd.CRI, containerd.CONTAINERD, containerd.NRI]
CRIO_CONF = """
[crio]
root = "/var/lib/containers/storage"
runroot = "/var/run/containers/storage"
storage_driver = "overlay"
log_dir = "/var/log/crio/pods"
[crio.api]
listen = "/var/run/crio/crio.sock"
stream_address = "10.0.0.5"
stream_port = "10010"
stream_enable_tls = true
stream_tls_cert = "/etc/crio/tls.crt"
stream_tls_key = "/etc/crio/tls.key"
stream_tls_ca = ""
[crio.runtime]
default_runtime = "crun"
conmon = "/usr/libexec/crio/conmon"
conmon_cgroup = "system.slice"
cgroup_manager = "systemd"
log_level = "warn"
default_capabilities = ["CHOWN", "NET_BIND_SERVICE"]
default_sysctls = ["net.ipv4.ping_group_range = 0 0"]
default_ulimits = ["nofile=1024:2048"]
pids_limit = -1
hooks_dir = ["/usr/share/containers/oci/hooks.d"]
timezone = "Local"
[crio.runtime.runtimes.crun]
runtime_path = "/usr/libexec/crio/crun"
runtime_type = "oci"
runtime_root = "/run/crun"
allowed_annotations = ["io.containers.trace-syscall"]
monitor_path = "/usr/libexec/crio/conmon"
[crio.runtime.runtimes.kata]
runtime_path = "/usr/bin/containerd-shim-kata-v2"
runtime_type = "vm"
[crio.runtime.workloads.management]
activation_annotation = "io.crio/management"
[crio.image]
pause_image = "registry.k8s.io/pause:3.10"
global_auth_file = "/var/lib/kubelet/config.json"
insecure_registries = ["reg.example:5000"]
pinned_images = ["quay.example/base:*"]
signature_policy = "/etc/crio/policy.json"
[crio.network]
network_dir = "/etc/cni/net.d/"
plugin_dirs = ["/opt/cni/bin", "/usr/libexec/cni"]
cni_default_network = "pods"
[crio.metrics]
enable_metrics = true
metrics_port = 9537
[crio.nri]
enable_nri = true
nri_plugin_request_timeout = "2s500ms"
"""

CONTAINERD_V2 = """
version = 2
root = "/var/lib/containerd"
disabled_plugins = []
oom_score = -999
[grpc]
address = "/run/containerd/containerd.sock"
gid = 0
[debug]
level = "trace"
[metrics]
address = "127.0.0.1:1338"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.9"
max_concurrent_downloads = 3
stream_server_address = "127.0.0.1"
stream_server_port = "0"
enable_selinux = false
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
discard_unpacked_layers = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "/usr/local/sbin/runc"
SystemdCgroup = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.gvisor]
runtime_type = "io.containerd.runsc.v1"
pod_annotations = ["dev.gvisor.*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.spin]
runtime_type = "io.containerd.spin.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
max_conf_num = 1
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.grpc.v1.cri".registry.configs."reg.example".auth]
username = "me"
password = "hunter2"
[plugins."io.containerd.internal.v1.opt"]
path = "/opt/containerd"
"""

CONTAINERD_V3 = """
version = 3
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
max_concurrent_downloads = 5
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "kata"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
"""


def leaves(table, prefix=()):
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*prefix, key))
        elif value not in ("", [], {}):
            yield ".".join((*prefix, key))


def imported(*texts: str):
    found = translate([tomllib.loads(text) for text in texts])
    return found, settings.interpret(tables.parse(toml(found.table), "noded.toml"))


def verdicts(found) -> dict[str, str]:
    return {row.key: row.verdict for row in found.rows}


def test_a_whole_crio_conf_becomes_a_configuration():
    found, config = imported(CRIO_CONF)
    assert (config.default_runtime, config.cgroup_driver, config.log_level) == ("crun", "systemd", "warning")
    assert config.conmon == "/usr/libexec/crio/conmon"
    assert config.default_capabilities == ("CAP_CHOWN", "CAP_NET_BIND_SERVICE")
    assert config.default_sysctls == {"net.ipv4.ping_group_range": "0 0"}
    assert (config.streaming.address, config.streaming.port) == ("10.0.0.5", 10010)
    assert str(config.streaming.tls_cert) == "/etc/crio/tls.crt"
    assert config.network.default_network == "pods"
    assert [str(path) for path in config.network.bin_dirs] == ["/opt/cni/bin", "/usr/libexec/cni"]
    assert config.images.pinned == ("quay.example/base:*",)
    assert config.metrics.listen == "127.0.0.1:9537"
    handlers = {handler.name: handler for handler in config.runtimes}
    assert handlers["crun"].options["path"] == "/usr/libexec/crio/crun"
    assert handlers["kata"].type == "kata"
    told = verdicts(found)
    assert told["crio.root"] == "differs"
    assert told["crio.runtime.hooks_dir"] == "maps"
    assert told["crio.nri.enable_nri"] == "maps"
    assert config.nri.enable
    assert config.nri.request_timeout_seconds == 2.5
    assert config.default_ulimits == {"nofile": "1024:2048"}
    assert told["crio.runtime.conmon_cgroup"] == "none", "system.slice is no absolute path"
    assert told["crio.runtime.cgroup_manager"] == "maps"


def test_metrics_that_crio_has_off_stay_off():
    _, config = imported("[crio.metrics]\nenable_metrics = false\nmetrics_port = 9090\n")
    assert config.metrics.listen == ""


def test_a_containerd_configuration_of_version_2():
    found, config = imported(CONTAINERD_V2)
    assert (config.log_level, config.cgroup_driver, config.default_runtime) == ("debug", "systemd", "runc")
    assert config.images.max_parallel_downloads == 3
    assert config.images.keep_blobs is False
    assert str(config.images.config_path) == "/etc/containerd/certs.d"
    assert config.metrics.listen == "127.0.0.1:1338"
    handlers = {handler.name: handler for handler in config.runtimes}
    assert handlers["runc"].options["path"] == "/usr/local/sbin/runc"
    assert (handlers["gvisor"].type, handlers["gvisor"].allowed_annotations) == ("runsc", ("dev.gvisor.*",))
    assert "spin" not in handlers
    text = json.dumps([[row.key, row.value, row.note] for row in found.rows])
    assert "hunter2" not in text, "passwords are not repeated"
    assert "reg.example" in text


def test_a_containerd_configuration_of_version_3():
    _, config = imported(CONTAINERD_V3)
    assert config.default_runtime == "kata"
    assert config.images.max_parallel_downloads == 5
    assert str(config.images.config_path) == "/etc/containerd/certs.d"


@pytest.mark.parametrize("text", [CRIO_CONF, CONTAINERD_V2, CONTAINERD_V3])
def test_every_key_that_was_set_is_in_the_report(text):
    found, _ = imported(text)
    reported = set(verdicts(found))
    for leaf in leaves(tomllib.loads(text)):
        assert any(leaf == key or leaf.startswith(f"{key}.") for key in reported), leaf
    assert all(row.verdict in ("maps", "differs", "none") and row.note for row in found.rows)


def test_later_files_win_and_a_default_without_a_handler_is_told():
    found, config = imported(CRIO_CONF, '[crio.runtime]\nlog_level = "debug"\ndefault_runtime = "gone"\n')
    assert (config.log_level, config.default_runtime) == ("debug", "runc")
    assert verdicts(found)["default_runtime"] == "none"


@pytest.mark.parametrize("rules", TABLES, ids=["crio", "cri", "containerd", "nri"])
def test_every_rule_names_a_key_that_there_is(rules):
    for key, rule in rules.items():
        assert rule.path or rule.verdict != "maps", key
        place = Config()
        for name in rule.path.split(".") if rule.path else ():
            assert hasattr(place, name), f"{key}: {rule.path}"
            place = getattr(place, name)


@pytest.mark.parametrize(
    ("text", "seconds"), [("4h0m0s", 14400), ("0", 0), ("1.5s", 1.5), ("100ms", 0.1), ("1h30m", 5400)]
)
def test_durations_of_go_are_seconds(text, seconds):
    assert duration_seconds(text) == pytest.approx(seconds)


@given(st.text(max_size=8))
def test_a_duration_is_understood_or_refused(text):
    with suppress(ValueError):
        assert duration_seconds(text) >= 0


def test_the_nri_of_containerd_and_keys_of_its_handlers_are_translated():
    found, config = imported(
        """
        version = 3
        [plugins."io.containerd.nri.v1.nri"]
        disable = true
        plugin_path = "/opt/mine"
        plugin_registration_timeout = "soon"
        [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
        privileged_without_host_devices = true
        cni_conf_dir = "/etc/cni/other.d"
        sandboxer = "podsandbox"
        """
    )
    assert (config.nri.enable, str(config.nri.plugin_path)) == (False, "/opt/mine")
    handler = next(each for each in config.runtimes if each.name == "runc")
    assert (handler.privileged_without_host_devices, handler.cni_conf_dir) == (True, "/etc/cni/other.d")
    told = {row.key: (row.verdict, row.note) for row in found.rows}
    late = "plugins.io.containerd.nri.v1.nri.plugin_registration_timeout"
    assert told[late] == ("none", "a value that noded has not")
    assert told["plugins.io.containerd.cri.v1.runtime.containerd.runtimes.runc.sandboxer"][0] == "none"


def test_other_files_are_refused():
    with pytest.raises(InvalidArgument, match="neither"):
        translate([{"Service": {}}])


def test_the_command_prints_toml_and_a_report(tmp_path, capsys):
    (tmp_path / "crio.conf").write_text(CRIO_CONF)
    assert run(["config", "import", str(tmp_path / "crio.conf")]) == 0
    captured = capsys.readouterr()
    assert tomllib.loads(captured.out)["cgroup_driver"] == "systemd"
    assert "differs  crio.root = /var/lib/containers/storage: " in captured.err
    assert run(["config", "import", "--json", str(tmp_path / "crio.conf")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"config", "toml", "report"}
    (tmp_path / "bad").write_text("= ")
    assert run(["config", "import", str(tmp_path / "bad")]) == 1
    assert "not TOML" in capsys.readouterr().err
