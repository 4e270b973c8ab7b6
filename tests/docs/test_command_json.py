"""What each command prints with --json is what its schema says: keys, types, and nothing else."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from noded.cli import grammar
from noded.cli.documents.plugins import Features
from noded.cli.documents.schema import DIALECT, find, keys, meanings, objects, schema
from noded.cli.main import run
from noded.cli.schema import documents
from noded.model.runtime import RuntimeFeatures
from tests.docs.test_command_line import container, image, loaded
from tests.support.documents import documented

__all__ = ["container", "image", "loaded"]  # fixtures

# What prints no data of its own: the daemon's log, output of containers, a test's.
WITHOUT = {"serve", "exec", "run", "demo", "plugins check"}
# Of a daemon with one pod, one container and one image: those that take no operand.
PLAIN = ("version", "status", "debts list", "images df")
LISTS = ("pods", "ps", "stats", "images ls")
SCHEMAS = {name: schema(find(document), name) for name, (document, _) in documents().items()}


def test_every_command_that_prints_data_has_a_schema():
    def names(parser, path):
        below = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
        for choices in below:
            for name, inner in choices.items():
                yield from names(inner, (*path, name))
        if not below:
            yield " ".join(path)

    assert set(names(grammar.parser(), ())) == set(SCHEMAS) | WITHOUT


def test_what_a_command_prints_is_held_to_its_schema_by_some_test():
    tests = Path(__file__).resolve().parents[1]
    everywhere = "".join(path.read_text() for path in tests.rglob("test_*.py"))
    held = {
        *PLAIN,
        *LISTS,
        *re.findall(r'\bdocumented\("([a-z -]+)", (?!json)', everywhere),
        *re.findall(r'\bdocument\(.*, name="([a-z -]+)"', Path(__file__).read_text()),
    }
    assert held == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_says_what_each_key_means(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    for cls in objects(find(documents()[name][0])).values():
        assert cls.__doc__
        assert all(meanings(cls)[key] for key in keys(cls)), cls


def test_a_schema_without_a_key_or_with_another_type_is_not_satisfied():
    right = {
        "id": "a",
        "kind": "b",
        "subject": "c",
        "since_ns": 1,
        "tries": 2,
        "last_error": "d",
        "next_try_ns": 3,
    }
    documented("debts list", json.dumps([right]))
    for wrong in ({**right, "tries": "2"}, {**right, "more": 1}, {"id": "a"}):
        with pytest.raises(jsonschema.ValidationError):
            documented("debts list", json.dumps([wrong]))
    jsonschema.Draft202012Validator(SCHEMAS["debts list"]).validate([{**right, "more": 1}])


def test_features_of_a_handler_are_those_that_are_documented():
    assert set(keys(Features)) == set(RuntimeFeatures.__dataclass_fields__)


def printed(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert run(words) == status, capsys.readouterr().err
    return capsys.readouterr().out


def test_commands_that_need_no_daemon(capsys, tmp_path):
    file = tmp_path / "noded.toml"
    file.write_text('log_level = "debug"\n')
    shown = documented("config show", printed(capsys, "config", "show", "--json", "--config", str(file)))
    assert shown["log_level"] == "debug"
    assert shown == tomllib.loads(printed(capsys, "config", "show", "--config", str(file)))
    right = documented("config check", printed(capsys, "config", "check", "--json", "--config", str(file)))
    assert right == {"path": str(file), "exists": True, "valid": True, "problem": ""}
    defaults = documented("config default", printed(capsys, "config", "default", "--json"))
    by_key = {each["key"]: each["default"] for each in defaults}
    commented = printed(capsys, "config", "default")
    assert by_key["network.conf_dir"] == "/etc/cni/net.d"
    assert len(by_key) == len(re.findall(r"^#\w+ = ", commented, re.MULTILINE))
    file.write_text("log_levle = 1\n")
    text = printed(capsys, "config", "check", "--json", "--config", str(file), status=1)
    assert "log_level" in documented("config check", text)["problem"]
    (tmp_path / "crio.conf").write_text('[crio]\nroot = "/r"\n[crio.nri]\nenable_nri = true\n')
    text = printed(capsys, "config", "import", "--json", str(tmp_path / "crio.conf"))
    assert len(documented("config import", text)["report"]) == 2
    text = printed(capsys, "plugins", "new", "youki", "-C", str(tmp_path / "youki"), "--json")
    assert all(Path(path).is_file() for path in documented("plugins new", text)["files"])
    listed = documented("schema", printed(capsys, "schema", "--json"))
    assert [each["command"] for each in listed] == list(SCHEMAS)
    own = json.loads(printed(capsys, "schema", "images", "ls"))
    assert own == schema(find("images:Images"), "noded images ls --json")
    assert own["$schema"] == DIALECT
    assert run(["schema", "images"]) == 1
    assert capsys.readouterr().err.startswith("noded: no command 'images' prints JSON")


@pytest.mark.root
def test_commands_of_a_running_daemon(daemon, cri, container, image, tmp_path, capsys):
    def document(*words: str, status: int = 0, name: str = "") -> object:
        asked = [*words, "--address", daemon.address, "--json"]
        return documented(name or " ".join(words), printed(capsys, *asked, status=status))

    config = ("--config", str(daemon.config))
    for name in PLAIN:
        document(*name.split())
    for name in LISTS:
        assert len(document(*name.split())) == 1
    assert document("explain", container, name="explain")["peers"]
    assert document("timeline", name="timeline")["pods"]
    for kind, thing in (("container", container), ("pod", "default/shown"), ("image", image.id)):
        assert document("inspect", thing, name="inspect")["type"] == kind
    document("images", "inspect", image.id, name="images inspect")
    assert document("images", "verify", name="images verify")[0]["usable"]
    tag = "support.invalid/busybox:1.0"
    document("images", "save", "-o", str(tmp_path / "oci.tar"), tag, name="images save")
    document("images", "export-store", str(tmp_path / "store"), tag, name="images export-store")
    assert document("images", "load", str(tmp_path / "oci.tar"), name="images load")[0]["id"] == image.id
    (pod,) = document("pods")
    waiting = document("seccomp", "record", pod["id"], name="seccomp record", status=1)["waiting"]
    assert waiting == ["app"]
    documented("plugins list", printed(capsys, "plugins", "list", "--json", *config))
    documented("plugins describe", printed(capsys, "plugins", "describe", "runc", "--json", *config))
    bundle = document("support-bundle", "-o", str(tmp_path / "b.tar.gz"), *config, name="support-bundle")
    assert bundle["parts"]["pods.json"] == ""
    run(["check", "--json", *config])  # whatever is wrong here
    assert documented("check", capsys.readouterr().out)["results"]

    assert cri.exec(container, "sh", "-c", "echo >/tmp/go").exit_code in (0, 137)
    cri.wait_exited(container)
    lines = printed(capsys, "logs", container, "--json", "--address", daemon.address).splitlines()
    logged = [documented("logs", line) for line in lines]
    assert [(each["stream"], each["text"]) for each in logged if each["stream"] == "stdout"] == [
        ("stdout", "one"),
        ("stdout", "last"),
    ]
    words = ["wipe", "--force", "--keep-images", "--json", *config]
    assert documented("wipe", printed(capsys, *words))["pods"] == [pod["id"]]
    assert document("images", "rm", tag, name="images rm") == {"removed": [tag]}
