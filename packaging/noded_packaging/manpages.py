"""Manual pages in man(7): one for each command, from the grammar, and one for the configuration file."""

from __future__ import annotations

import dataclasses
import datetime
import textwrap
from typing import Any

from noded.cli.grammar.parts import EXAMPLES
from noded.config import Config, HandlerConfig
from noded.config_text import documentation, render_default
from noded_packaging.commands import Argument, Command

_FILES = (
    ("/etc/noded/noded.toml, /etc/noded/conf.d/*.toml", "configuration, see noded.toml(5)"),
    ("/run/noded/noded.sock", "socket of the daemon"),
    ("/var/lib/noded", "images, writable layers and the database"),
    ("/run/noded", "bundles, sockets and namespaces of what runs"),
    ("/usr/local/lib/noded", "further plugins: pip install --no-deps --target /usr/local/lib/noded PLUGIN"),
    ("/usr/lib/noded/purge", "stops all pods and removes all that noded keeps; the daemon must be stopped"),
)
_STATUS = (
    ("0", "done"),
    ("1", "failed: one line on standard error says why"),
    ("2", "wrong usage"),
    ("130", "interrupted"),
)


def pages(top: Command, version: str, epoch: int) -> dict[str, str]:
    """Return every page by file name, e.g. noded-images-pull.1."""
    heading = _Heading(version, epoch)
    made = {f"{_title(command)}.1": _command_page(command, top, heading) for command in top.all()}
    made["noded.toml.5"] = _configuration_page(heading)
    return made


@dataclasses.dataclass(frozen=True, slots=True)
class _Heading:
    version: str
    epoch: int

    def line(self, title: str, section: int) -> str:
        date = datetime.datetime.fromtimestamp(self.epoch, datetime.UTC)
        return f'.TH "{title.upper()}" {section} {date:%Y-%m-%d} "noded {self.version}" "noded manual"'


def _title(command: Command) -> str:
    return "-".join(command.path)


def _command_page(command: Command, top: Command, heading: _Heading) -> str:
    title = _title(command)
    short = command.help or command.description.rstrip(".").partition(":")[0]
    lines = [heading.line(title, 1), ".SH NAME", f"{_text(title)} \\- {_text(short)}"]
    lines += [".SH SYNOPSIS", *_synopsis(command)]
    lines += [".SH DESCRIPTION", *_paragraphs(command.description)]
    if command.commands:
        lines += [".SH COMMANDS"]
        for each in command.commands:
            lines += [".TP", f".BR {_text('-'.join(each.path))} (1)", *_paragraphs(each.help)]
    if command.operands:
        lines += [".SH ARGUMENTS"]
        for operand in command.operands:
            lines += [".TP", f"\\fI{_text(operand.value)}\\fR", *_paragraphs(operand.help)]
    lines += [".SH OPTIONS"]
    for option in command.options:
        lines += [".TP", _option(option), *_paragraphs(option.help)]
    if command.epilog.startswith(EXAMPLES):
        lines += [".SH EXAMPLES", *_verbatim(textwrap.dedent(command.epilog.removeprefix(EXAMPLES)).strip())]
    elif command.epilog:
        lines += [".SH NOTES", *_verbatim(command.epilog)]
    lines += [".SH EXIT STATUS", *_table(_STATUS)]
    if command is top:
        lines += [".SH FILES", *_table(_FILES)]
        related = [f"{_title(each)}(1)" for each in top.commands]
        lines += [".SH SEE ALSO", *_references(["noded.toml(5)", *related])]
    else:
        parent = "-".join(command.path[:-1])
        lines += [".SH SEE ALSO", *_references([f"{parent}(1)", "noded.toml(5)"])]
    return "\n".join(lines) + "\n"


def _synopsis(command: Command) -> list[str]:
    words = [f"\\fB{_text(' '.join(command.path))}\\fR"]
    for option in command.options:
        if "--help" in option.flags:
            continue
        flag = f"\\fB{_text(option.flags[0])}\\fR"
        shown = f"{flag} \\fI{_text(option.value)}\\fR" if option.value else flag
        words.append(shown if option.required else f"[{shown}]")
    for operand in command.operands:
        value = f"\\fI{_text(operand.value)}\\fR"
        words.append(
            {"?": f"[{value}]", "*": f"[{value} ...]", "+": f"{value} ..."}.get(str(operand.nargs), value)
        )
    if command.commands:
        words.append("\\fICOMMAND\\fR ...")
    return [".ad l", " ".join(words), ".ad b"]


