"""What documents and examples say is checked against what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from noded import config_text
from noded.cli.main import run
from noded.config import Config

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
MAKEFILE = REPOSITORY / "Makefile"
ARCHITECTURE = REPOSITORY / "ARCHITECTURE.md"


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE.read_text(), re.MULTILINE))


def texts() -> list[Path]:
    """Every text file of the project that git knows, or all of them where there is no git."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git clone")
    paths = (REPOSITORY / line for line in listed.stdout.splitlines())
    return [path for path in paths if path.is_file() and path.suffix not in {".lock", ".png"}]


def test_every_make_command_of_the_readme_is_a_target():
    mentioned = re.findall(r"(?:^|`)make ([a-z][a-z-]*)", README.read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(mentioned)
    assert set(mentioned) <= targets()


def test_every_phony_target_exists_and_is_explained():
    makefile = MAKEFILE.read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    explained = set(re.findall(r"^([a-z][a-z-]*):.*## \S", makefile, re.MULTILINE))
    assert phony == targets() == explained


def test_continuous_integration_runs_the_readmes_test_command():
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert re.search(r"^make .*\btest\b", script, re.MULTILINE)


def test_files_that_the_readme_names_exist():
    named = re.findall(
        r"\b(?:packaging|plugins|tests)/[\w./-]*\w|\brequirements[\w.-]*lock", README.read_text()
    )
    missing = {name for name in named if not (REPOSITORY / name).exists()}
    assert named
    assert not missing


def test_the_example_configuration_is_what_config_default_prints():
    # `make regen` writes it anew.
    assert (REPOSITORY / "packaging" / "noded.toml").read_text() == config_text.render_default()


def tables() -> dict[str, object]:
    """Every table of the configuration with fixed keys, "" for the top."""
    nested = {field.name: getattr(Config(), field.name) for field in fields(Config)}
    return {"": Config(), **{name: value for name, value in nested.items() if is_dataclass(value)}}


@pytest.mark.parametrize("table", tables())
def test_every_configuration_key_is_in_the_example_with_an_explanation(table):
    example = config_text.render_default()
    start = example.index(f"\n[{table}]") if table else 0
    section = example[start + 2 :].partition("\n[")[0]
    for field in fields(tables()[table]):
        if not table and field.name in {*tables(), "runtimes"}:
            assert f"\n[{field.name}" in example
            continue
        assert re.search(rf"^# .+\n#{field.name} = ", section, re.MULTILINE), f"{table}.{field.name}"


def test_keys_that_the_readme_explains_exist_with_the_defaults_it_gives():
    config = Config()
    rows = re.findall(
        r"^\| (`.*?) \| (.*?) \|", README.read_text().partition("| Key |")[2].partition("\n\n")[0], re.M
    )
    assert rows
    for keys, default in rows:
        table, *names = re.match(r"`(?:\[(\w+)[^\]]*\])? ?(.*)", keys).groups()
        names = re.findall(r"`?(\w+)`", "".join(names)) if table != "runtimes" else []
        holder = getattr(config, table) if table in tables() and table else config
        for name, shown in zip(names, re.findall(r"`([^`]+)`", default), strict=False):
            assert str(getattr(holder, name)) == shown, name


def test_commands_that_the_readme_names_are_in_the_grammar(capsys):
    shell = "".join(code_blocks(README, "sh"))
    commands = {
        *re.findall(r"^noded ([a-z]+)", shell, re.MULTILINE),
        *re.findall(r"`noded ([a-z]+)", README.read_text()),
    }
    assert {"plugins", "config", "logs"} <= commands
    for command in sorted(commands):
        with pytest.raises(SystemExit) as caught:
            run([command, "--help"])
        assert caught.value.code == 0, command


def test_the_unit_starts_a_command_that_exists():
    unit = (REPOSITORY / "packaging" / "systemd" / "noded.service").read_text()
    assert "ExecStart=/usr/bin/noded serve --config /etc/noded/noded.toml\n" in unit
    assert "Type=notify\n" in unit
    assert "KillMode=process\n" in unit, "stopping noded must not stop pods"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path):
    unit = (REPOSITORY / "packaging" / "systemd" / "noded.service").read_text()
    # Only the syntax is in question, not whether noded is installed on this machine.
    (tmp_path / "noded.service").write_text(unit.replace("/usr/bin/noded", "/bin/true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "noded.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "noded.service" not in checked.stderr, checked.stderr


def test_the_example_network_has_what_pods_need():
    conflist = json.loads((REPOSITORY / "packaging" / "cni" / "10-noded-bridge.conflist").read_text())
    capabilities = {name for plugin in conflist["plugins"] for name in plugin.get("capabilities", {})}
    assert "portMappings" in capabilities


def test_the_crictl_example_and_the_default_socket_agree():
    example = (REPOSITORY / "packaging" / "crictl.yaml").read_text()
    assert set(re.findall(r"unix://(\S+)", example)) == {str(Config().listen)}


def test_the_layers_in_the_architecture_are_those_that_are_checked():
    if not ARCHITECTURE.exists():
        pytest.fail("ARCHITECTURE.md is missing")
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = [re.findall(r"noded\.(\w+)", layer) for layer in contracts[0]["layers"]]
    text = ARCHITECTURE.read_text()
    for layer in layers:
        for name in layer:
            assert re.search(rf"\b{name}\b", text), f"ARCHITECTURE.md does not mention the layer {name}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_are_pinned_hashed_and_name_no_registry(lock):
    text = (REPOSITORY / lock).read_text()
    assert not re.search(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host", text)
    entries = re.split(r"\n(?=[a-z0-9])", text.partition("\n")[2].partition("\n")[2])
    assert len(entries) > 15
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_every_dependency_is_locked():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[A-Za-z0-9._-]+", item)[0].lower() for item in requirements}

    def locked(lock: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+)==", (REPOSITORY / lock).read_text(), re.MULTILINE))

    runtime = names(project["dependencies"])
    assert runtime <= locked("requirements.lock")
    assert runtime | names(project["optional-dependencies"]["dev"]) <= locked("requirements-dev.lock")


def test_no_file_tells_where_it_was_made():
    here = str(REPOSITORY)
    found = [path for path in texts() if here in path.read_text(errors="replace")]
    assert not found
