from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.cni import WatchedPlugin

NETWORK = b'{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}'


def start(plugin: object, directory: object, command: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [f"{directory}/loopback"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": "",
            "CNI_IFNAME": "lo",
            "CNI_PATH": "/",
        },
    )
    assert process.stdin is not None
    process.stdin.write(NETWORK)
    process.stdin.close()
    return process


@pytest.mark.root
def test_a_plugin_can_be_held_released_and_told_to_fail(tmp_path):
    plugin = WatchedPlugin(tmp_path / "bin", "loopback")
    try:
        plugin.hold("DEL")
        held = start(plugin, tmp_path / "bin", "DEL")
        assert plugin.wait_held() == "DEL"
        assert held.poll() is None
        plugin.release("DEL")
        assert held.wait(10) == 0
        plugin.fail("DEL")
        failing = start(plugin, tmp_path / "bin", "DEL")
        assert failing.wait(10) == 1
        assert b"told to fail" in failing.stdout.read()
        plugin.fail("DEL", on=False)
        assert start(plugin, tmp_path / "bin", "DEL").wait(10) == 0
        assert plugin.runs("DEL") == ["c1"] * 3
        assert plugin.runs("ADD") == []
    finally:
        plugin.close()