def _option(option: Argument) -> str:
    value = f" \\fI{_text(option.value)}\\fR" if option.value else ""
    return ", ".join(f"\\fB{_text(flag)}\\fR{value}" for flag in option.flags)


def _configuration_page(heading: _Heading) -> str:
    top = Config()
    sections = {name: value for name, value in _fields(top).items() if dataclasses.is_dataclass(value)}
    documented = documentation(Config)
    lines = [
        heading.line("noded.toml", 5),
        ".SH NAME",
        "noded.toml \\- configuration of noded",
        ".SH SYNOPSIS",
        "/etc/noded/noded.toml, /etc/noded/conf.d/*.toml",
        ".SH DESCRIPTION",
        "The configuration of",
        ".BR noded (1),",
        "in TOML. No key is required. Files in conf.d are read after noded.toml, in the order of their",
        "names: tables are merged key by key, any other value replaces an earlier one.",
        ".PP",
        "\\fBnoded config check\\fR names file, line and key of a mistake; \\fBnoded config show\\fR prints",
        "what is in force. A reload applies log_level; other keys want a restart of the daemon, which",
        "running pods do not notice.",
        ".SH TOP\\-LEVEL KEYS",
        *_keys(Config, top, skip={*sections, "runtimes"}),
    ]
    for name, value in sections.items():
        lines += [f'.SH "[{_text(name)}]"', *_paragraphs(f"{documented[name]}.")]
        lines += _keys(type(value), value)
    lines += ['.SH "[runtimes.HANDLER]"', *_paragraphs(f"{documented['runtimes']}.")]
    lines += _keys(HandlerConfig, HandlerConfig("HANDLER", ""), skip={"name", "options"})
    lines += _paragraphs("Other keys belong to the type of the handler: see noded-plugins-list(1).")
    lines += [
        ".SH EXAMPLE",
        *_verbatim('log_level = "debug"\n\n[images]\npinned = ["registry.example/base:*"]'),
    ]
    lines += [".SH SEE ALSO", *_references(["noded(1)", "noded-config(1)", "noded-plugins-list(1)"])]
    return "\n".join(lines) + "\n"


def _keys(cls: type[Any], instance: Any, skip: set[str] | frozenset[str] = frozenset()) -> list[str]:
    documented, lines = documentation(cls), []
    defaults = _defaults()
    for name in _fields(instance):
        if name in skip:
            continue
        default = defaults.get((_table_of(instance), name))
        lines += [".TP", f"\\fB{_text(name)}\\fR", *_paragraphs(documented[name])]
        if default is not None:
            lines += [".br", f"Default: {_text(default)}"]
    return lines


def _table_of(instance: Any) -> str:
    if isinstance(instance, HandlerConfig):
        return "runtimes.runc"
    return next((name for name, value in _fields(Config()).items() if value == instance), "")


def _defaults() -> dict[tuple[str, str], str]:
    """Values of the commented example, by table and key: the one place that writes them as TOML."""
    table, found = "", {}
    for line in render_default().splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif line.startswith("#") and not line.startswith("# ") and " = " in line:
            key, _, value = line[1:].partition(" = ")
            if key != "type":
                found[table, key] = value
    return found


def _fields(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def _table(rows: tuple[tuple[str, str], ...]) -> list[str]:
    lines = []
    for name, text in rows:
        lines += [".TP", f"\\fB{_text(name)}\\fR", *_paragraphs(f"{text[:1].upper()}{text[1:]}.")]
    return lines


def _references(names: list[str]) -> list[str]:
    """`.BR name (1),` for each, the last without its comma."""
    lines = []
    for name in names:
        page, _, section = name.partition("(")
        lines.append(f".BR {_text(page)} ({section},")
    return [*lines[:-1], lines[-1].rstrip(",")]


def _paragraphs(text: str) -> list[str]:
    """Filled text; an empty line starts a new paragraph."""
    return [_text(line) if line.strip() else ".IP" for line in text.strip().splitlines()] or ["\\&"]


def _verbatim(text: str) -> list[str]:
    return [".nf", *(_text(line) for line in text.splitlines()), ".fi"]


def _text(text: str) -> str:
    """Escape for roff: backslashes, hyphens that are to be copied as such, control lines."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")
    escaped = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
