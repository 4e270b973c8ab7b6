from __future__ import annotations

import json

import pytest

from noded.cli.main import run


def listed(capsys, tmp_path, text: str) -> dict[str, dict[str, object]]:
    path = tmp_path / "noded.toml"
    path.write_text(text)
    assert run(["plugins", "list", "--json", "--config", str(path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"gvisor", "kata", "runc"} <= {plugin["name"] for plugin in document["plugins"]}
    return {handler["name"]: handler for handler in document["handlers"]}


def test_a_handler_without_its_program_says_what_is_missing(capsys, tmp_path):
    missing = tmp_path / "no-runc"
    handlers = listed(capsys, tmp_path, f"[runtimes.runc]\npath = '{missing}'\n")
    assert handlers["runc"]["available"] is False
    assert str(missing) in str(handlers["runc"]["unavailable_because"])
    assert handlers["runc"]["binaries"][0] == {"name": str(missing), "path": None}


def test_a_handler_of_an_unknown_type_names_the_known_ones(capsys, tmp_path):
    handlers = listed(capsys, tmp_path, "[runtimes.other]\ntype = 'nothing'\n")
    assert handlers["other"]["available"] is False
    assert "runc" in str(handlers["other"]["unavailable_because"])


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_listing_prints_nothing_but_its_answer(capsys, tmp_path, arguments):
    path = tmp_path / "noded.toml"
    path.write_text("[runtimes.other]\ntype = 'nothing'\n")
    assert run(["plugins", "list", "--config", str(path), *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("{" if arguments else "PLUGIN")
