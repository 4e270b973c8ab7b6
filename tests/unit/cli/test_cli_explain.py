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


def test_a_file_of_the_handler_that_cannot_be_used_is_one_clear_line(saved, tmp_path, capsys):
    write, config = saved
    config.write_text(f'[runtimes.runc]\ntype = "runc"\nseccomp_profile = "{tmp_path}/absent.json"\n')
    container, pod = write(container=CONTAINER, pod=POD)
    assert run(["explain", "--request", container, "--pod", pod, "--config", str(config)]) == 1
    error = capsys.readouterr().err
    assert f"runtimes.runc.seccomp_profile: cannot read {tmp_path}/absent.json: No such file" in error
    assert error.count("\n") == 1


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


def test_what_changes_a_spec_after_it_was_built_is_explained_too(saved, tmp_path, capsys):
    write, config = saved
    for name in ("cdi", "hooks", "volume"):
        (tmp_path / name).mkdir()
    device = {"name": "a", "containerEdits": {"env": ["NET=a"]}}
    (tmp_path / "cdi/v.json").write_text(
        json.dumps({"cdiVersion": "0.6.0", "kind": "vendor.example/net", "devices": [device]})
    )
    (tmp_path / "hooks/true.json").write_text(
        json.dumps(
            {
                "version": "1.0.0",
                "hook": {"path": "/bin/true"},
                "when": {"always": True},
                "stages": ["createRuntime"],
            }
        )
    )
    (tmp_path / "base.json").write_text(json.dumps({"process": {"env": ["SITE=north"]}}))
    (tmp_path / "mounts.conf").write_text(f"{tmp_path}/volume:/run/secrets\n")
    config.write_text(
        f"""
        cdi_spec_dirs = ["{tmp_path}/cdi"]
        hooks_dirs = ["{tmp_path}/hooks"]
        default_mounts_file = "{tmp_path}/mounts.conf"
        default_sysctls = {{ "kernel.shmmni" = "77" }}
        [runtimes.runc]
        type = "runc"
        base_spec = "{tmp_path}/base.json"
        [workloads.management]
        activation_annotation = "target.workload/management"
        allowed_annotations = ["umask.*", "seccomp-*"]
        resources = {{ cpushares = 77 }}
        """
    )
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "volume")
    wanted = {
        **CONTAINER,
        "CDI_devices": [{"name": "vendor.example/net=a"}],
        "mounts": [
            {"container_path": "/data", "host_path": str(link)},
            {"container_path": "/new", "host_path": f"{tmp_path}/absent"},
        ],
        "linux": {},
    }
    annotations = {
        "target.workload/management": "",
        "umask.noded.io": "027",
        "seccomp-profile.noded.io/POD": "quay.io/profile:1",
    }
    container, pod = write(container=wanted, pod={**POD, "annotations": annotations})
    found, fields = explained(capsys, "--request", container, "--pod", pod, "--config", str(config))

    def origin(name):
        return fields[name]["origin"]["kind"], fields[name]["origin"]["name"]

    assert origin("process.env[NET]") == ("cdi", "vendor.example/net=a")
    assert origin("hooks.createRuntime[0].path") == ("hooks", f"{tmp_path}/hooks/true.json")
    assert origin("process.env[SITE]") == ("handler", "runtimes.runc.base_spec")
    assert origin("mounts[/run/secrets].source") == ("config", "default_mounts_file")
    assert origin("process.user.umask") == ("annotation", "umask.noded.io")
    assert origin("linux.resources.cpu.shares") == ("annotation", "target.workload/management")
    assert fields["mounts[/data].source"]["value"] == str(tmp_path / "volume")
    notes = "\n".join(found["notes"])
    for words in (
        f"{tmp_path}/absent does not exist: noded would make the directory",
        "seccomp profile quay.io/profile:1",
        "NRI plugins",
    ):
        assert words in notes
    assert not (tmp_path / "absent").exists()
    different = {one["name"]: one for one in found["peers"]["containerd"]["differences"]}
    assert different["sysctls of the pod[kernel.shmmni]"]["noded"] == "77"
    assert different["sysctls of the pod[net.ipv4.ip_unprivileged_port_start]"]["peer"] == "0"


def test_a_file_that_cannot_be_used_is_noted_and_the_rest_explained(saved, tmp_path, capsys):
    write, config = saved
    config.write_text(f'cdi_spec_dirs = ["{tmp_path}/none"]\nhooks_dirs = ["{tmp_path}/none"]\n')
    wanted = {**CONTAINER, "CDI_devices": [{"name": "vendor.example/net=a"}], "linux": {}}
    container, pod = write(container=wanted, pod=POD)
    found, fields = explained(capsys, "--request", container, "--pod", pod, "--config", str(config))
    assert "process.args[0]" in fields
    [note] = [note for note in found["notes"] if "CDI" in note]
    assert "vendor.example/net=a: no file describes it" in note


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
