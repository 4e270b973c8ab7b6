"""Reads the files about images with the parsers that the daemon uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from noded.checks import facts
from noded.config import ImagesConfig
from noded.errors import NodedError
from noded.images import hosts_toml, registries_conf
from noded.images.auth import parse_auth_file
from noded.images.trust.checker import DEFAULT_POLICY
from noded.wire.policy import parse_policy


def look(config: ImagesConfig) -> facts.Documents:
    """What is wrong with each file; a file that may be missing and is missing is right."""
    problem = ""
    ignored: tuple[str, ...] = ()
    try:
        ignored = registries_conf.load(config.registries_conf).ignored
    except NodedError as error:
        problem = str(error)
    policy, policy_problem = _policies(config)
    auth, auth_problem = _logins(config)
    return facts.Documents(
        registries_path=str(config.registries_conf),
        registries_problem=problem,
        registries_ignored=tuple(ignored),
        hosts_problems=tuple(_hosts(config.config_path)) if config.config_path else (),
        policy_path=policy,
        policy_problem=policy_problem,
        auth_path=auth,
        auth_problem=auth_problem,
    )


def _policies(config: ImagesConfig) -> tuple[str, str]:
    """The first policy that is wrong, with its problem; else the one for all pods, "" when there is none."""
    main = config.signature_policy or DEFAULT_POLICY
    named = sorted(config.signature_policy_dir.glob("*.json")) if config.signature_policy_dir else []
    for path in (main, *named):
        if problem := _read(path, parse_policy, required=config.signature_policy == path):
            return str(path), problem
    return (str(main) if main.exists() else ""), ""


def _logins(config: ImagesConfig) -> tuple[str, str]:
    """The first file of credentials that is wrong, with its problem; else the one for all pods."""
    main = [config.auth_file] if config.auth_file else []
    for path in (*main, *(sorted(config.auth_dir.glob("*.json")) if config.auth_dir else ())):
        if problem := _read(path, partial(parse_auth_file, source=str(path)), required=path in main):
            return str(path), problem
    return str(config.auth_file or ""), ""


def _hosts(directory: Path) -> list[str]:
    return [
        problem
        for path in sorted(directory.glob("*/hosts.toml"))
        if (problem := _read(path, partial(hosts_toml.parse, directory=path.parent)))
    ]


def _read(path: Path, parse: Callable[[bytes], Any], *, required: bool = False) -> str:
    try:
        parse(path.read_bytes())
    except FileNotFoundError:
        return f"{path} does not exist" if required else ""
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except NodedError as error:
        text = str(error)
        return text if str(path) in text else f"{path}: {text}"
    return ""
