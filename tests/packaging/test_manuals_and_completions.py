"""Manual pages and completions cover the whole command line, and the programs that read them agree."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
from noded_packaging import commands, completions, manpages

from noded.cli import grammar
from noded.cli.grammar.parts import EXAMPLES
from noded.config import Config
from noded.config_text import documentation

TOP = commands.read(grammar.parser())
EVERY = {"-".join(command.path): command for command in TOP.all()}
PAGES = manpages.pages(TOP, "1.2.3", 1_000_000_000)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def test_the_grammar_is_read_whole():
    def names(parser, path):
        yield "-".join(path)
        for action in parser._actions:
            if isinstance(action.choices, dict):
                for name, inner in action.choices.items():
                    yield from names(inner, (*path, name))

    assert set(EVERY) == set(names(grammar.parser(), ("noded",)))
    assert len(EVERY) > 15
    assert all(command.description for command in EVERY.values())


def test_every_command_has_a_page_and_nothing_else_has():
    assert set(PAGES) == {*(f"{name}.1" for name in EVERY), "noded.toml.5"}


@pytest.mark.parametrize("name", EVERY)
def test_a_page_names_every_option_and_operand(name):
    plain = PAGES[f"{name}.1"].replace("\\-", "-")
    for argument in EVERY[name].arguments:
        for flag in argument.flags or (argument.value,):
            assert flag in plain
    for command in EVERY[name].commands:
        assert f".BR {'-'.join(command.path)} (1)" in plain


@pytest.mark.parametrize("name", [name for name, command in EVERY.items() if not command.commands])
def test_the_examples_of_a_command_are_in_its_page_and_are_right(name):
    lines = EVERY[name].epilog.splitlines()
    assert lines[0] == EXAMPLES
    for line in lines[1:]:
        assert line.strip().replace("-", "\\-") in PAGES[f"{name}.1"]
        words = shlex.split(line)
        assert "-".join(words).startswith(name)
        grammar.parser().parse_args(words[1:])


@pytest.mark.parametrize("page", PAGES)
@needs("groff")
def test_groff_renders_a_page_without_a_warning(page):
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", "-rLL=78n"],
        input=PAGES[page],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs("man")
@pytest.mark.parametrize("page", ["noded.1", "noded.toml.5"])
def test_man_shows_a_page(page, tmp_path):
    (tmp_path / page).write_text(PAGES[page])
    shown = subprocess.run(
        ["man", "--warnings", "-l", str(tmp_path / page)],
        capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "78", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert shown.stderr == ""
    assert "EXIT STATUS" in shown.stdout or "TOP-LEVEL KEYS" in shown.stdout


def test_the_page_of_the_configuration_has_every_key_with_its_explanation():
    plain = PAGES["noded.toml.5"].replace("\\-", "-")
    for key, text in documentation(Config).items():
        assert f"\\fB{key}\\fR" in plain or f'"[{key}' in plain
        assert text.replace("~", "\\(ti") in plain


@pytest.mark.parametrize("text", ["a-b", ".hidden", "'quoted'", "back\\slash", "tilde ~ and ^", "ümlaut"])
@needs("groff")
def test_text_appears_in_a_page_as_it_is_written(text):
    page = f".TH T 1\n.SH NAME\n{manpages._text(text)}\n"
    shown = subprocess.run(
        ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-P-c"],
        input=page,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    assert text in shown.stdout


def bash_complete(*words: str, values: str = "") -> list[str]:
    """What bash offers for the last word."""
    script = (
        completions.bash(TOP)
        + f"""
noded() {{ printf '%s\\n' "$VALUES"; }}
COMP_WORDS=({" ".join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}
_noded; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env={**os.environ, "VALUES": values}, capture_output=True, text=True
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("name", EVERY)
def test_bash_completes_every_command_and_option(name):
    command = EVERY[name]
    if command.commands:
        assert set(bash_complete(*command.path, "")) == {each.path[-1] for each in command.commands}
    flags = {flag for option in command.options for flag in option.flags}
    assert set(bash_complete(*command.path, "-")) == flags


def test_bash_completes_after_options_and_asks_the_daemon_for_containers():
    assert "pull" in bash_complete("noded", "--debug", "images", "pu")
    assert bash_complete("noded", "logs", "-f", "", values="0123") == ["0123"]
    assert bash_complete("noded", "ps", "--pod", "", values="4567") == ["4567"]
    assert bash_complete("noded", "images", "save", "--format", "") == ["oci", "docker"]


def test_bash_completes_references_from_what_images_ls_prints():
    tags = ["registry.example/app:1", "b.example:5000/c:2"]
    listed = json.dumps([{"id": "sha256:0a", "tags": tags}], indent=2)
    offered = bash_complete("noded", "images", "rm", "", values=listed)
    assert offered == tags


@needs("shellcheck")
def test_shellcheck_accepts_the_bash_completion():
    done = subprocess.run(
        ["shellcheck", "--shell=bash", "-"], input=completions.bash(TOP), capture_output=True, text=True
    )
    assert done.stdout == ""


@needs("zsh")
def test_zsh_offers_every_command_and_option():
    # The two functions of zsh's completion system that matter here only tell what they are given.
    spies = """
        _arguments() { print -rl -- $@; state=command }
        _describe() { print -rl -- ${(P)2} }
    """
    for name, command in EVERY.items():
        definition = completions.zsh(TOP).removesuffix('_noded "$@"\n')
        function = "_" + name.replace("-", "_")
        done = subprocess.run(
            ["zsh", "-f", "-c", f"{spies}{definition}\n{function}"], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        given = done.stdout.splitlines()
        for option in command.options:
            for flag in option.flags:
                assert any(re.search(rf"(^|\)){flag}\[", line) for line in given), (name, flag)
        for each in command.commands:
            assert f"{each.path[-1]}:{each.help}" in given
        for operand in command.operands:
            assert any(line.lstrip("*").startswith(f":{operand.value}:") for line in given), (name, operand)


@needs("fish")
@pytest.mark.parametrize("name", EVERY)
def test_fish_offers_every_command_and_option(name, tmp_path):
    (tmp_path / "noded.fish").write_text(completions.fish(TOP))
    command = EVERY[name]

    def offered(line: str) -> set[str]:
        done = subprocess.run(
            [
                "fish", "--no-config", "-c",
                f"source {tmp_path}/noded.fish; function noded; end; complete -C '{line}'",
            ],
            capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.stderr == ""
        return {each.split("\t")[0] for each in done.stdout.splitlines()}

    line = " ".join(command.path)
    if command.commands:
        assert {each.path[-1] for each in command.commands} <= offered(f"{line} ")
    flags = {flag for option in command.options for flag in option.flags if flag.startswith("--")}
    assert flags <= offered(f"{line} --")
