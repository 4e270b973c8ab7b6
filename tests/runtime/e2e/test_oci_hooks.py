"""Hooks of the administrator's directories, run by real runtimes for the containers they are meant for."""

from __future__ import annotations

import json

import pytest

from tests.support.daemon import NodedDaemon

pytestmark = pytest.mark.root


@pytest.fixture
def daemon(tmp_path, pushed):
    with NodedDaemon(
        tmp_path,
        mirrors={"registry.example": pushed.host},
        insecure=[pushed.host],
        settings={"hooks_dirs": [tmp_path / "usr-hooks", tmp_path / "etc-hooks"]},
    ) as running:
        yield running


def hook(directory, name: str, when: dict, stages: list[str], script: str) -> None:
    directory.mkdir(exist_ok=True)
    program = {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20}
    document = {"version": "1.0.0", "hook": program, "when": when, "stages": stages}
    (directory / name).write_text(json.dumps(document))


def test_hooks_run_at_their_stages_for_the_containers_they_are_meant_for(
    daemon, cri, busybox, handler, tmp_path
):
    seen, usr, etc = tmp_path / "seen", tmp_path / "usr-hooks", tmp_path / "etc-hooks"
    seen.mkdir()
    team = {"annotations": {"^example/team$": "^search$"}}
    hook(usr, "10-made.json", team, ["createRuntime"], f"cat >>{seen}/hidden")
    hook(etc, "10-made.json", team, ["createRuntime", "poststop"], f"cat >>{seen}/made; echo >>{seen}/made")
    hook(etc, "20-never.json", {"commands": ["^/bin/nothing$"]}, ["createRuntime"], f"cat >{seen}/never")
    (etc / "30-broken.json").write_text("{")
    pod = daemon.pod_config(cri)
    sandbox = cri.run_pod(pod, handler)
    config = cri.container_config("main", busybox, ["sleep", "1000"])
    cri.remove(cri.run_container(sandbox, config, pod))
    assert list(seen.iterdir()) == []
    config.annotations["example/team"] = "search"
    config.metadata.attempt = 1
    container = cri.run_container(sandbox, config, pod)
    cri.remove(container)
    states = [json.loads(line) for line in (seen / "made").read_text().splitlines() if line]
    assert [state["id"] for state in states] == [container, container]
    assert [path.name for path in seen.iterdir()] == ["made"]
    assert "30-broken.json" in daemon.log.read_text()
