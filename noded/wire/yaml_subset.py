"""The part of YAML that containers-registries.d(5) files are written in: nested mappings of scalars. Pure.

Understood: block mappings, plain, 'single' and "double" quoted scalars on one line, comments, empty flow
mappings `{}`, and any JSON document. Everything else is refused, never guessed at.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from noded.errors import InvalidArgument

_KEY: Final = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#'"\[\]{},&*!|>%@`?-][^#'"]*?)\s*:(?:\s+(?P<value>.*))?\Z"""
)
_SPECIAL: Final = tuple("&*!|>[]{}%@`,")
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_MOST_LINES: Final = 10_000
_DEEPEST: Final = 20
_NULLS: Final = ("", "~", "null", "Null", "NULL")


def parse(text: str) -> Any:
    """The document as dict, str, bool or None; numbers stay text, since none is expected.

    Raises: InvalidArgument naming the line.
    """
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # a comment before or behind it makes it YAML only
    root: dict[str, Any] = {}
    # (indentation of the keys or -1 while unknown, the mapping)
    stack: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    for number, line in enumerate(text.splitlines(), start=1):
        content = _without_comment(line).rstrip()
        if not content.strip() or content == "---":
            continue
        indent = len(content) - len(content.lstrip(" "))
        if content.lstrip(" ").startswith("\t"):
            raise InvalidArgument(f"line {number}: indented by a tab")
        while len(stack) > 1 and (indent < stack[-1][0] or (stack[-1][0] == -1 and indent <= stack[-2][0])):
            stack.pop()
        own, mapping = stack[-1]
        if own not in (-1, indent):
            raise InvalidArgument(f"line {number}: its indentation fits no line above")
        stack[-1] = indent, mapping
        key, value = _entry(content.strip(), number)
        if key in mapping:
            raise InvalidArgument(f"line {number}: key {key!r} is repeated")
        if value is None:
            mapping[key] = None
            stack.append((-1, _Below(mapping, key)))
        else:
            mapping[key] = value
    return root


def scalars(text: str) -> dict[str, str]:
    """Plain or quoted values of keys at the top of any YAML or JSON mapping; all else is skipped.

    For programs' own files, which may use more of YAML than `parse` reads.

    Raises: InvalidArgument for a document that is no mapping.
    """
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"not JSON: {error}") from None
        return {
            key: json.dumps(value) if isinstance(value, bool) else str(value)
            for key, value in document.items()
            if isinstance(value, str | bool | int | float)
        }
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        content = _without_comment(line).rstrip()
        if not content or content in ("---", "...") or content[0] in " -\t":
            continue
        match = _KEY.match(content)
        if match is None:
            raise InvalidArgument(f"line {number}: {content[:60]!r} is not `key: value`")
        value = (match["value"] or "").strip()
        if value and not value.startswith(_SPECIAL):
            quoted = value[0] in "'\""
            key = str(_scalar(match["key"].strip(), number))
            found[key] = str(_scalar(value, number)) if quoted else value
    return found


def parse_blocks(text: str) -> Any:
    """A document of nested mappings and lists of scalars, as administrators write configurations.

    Beyond `parse`: block sequences, also with mappings in them, and flow sequences of scalars.

    Raises: InvalidArgument naming the line.
    """
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"not JSON: {error}") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = _without_comment(line).rstrip()
        body = content.lstrip(" ")
        if body.startswith("\t"):
            raise InvalidArgument(f"line {number}: indented by a tab")
        if body and content != "---":
            lines.append((len(content) - len(body), body, number))
    if len(lines) > _MOST_LINES:
        raise InvalidArgument(f"more than {_MOST_LINES} lines")
    lines.reverse()
    value = _block(lines, 0) if lines else None
    if lines:
        raise InvalidArgument(f"line {lines[-1][2]}: its indentation fits no line above")
    return value


def _block(lines: list[tuple[int, str, int]], depth: int) -> Any:
    """The mapping or sequence whose first line is the last of `lines`; takes its lines away."""
    indent, first, number = lines[-1]
    if depth > _DEEPEST:
        raise InvalidArgument(f"line {number}: nested deeper than {_DEEPEST}")
    is_list = _is_item(first)
    items: list[Any] = []
    mapping: dict[str, Any] = {}
    while lines and lines[-1][0] == indent and _is_item(lines[-1][1]) == is_list:
        _, body, number = lines.pop()
        if is_list:
            rest = body[1:].lstrip(" ")
            if rest and (_is_item(rest) or _KEY.match(rest)):
                lines.append((indent + len(body) - len(rest), rest, number))
                items.append(_block(lines, depth + 1))
            else:
                items.append(_value(rest, lines, indent, number, depth))
            continue
        match = _KEY.match(body)
        if match is None:
            raise InvalidArgument(f"line {number}: {body[:60]!r} is not `key: value`")
        key = str(_scalar(match["key"].strip(), number))
        if key in mapping:
            raise InvalidArgument(f"line {number}: key {key!r} is repeated")
        text = (match["value"] or "").strip()
        below = lines[-1] if lines else (0, "", 0)
        if not text and below[0] == indent and _is_item(below[1]):  # a list may stand right below its key
            mapping[key] = _block(lines, depth + 1)
        else:
            mapping[key] = _value(text, lines, indent, number, depth)
    return items if is_list else mapping


def _value(text: str, lines: list[tuple[int, str, int]], indent: int, number: int, depth: int) -> Any:
    if not text:
        return _block(lines, depth + 1) if lines and lines[-1][0] > indent else None
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [_scalar(part.strip(), number) for part in inner.split(",")] if inner else []
    return _scalar(text, number)


def _is_item(body: str) -> bool:
    return body == "-" or body.startswith("- ")


class _Below(dict[str, Any]):
    """A mapping that takes its place below a key with its first entry."""

    def __init__(self, above: dict[str, Any], key: str) -> None:
        super().__init__()
        self._above, self._key = above, key

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._above[self._key] = self


def _entry(content: str, number: int) -> tuple[str, Any]:
    match = _KEY.match(content)
    if match is None:
        raise InvalidArgument(f"line {number}: {content[:60]!r} is not `key: value`")
    key = _scalar(match["key"].strip(), number)
    return str(key), _scalar((match["value"] or "").strip(), number)


def _scalar(text: str, number: int) -> Any:
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            raise InvalidArgument(f"line {number}: {text[:60]!r} is not a quoted text") from None
    if text.startswith("'"):
        if len(text) < 2 or not text.endswith("'") or "'" in text[1:-1].replace("''", ""):
            raise InvalidArgument(f"line {number}: {text[:60]!r} is not a quoted text")
        return text[1:-1].replace("''", "'")
    if text == "{}":
        return {}
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text.startswith((*_SPECIAL, "- ")) or text == "-" or ": " in text:
        raise InvalidArgument(f"line {number}: {text[:60]!r} is YAML that noded does not read here")
    return text


def _without_comment(line: str) -> str:
    """Cut a comment, unless its sign is inside quotes."""
    quote = ""
    for index, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (index == 0 or line[index - 1] in " \t"):
            return line[:index]
    return line
