"""OCI hooks that the node's administrator configures in directories (oci-hooks(5), version 1.0.0)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noded.errors import InvalidArgument
from noded.spec.cdi.edits import Hook, merged_hooks
from noded.wire.descriptor import as_list, as_object, as_text, as_text_list

STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

_VERSION = "1.0.0"
_MOST_SECONDS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class When:
    """Which containers get the hook: those that meet every condition that is there.

    Args:
        always: False = none at all.
        annotations: pairs of patterns; each must find a key whose value it finds too.
        commands: patterns; one of them must find the program that the container runs.
        has_bind_mounts: True = the client asked for mounts; False = none at all (as peers read it).
    """

    always: bool | None = None
    annotations: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = ()
    commands: tuple[re.Pattern[str], ...] = ()
    has_bind_mounts: bool | None = None

    def matches(self, command: str, annotations: Mapping[str, str], *, has_mounts: bool) -> bool:
        """Whether a container meets all conditions; a hook without any is for nobody."""
        if self.always is False:
            return False
        if self.has_bind_mounts is not None and not (self.has_bind_mounts and has_mounts):
            return False
        for key, value in self.annotations:
            if not any(key.search(name) and value.search(text) for name, text in annotations.items()):
                return False
        if self.commands and not any(pattern.search(command) for pattern in self.commands):
            return False
        return bool(self.always or self.has_bind_mounts or self.annotations or self.commands)


@dataclass(frozen=True, slots=True)
class ConfiguredHook:
    """One file: `hooks` has the same program once for each stage."""

    hooks: tuple[Hook, ...]
    when: When


def parse_hook(text: str) -> ConfiguredHook:
    """Read a file's JSON.

    Raises: InvalidArgument naming the key.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"not JSON: {error}") from None
    fields = as_object(document, "the document")
    version = as_text(fields.get("version"), "version")
    if version != _VERSION:
        raise InvalidArgument(f"version {version!r} is not {_VERSION}")
    _known(fields, ("version", "hook", "when", "stages"), "the document")
    stages = as_text_list(fields.get("stages"), "stages")
    if not stages:
        raise InvalidArgument("stages: there is none")
    for stage in stages:
        if stage not in STAGES:
            raise InvalidArgument(f"stages: {stage!r} is none of {', '.join(STAGES)}")
    hook = as_object(fields.get("hook"), "hook")
    return ConfiguredHook(
        hooks=tuple(_hook(hook, stage) for stage in dict.fromkeys(stages)),
        when=_when(as_object(fields.get("when"), "when")),
    )


def with_hooks(
    spec: Mapping[str, Any],
    files: Iterable[tuple[str, int, ConfiguredHook | None]],
    annotations: Mapping[str, str],
    *,
    has_mounts: bool,
) -> Mapping[str, Any]:
    """The spec with the hooks that its container gets; the given one stays as it is.

    Args:
        files: path, rank of the directory, contents (None = could not be used). A file hides those of
            the same name in directories of lower rank, also when it could not be used: what it hides was
            meant to be replaced.
        annotations: of the request: the pod's and the container's.
        has_mounts: whether the client asked for mounts.
    """
    chosen: dict[str, tuple[int, ConfiguredHook | None]] = {}
    for path, rank, hook in files:
        name = path.rpartition("/")[2]
        if name not in chosen or chosen[name][0] <= rank:
            chosen[name] = rank, hook
    command = next(iter(spec.get("process", {}).get("args", ())), "")
    wanted = [
        hook
        for name in sorted(chosen, key=hook_order)
        if (configured := chosen[name][1]) is not None
        and configured.when.matches(command, annotations, has_mounts=has_mounts)
        for hook in configured.hooks
    ]
    if not wanted:
        return spec
    return {**spec, "hooks": merged_hooks(spec.get("hooks", {}), wanted)}


def hook_order(name: str) -> tuple[str, str]:
    """The key to sort file names by: their hooks run in that order."""
    return name.casefold(), name


def _hook(fields: Mapping[str, Any], stage: str) -> Hook:
    _known(fields, ("path", "args", "env", "timeout"), "hook")
    path = as_text(fields.get("path"), "hook.path")
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"hook.path: {path!r} must be an absolute path")
    timeout = fields.get("timeout")
    if timeout is not None and (type(timeout) is not int or not 0 < timeout <= _MOST_SECONDS):
        raise InvalidArgument(f"hook.timeout: {timeout!r} is not a number of seconds above 0")
    return Hook(
        stage=stage,
        path=path,
        args=as_text_list(fields.get("args"), "hook.args"),
        env=as_text_list(fields.get("env"), "hook.env"),
        timeout_seconds=timeout,
    )


def _when(fields: Mapping[str, Any]) -> When:
    _known(fields, ("always", "annotations", "commands", "hasBindMounts"), "when")
    annotations = as_object(fields.get("annotations") or {}, "when.annotations")
    commands = as_list(fields.get("commands"), "when.commands")
    return When(
        always=_flag(fields, "always"),
        annotations=tuple(
            (_pattern(key, "when.annotations"), _pattern(value, f"when.annotations.{key}"))
            for key, value in annotations.items()
        ),
        commands=tuple(_pattern(item, f"when.commands[{index}]") for index, item in enumerate(commands)),
        has_bind_mounts=_flag(fields, "hasBindMounts"),
    )


def _flag(fields: Mapping[str, Any], key: str) -> bool | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidArgument(f"when.{key} is not true or false")
    return value


def _pattern(value: Any, where: str) -> re.Pattern[str]:
    text = as_text(value, where)
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidArgument(f"{where}: {text!r} is not a regular expression: {error}") from None


def _known(fields: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in fields:
        if key not in keys:
            raise InvalidArgument(f"{where}: unknown key {key!r}; there are {', '.join(keys)}")
