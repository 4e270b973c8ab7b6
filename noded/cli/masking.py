"""Text for other eyes: without the values of keys that name a secret, and without those in URLs. Pure.

What is no secret may be masked, too: a value without quotes has no certain end.
"""

from __future__ import annotations

import re

_MASK = "***"
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END [A-Z ]*KEY-----|\Z)", re.S)
_USER = re.compile(r"(?<=://)[^/\s]+@")
_URL = re.compile(r"://[^\s\"'<>]+")
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&#]+)=[^&#]*")
_SCHEME = re.compile(r"(?i)\b(bearer|basic)([ \t]+)(?!realm=)[^\s\"',;:=][^\s\"',;]*")
# What comes before the word is of no interest, and a run of letters may be very long.
_KEY = re.compile(
    r"""(?ix)
    (?P<word> passw(?:or)?d | passwd | secret | token | auth | bearer | basic | passphrase | credential
      | api[_-]?key | private[_-]?key )
    [\w.-]{0,100}+
    (?: (?P<quoted> \\*+["'] )? (?P<separator> [ \t]*+[=:][ \t]*+ ) | [ \t]++ (?P<flag>) )
    """
)
_FLAG = re.compile(r"(?<![\w.-])--?[\w.-]{0,100}\Z")  # of a command line: the value is the next word
_OPENING = re.compile(r"(?i)(?:b|r|br|rb|u)?(?:(\"\"\"|''')|(\\*+)([\"']))")


def masked(text: str) -> str:
    """Replace secrets by ***: values of keys such as token and password, in TOML, JSON (also inside of JSON
    strings), log lines, headers and command lines; users and values of queries in URLs; private keys."""
    text = _PRIVATE_KEY.sub(rf"\1{_MASK}\2", text)
    text = _USER.sub(f"{_MASK}@", text)
    text = _URL.sub(lambda url: _QUERY_VALUE.sub(rf"\1={_MASK}", url[0]), text)
    text = _SCHEME.sub(rf"\1\2{_MASK}", text)
    done: list[str] = []
    at = 0
    while (key := _KEY.search(text, at)) is not None:
        if key["flag"] is not None and not _FLAG.search(text, max(0, key.start() - 102), key.start()):
            done.append(text[at : key.end("word")])
            at = key.end("word")
            continue
        start, end = _value(text, key)
        done.append(text[at:start] + (_MASK if end > start else ""))
        at = end
    return "".join([*done, text[at:]])


def _value(text: str, key: re.Match[str]) -> tuple[int, int]:
    """Where the value of a key begins and ends, without its quotes; up to the line's end in doubt."""
    start = key.end()
    line_end = text.find("\n", start)
    line_end = len(text) if line_end < 0 else line_end
    opening = _OPENING.match(text, start, line_end)
    if opening is not None and opening[1]:
        end = text.find(opening[1], opening.end())
        return opening.end(), len(text) if end < 0 else end
    if opening is not None:
        # Inside of a JSON string the quotes are escaped; those of the value itself are so once more.
        closing = re.compile(rf"(?<!\\){re.escape(opening[2])}{opening[3]}").search(
            text, opening.end(), line_end
        )
        return opening.end(), line_end if closing is None else closing.start()
    if text[start : start + 1] in ("{", "["):
        return start, line_end
    separator = key["separator"] or "="
    if key["quoted"]:
        limits = r"[\s,}\]]"
    elif separator not in ("=", ":") or text[key.start() :].lower().startswith("authorization"):
        return start, line_end
    else:
        limits = r"\s"
    limit = re.compile(limits).search(text, start, line_end)
    return start, line_end if limit is None else limit.start()
