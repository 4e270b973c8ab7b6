"""What is added to a config.json that a runtime restores from."""

from __future__ import annotations

import json

from noded.runtimes.restore_mounts import name_masked_directories

NAME = "/run/crun/.empty-directory"


def test_the_name_of_a_checkpoint_gets_the_runtimes_own_directory_once(tmp_path):
    proc = {"destination": "/proc", "type": "proc", "source": "proc"}
    config, source = tmp_path / "config.json", tmp_path / "root" / ".empty-directory"
    config.write_text(json.dumps({"ociVersion": "1.0.2", "mounts": [proc]}))
    for _ in range(2):
        name_masked_directories(tmp_path, NAME, source)
    spec = json.loads(config.read_text())
    assert spec["ociVersion"] == "1.0.2"
    assert spec["mounts"][0] == proc
    assert [mount["source"] for mount in spec["mounts"][1:]] == [str(source)]
    assert source.is_dir()
