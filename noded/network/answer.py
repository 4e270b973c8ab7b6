"""What a CNI plugin answered: its result, or why it refused, as an error with a cure. Pure.

Spec: 1.1.0 section 2 (exit status, stdout), section 5 "Error" and its table of codes.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noded.errors import FailedPrecondition, NodedError, Unavailable

# Error codes of the specification.
INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51

# Errors that stay until somebody changes the configuration or the plugin.
_LASTING = frozenset({INCOMPATIBLE_VERSION, UNSUPPORTED_FIELD, INVALID_CONFIG})

_CURES = {
    INCOMPATIBLE_VERSION: "install a plugin that speaks this cniVersion or change it in the configuration",
    UNSUPPORTED_FIELD: "correct the network's configuration file",
    INVALID_CONFIG: "correct the network's configuration file",
    TRY_AGAIN_LATER: "the plugin asks to be tried again later",
    NOT_AVAILABLE: "the plugin is not ready; look at its daemon on this node",
    LIMITED_CONNECTIVITY: (
        "the plugin is not ready and running pods may lose connectivity; look at its daemon on this node"
    ),
}

# Characters of a plugin's own words that fit into a message; the rest is of use only in its log.
_LONGEST_WORDS = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a finished plugin left: exit status (negative = signal) and its output."""

    returncode: int
    stdout: bytes
    stderr: bytes
    stdout_cut: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a plugin did not do what it was asked. `code` is None when it did not say."""

    code: int | None
    message: str


def refusal(answer: Answer) -> Refusal | None:
    """Return why the plugin failed, None when it succeeded."""
    if answer.returncode == 0:
        return None
    try:
        said = _json_object(answer.stdout)
    except ValueError:
        said = {}
    message, details, code = said.get("msg"), said.get("details"), said.get("code")
    if isinstance(message, str) and message:
        words = f"{message}: {details}" if isinstance(details, str) and details else message
        return Refusal(code if type(code) is int else None, _one_line(words))
    # A plugin that crashed says why on stderr, in its last words.
    words = _last_words(answer.stderr) or _last_words(answer.stdout)
    ending = _ending(answer.returncode)
    return Refusal(None, f"{ending}: {words}" if words else ending)


def result(answer: Answer) -> Mapping[str, Any]:
    """Return the result of a successful ADD.

    Raises: ValueError saying in what way the output is no result.
    """
    if answer.stdout_cut:
        raise ValueError("its result is longer than 1 MiB")
    if not answer.stdout.strip():
        raise ValueError("it printed no result")
    return _json_object(answer.stdout)


def failure(command: str, plugin: str, network: str, why: Refusal) -> NodedError:
    """Return the error for a refusal: FailedPrecondition if it lasts until changed, else Unavailable."""
    said = f"code {why.code}, {why.message}" if why.code is not None else why.message
    text = f"CNI plugin {plugin!r} failed {command} of network {network!r}: {said}"
    cure = _CURES.get(why.code) if why.code is not None else None
    kind = FailedPrecondition if why.code in _LASTING else Unavailable
    return kind(f"{text}; {cure}" if cure else text)


def spoken_versions(answer: Answer) -> frozenset[str] | None:
    """Return the versions that an answer to VERSION lists, None when it does not say."""
    try:
        versions = _json_object(answer.stdout).get("supportedVersions")
    except ValueError:
        return None
    if answer.returncode != 0 or not isinstance(versions, list):
        return None
    return frozenset(version for version in versions if isinstance(version, str))


def _json_object(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it printed no JSON ({_last_words(data)!r}: {error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"it printed JSON that is no object ({_last_words(data)!r})")
    return value


def _ending(returncode: int) -> str:
    if returncode > 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def _last_words(data: bytes) -> str:
    return _one_line(data.decode("utf-8", "replace")[-_LONGEST_WORDS:])


def _one_line(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _LONGEST_WORDS else line[:_LONGEST_WORDS] + "..."
