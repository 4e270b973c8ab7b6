"""Renders `[network] conf_template`: the part of Go's text/template that such templates use. Pure.

containerd's templates work unchanged. The language, between `{{` and `}}` (`{{-` and `-}}` also
remove the white space before and after):

    .PodCIDR                       the first pod CIDR of the node
    .PodCIDRRanges                 all of them, a list
    .Routes                        "0.0.0.0/0" and/or "::/0", by the families of the CIDRs, a list
    range X ... else ... end       once per item, `.` is the item; else: when there is none
    range $i, $x := X ... end      the same with index and item in variables (or only `$x`)
    if X ... else if Y ... else ... end
    $x  .  "text"  12              variable, current item, constants
    index X N, len X, eq A B, ne A B, not X, and A B, or A B, (...)
    /* comment */

0, "" and empty lists are false. Whatever is not in this list is refused, never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from noded.errors import FailedPrecondition

Value: TypeAlias = str | int | bool | tuple[str, ...]

_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*(:=|[(),]|"(?:[^"\\\n]|\\.)*"|-?[0-9]+(?![\w.])|\$\w*|\.\w*|\w+)', re.ASCII)
_DEEPEST = 50  # nested blocks or parentheses; no template a person writes comes near


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Action:
    tokens: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class _Print:
    expression: _Expression


@dataclass(frozen=True, slots=True)
class _If:
    condition: _Expression
    then: tuple[_Node, ...]
    otherwise: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Range:
    index: str
    item: str
    items: _Expression
    body: tuple[_Node, ...]
    otherwise: tuple[_Node, ...]


_Node: TypeAlias = _Text | _Print | _If | _Range
_Scope: TypeAlias = Mapping[str, Value | Mapping[str, Value]]
_Expression: TypeAlias = Callable[[_Scope], Value]


def render(template: str, values: Mapping[str, Value]) -> str:
    """Return the template with its actions carried out on `values` (names without the dot).

    Raises: FailedPrecondition naming the line and what is not understood there.
    """
    nodes, rest = _Parser(_lex(template)).block(())
    if rest is not None:
        raise FailedPrecondition(f"line {rest.line}: {{{{{rest.tokens[0]}}}}} without a matching range or if")
    return "".join(_write(nodes, {".": values, "$": values}))


def _lex(template: str) -> list[_Text | _Action]:
    parts: list[_Text | _Action] = []
    position, trim_left = 0, False
    for match in _ACTION.finditer(template):
        text = template[position : match.start()]
        text = text.lstrip() if trim_left else text
        parts.append(_Text(text.rstrip() if match.group(1) else text))
        line = template.count("\n", 0, match.start()) + 1
        body = match.group(2)
        if not (body.startswith("/*") and body.endswith("*/")):
            parts.append(_Action(_tokens(body, line), line))
        position, trim_left = match.end(), bool(match.group(3))
    tail = template[position:]
    if "{{" in tail:
        line = template.count("\n", 0, position + tail.index("{{")) + 1
        raise FailedPrecondition(f"line {line}: {{{{ without }}}}")
    parts.append(_Text(tail.lstrip() if trim_left else tail))
    return parts


def _tokens(body: str, line: int) -> tuple[str, ...]:
    tokens: list[str] = []
    position = 0
    while position < len(body):
        match = _TOKEN.match(body, position)
        if match is None:
            raise FailedPrecondition(f"line {line}: cannot read {body[position:]!r}")
        tokens.append(match.group(1))
        position = match.end()
    if not tokens:
        raise FailedPrecondition(f"line {line}: {{{{}}}} is empty")
    return tuple(tokens)


class _Parser:
    """Turns the flat list of parts into a tree of blocks."""

    def __init__(self, parts: list[_Text | _Action]) -> None:
        self._parts = iter(parts)

    def block(self, variables: tuple[str, ...], depth: int = 0) -> tuple[tuple[_Node, ...], _Action | None]:
        """Parse up to the `end` or `else` that closes this block; None at the end of the template."""
        nodes: list[_Node] = []
        for part in self._parts:
            if isinstance(part, _Text):
                nodes.append(part)
                continue
            if depth > _DEEPEST:
                raise FailedPrecondition(f"line {part.line}: nested too deeply")
            keyword, rest = part.tokens[0], part.tokens[1:]
            if keyword in ("end", "else"):
                return tuple(nodes), part
            if keyword == "if":
                nodes.append(self._if(rest, part, variables, depth))
            elif keyword == "range":
                nodes.append(self._range(rest, part, variables, depth))
            else:
                nodes.append(_Print(_expression(part.tokens, part.line, variables)))
        return tuple(nodes), None

    def _if(self, rest: tuple[str, ...], opened: _Action, variables: tuple[str, ...], depth: int) -> _If:
        condition = _expression(rest, opened.line, variables)
        then, closing = self._closed_block(opened, variables, depth)
        if closing.tokens[:2] == ("else", "if"):
            return _If(condition, then, (self._if(closing.tokens[2:], closing, variables, depth + 1),))
        return _If(condition, then, self._otherwise(closing, variables, depth))

    def _range(
        self, rest: tuple[str, ...], opened: _Action, variables: tuple[str, ...], depth: int
    ) -> _Range:
        index = item = ""
        if ":=" in rest:
            names = [name for name in rest[: rest.index(":=")] if name != ","]
            rest = rest[rest.index(":=") + 1 :]
            if len(names) not in (1, 2) or not all(name[0] == "$" and len(name) > 1 for name in names):
                raise FailedPrecondition(f"line {opened.line}: write range $index, $item := LIST")
            index, item = (names[0], names[1]) if len(names) == 2 else ("", names[0])
        items = _expression(rest, opened.line, variables)
        body, closing = self._closed_block(opened, (*variables, index, item), depth)
        return _Range(index, item, items, body, self._otherwise(closing, variables, depth))

    def _closed_block(
        self, opened: _Action, variables: tuple[str, ...], depth: int
    ) -> tuple[tuple[_Node, ...], _Action]:
        nodes, closing = self.block(variables, depth + 1)
        if closing is None:
            raise FailedPrecondition(
                f"line {opened.line}: {{{{{opened.tokens[0]} ...}}}} without {{{{end}}}}"
            )
        return nodes, closing

    def _otherwise(self, closing: _Action, variables: tuple[str, ...], depth: int) -> tuple[_Node, ...]:
        if closing.tokens == ("end",):
            return ()
        if closing.tokens != ("else",):
            raise FailedPrecondition(f"line {closing.line}: cannot read {' '.join(closing.tokens)!r}")
        nodes, end = self._closed_block(closing, variables, depth)
        if end.tokens != ("end",):
            raise FailedPrecondition(f"line {end.line}: {{{{else}}}} must be followed by {{{{end}}}}")
        return nodes


def _expression(tokens: tuple[str, ...], line: int, variables: tuple[str, ...]) -> _Expression:
    expression, rest = _call(tokens, line, variables, 0)
    if rest:
        raise FailedPrecondition(f"line {line}: cannot read {' '.join(rest)!r}")
    return expression


def _call(
    tokens: tuple[str, ...], line: int, variables: tuple[str, ...], depth: int
) -> tuple[_Expression, tuple[str, ...]]:
    """Parse a function with its operands, or a single operand."""
    if depth > _DEEPEST:
        raise FailedPrecondition(f"line {line}: nested too deeply")
    if not tokens:
        raise FailedPrecondition(f"line {line}: a value is missing")
    if tokens[0] not in _FUNCTIONS:
        return _operand(tokens, line, variables, depth)
    count, function = _FUNCTIONS[tokens[0]]
    name, rest = tokens[0], tokens[1:]
    operands: list[_Expression] = []
    for _ in range(count):
        operand, rest = _operand(rest, line, variables, depth)
        operands.append(operand)

    def evaluate(scope: _Scope) -> Value:
        try:
            return function(*(operand(scope) for operand in operands))
        except (TypeError, IndexError, KeyError):
            raise FailedPrecondition(f"line {line}: {name} cannot be applied to these values") from None

    return evaluate, rest


def _operand(
    tokens: tuple[str, ...], line: int, variables: tuple[str, ...], depth: int
) -> tuple[_Expression, tuple[str, ...]]:
    if not tokens:
        raise FailedPrecondition(f"line {line}: a value is missing")
    token, rest = tokens[0], tokens[1:]
    if token == "(":
        inner, rest = _call(rest, line, variables, depth + 1)
        if rest[:1] != (")",):
            raise FailedPrecondition(f"line {line}: ( without )")
        return inner, rest[1:]
    if token[0] == '"':
        return _constant(_unquote(token, line)), rest
    if token.lstrip("-").isdigit():
        return _constant(int(token)), rest
    if token == "$" and rest and rest[0][0] == "." and len(rest[0]) > 1:
        return _field("$", rest[0][1:], line), rest[1:]
    if token[0] == "." and len(token) > 1:
        return _field(".", token[1:], line), rest
    if token == "." or (token[0] == "$" and token in variables):
        return _variable(token, line), rest
    raise FailedPrecondition(f"line {line}: {token!r} is not known here")


def _constant(value: Value) -> _Expression:
    return lambda scope: value


def _unquote(token: str, line: int) -> str:
    try:
        value = json.loads(token)
    except ValueError:
        raise FailedPrecondition(f"line {line}: {token} is not a string") from None
    return str(value)


def _field(of: str, name: str, line: int) -> _Expression:
    def evaluate(scope: _Scope) -> Value:
        target = scope[of]
        if not isinstance(target, Mapping) or name not in target:
            known = ", ".join(f".{key}" for key in target) if isinstance(target, Mapping) else "nothing"
            raise FailedPrecondition(f"line {line}: .{name} is not known here; known: {known}")
        return target[name]

    return evaluate


def _variable(name: str, line: int) -> _Expression:
    def evaluate(scope: _Scope) -> Value:
        value = scope[name]
        if isinstance(value, Mapping):
            raise FailedPrecondition(f"line {line}: {name} is no single value here")
        return value

    return evaluate


def _index(items: Value, position: Value) -> Value:
    if not isinstance(items, tuple) or not isinstance(position, int) or position < 0:
        raise TypeError
    return items[position]


def _len(items: Value) -> Value:
    if isinstance(items, int):
        raise TypeError
    return len(items)


_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Value]]] = {
    "index": (2, _index),
    "len": (1, _len),
    "eq": (2, lambda left, right: left == right),
    "ne": (2, lambda left, right: left != right),
    "not": (1, lambda value: not value),
    "and": (2, lambda left, right: left and right),
    "or": (2, lambda left, right: left or right),
}


def _write(nodes: tuple[_Node, ...], scope: _Scope) -> list[str]:
    written: list[str] = []
    for node in nodes:
        if isinstance(node, _Text):
            written.append(node.text)
        elif isinstance(node, _Print):
            written.append(_show(node.expression(scope)))
        elif isinstance(node, _If):
            written += _write(node.then if node.condition(scope) else node.otherwise, scope)
        else:
            written += _write_range(node, scope)
    return written


def _write_range(node: _Range, scope: _Scope) -> list[str]:
    items = node.items(scope)
    if not isinstance(items, tuple):
        raise FailedPrecondition(f"range needs a list, not {items!r}")
    if not items:
        return _write(node.otherwise, scope)
    written: list[str] = []
    for index, item in enumerate(items):
        written += _write(node.body, {**scope, ".": item, node.index: index, node.item: item})
    return written


def _show(value: Value) -> str:
    # As Go prints them; a list is of no use in JSON, but at least visible.
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{' '.join(value)}]"
    return str(value)
