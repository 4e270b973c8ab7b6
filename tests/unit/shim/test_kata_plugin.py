"""What the plugin for Kata and other shims offers, and what it finds missing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from noded_kata import plugin, requirements

from noded import api
from noded.config import Config
from noded.host.facts import collect
from noded.options import parse_options


def found(findings):
    return {finding.subject: (finding.ok, finding.detail) for finding in findings}


@pytest.fixture
def kata(tmp_path):
    """A complete installation in a directory; returns (shim, configuration)."""
    for name in ("shim", "qemu", "virtiofsd"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    for name in ("vmlinuz", "image"):
        (tmp_path / name).write_text("")
    configuration = tmp_path / "configuration.toml"
    configuration.write_text(
        f'[hypervisor.clh]\npath = "{tmp_path}/qemu"\nkernel = "{tmp_path}/vmlinuz"\n'
        f'image = "{tmp_path}/image"\nshared_fs = "virtio-fs"\nvirtio_fs_daemon = "{tmp_path}/virtiofsd"\n'
        "[runtime]\nenable_debug = false\n"
    )
    return tmp_path / "shim", configuration


def test_a_complete_installation_has_nothing_missing_but_perhaps_kvm(kata):
    shim, configuration = kata
    findings = found(requirements.requirements(str(shim), str(configuration)))
    findings.pop("/dev/kvm")
    assert all(ok for ok, _ in findings.values())
    assert {"hypervisor", "guest kernel", "guest image", "virtiofsd"} <= findings.keys()


def test_what_the_configuration_names_and_is_missing_is_told_with_key_and_path(kata):
    shim, configuration = kata
    (configuration.parent / "vmlinuz").unlink()
    (configuration.parent / "qemu").chmod(0o644)
    findings = found(requirements.requirements(str(shim), str(configuration)))
    assert findings["guest kernel"][0] is False
    assert "hypervisor.clh.kernel" in findings["guest kernel"][1]
    assert str(configuration.parent / "vmlinuz") in findings["guest kernel"][1]
    assert "not executable" in findings["hypervisor"][1]


def test_qemu_needs_the_kernel_s_vsock_and_an_initrd_stands_for_an_image(kata):
    shim, configuration = kata
    configuration.write_text('[hypervisor.qemu]\npath = "/bin/sh"\nkernel = "/bin/sh"\ninitrd = "/bin/sh"\n')
    findings = found(requirements.requirements(str(shim), str(configuration)))
    assert "/dev/vhost-vsock" in findings
    assert findings["guest initrd"] == (True, "/bin/sh")
    assert "guest image" not in findings


@pytest.mark.parametrize(
    ("text", "words"),
    [("[hypervisor", "cannot be read"), ("", "but has none"), ("hypervisor = 3", "but has none"),
     ("[hypervisor.a]\n[hypervisor.b]", "but has a, b"), ("[hypervisor]\na = 1", "is not a table")],
)  # fmt: skip
def test_a_broken_configuration_is_told(kata, text, words):
    shim, configuration = kata
    configuration.write_text(text)
    assert words in found(requirements.requirements(str(shim), str(configuration)))[str(configuration)][1]


def test_a_host_without_kata_is_told_what_to_install(tmp_path):
    findings = found(requirements.requirements(str(tmp_path / "none"), str(tmp_path / "none.toml")))
    assert "install kata-containers" in findings[str(tmp_path / "none")][1]
    assert "there is none" in findings["Kata's configuration"][1]


def test_the_hook_tells_what_the_node_lacks():
    findings = {finding.subject: finding.ok for finding in plugin.noded_diagnose()}
    assert {requirements.PROGRAM, "/dev/kvm"} <= findings.keys()


def test_each_type_of_shim_is_told_its_options_in_its_own_message(tmp_path):
    host = api.RuntimeHost(collect(Config()), api.Layout(tmp_path, tmp_path))
    kata = plugin.open_kata("k", plugin.KataOptions(config_path="/etc/kata.toml"), host)
    assert kata._task_options().type_url == "runtimeoptions.v1.Options"
    runc = plugin.open_shim("s", plugin.ShimTypeOptions(binary="/usr/bin/crun"), host)
    assert runc._task_options().type_url == "containerd.runc.v1.Options"
    other = plugin.open_shim("o", plugin.ShimTypeOptions(runtime_type="io.containerd.x.v1"), host)
    assert other._task_options() is None
    with pytest.raises(api.InvalidArgument, match=r"runtimes\.s\.config_path"):
        plugin.open_shim("s", plugin.ShimTypeOptions(config_path="/etc/x"), host)


def test_the_types_and_their_options():
    types = {each.name: each for each in plugin.noded_runtime_types()}
    assert set(types) == {"kata", "shim"}
    options = parse_options(types["shim"].options, {"runtime_type": "io.containerd.runsc.v1"}, "runtimes.g")
    assert plugin.shim_program("g", options.runtime_type) == "containerd-shim-runsc-v1"
    with pytest.raises(api.InvalidArgument, match=r"runtimes\.g\.runtime_type: 'runc'"):
        plugin.shim_program("g", "runc")


def test_the_driver_is_loaded_only_when_a_handler_needs_it():
    program = (
        "import sys, noded.api, noded_kata.plugin as plugin\n"
        "list(plugin.noded_runtime_types())\n"
        "names = ('noded.runtimes.shim_runtime', 'noded.wire.ttrpc')\n"
        "assert not [name for name in names if name in sys.modules]\n"
        "assert noded.api.ShimRuntime\n"
        "assert all(name in sys.modules for name in names)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_name_that_the_api_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = api.Nonsense
