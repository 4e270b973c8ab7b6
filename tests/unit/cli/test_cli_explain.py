"""`noded explain --request`: a saved request, explained without a daemon."""

from __future__ import annotations

import json

import pytest

from noded.cli.main import run

CONTAINER = {
    "metadata": {"name": "web"},
    "image": {"image": "registry.example/web:1"},
    "command": ["/bin/server"],
    "envs": [{"key": "A", "value": "plain text"}],
    "log_path": "web.log",
    "linux": {"security_context": {"run_as_user": {"value": 1000}, "seccomp": {"profile_type": 0}}},
}
POD = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "hostname": "h", "log_directory": "/logs"}


@pytest.fixture
def saved(tmp_path):
    config = tmp_path / "noded.toml"
    config.write_text('default_env = { REGION = "north" }\n')
    return lambda **files: [_write(tmp_path / f"{name}.json", value) for name, value in files.items()], config


def _write(path, value):
    path.write_text(json.dumps(value))
    return str(path)


def explained(capsys, *arguments):
    assert run(["explain", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return found, {one["name"]: one for one in found["fields"]}


def test_crictls_two_files_are_explained_without_a_daemon(saved, capsys):
    write, config = saved
    container, pod = write(container=CONTAINER, pod=POD)
    _, fields = explained(capsys, "--request", container, "--pod", pod, "--config", str(config))
    assert fields["process.env[A]"]["value"] == "A=plain text"
    assert fields["process.env[A]"]["origin"] == {"kind": "request", "name": "config.envs[0].value"}
    assert fields["process.env[REGION]"]["origin"] == {"kind": "config", "name": "default_env[REGION]"}
    assert fields["process.user.uid"]["value"] == 1000


def test_a_whole_request_and_the_configuration_of_an_image_are_explained(saved, capsys):
    write, config = saved
    request, image = write(
        request={"config": {**CONTAINER, "command": []}, "sandbox_config": POD},
        image={"config": {"Entrypoint": ["/entry"], "WorkingDir": "/srv"}},
    )
    _, fields = explained(capsys, "--request", request, "--image", image, "--config", str(config))
    assert fields["process.args[0]"]["origin"] == {"kind": "image", "name": "Entrypoint[0]"}
    assert fields["process.cwd"]["origin"]["name"] == "WorkingDir"


@pytest.mark.parametrize(
    ("container", "arguments", "message"),
    [
        ({**CONTAINER, "no_such": 1}, [], "no_such"),
        (CONTAINER, ["--handler", "absent"], "--handler absent"),
        ({"config": {}}, [], "metadata"),
    ],
)
def test_a_mistake_is_one_clear_line(saved, capsys, container, arguments, message):
    write, config = saved
    path, pod = write(container=container, pod=POD)
    assert run(["explain", "--request", path, "--pod", pod, "--config", str(config), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("noded: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_container_and_a_request_exclude_each_other(capsys):
    assert run(["explain"]) == 1
    assert "give either a container or --request FILE" in capsys.readouterr().err


def test_neighbours_of_one_source_share_a_line(saved, capsys):
    write, config = saved
    container, pod = write(container=CONTAINER, pod=POD)
    assert run(["explain", "--request", container, "--pod", pod, "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("process.capabilities.bounding")]
    assert "default_capabilities" in line
    assert len([line for line in lines if line.startswith("linux.maskedPaths")]) == 1
