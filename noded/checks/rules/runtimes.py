"""Programs that run containers, the handlers that name them, and plugins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from noded.checks.facts import Facts, Handler, Program
from noded.checks.result import Result, fail, ok, warn


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of releases of a program.

    Args:
        oldest: that noded is tested with.
        flaws: (first affected, first repaired, what is wrong) of releases that are to be avoided.
    """

    oldest: tuple[int, ...]
    flaws: tuple[tuple[tuple[int, ...], tuple[int, ...], str], ...] = ()


_KNOWN = {
    "runc": _Known(
        (1, 1),
        (
            ((0,), (1, 1, 12), "CVE-2024-21626: a container can reach the host's file system"),
            (
                (0,),
                (1, 1, 14),
                "CVE-2024-45310: a container that swaps symbolic links can make empty files and "
                "directories anywhere on the host",
            ),
            ((0,), (1, 2, 8), "CVE-2025-31133, -52565, -52881: a container can write to the host's /proc"),
            ((1, 3), (1, 3, 3), "CVE-2025-31133, -52565, -52881: a container can write to the host's /proc"),
        ),
    ),
    "crun": _Known((1, 8, 1)),
    "conmon": _Known(
        (2, 1), (((0,), (2, 1, 2), "CVE-2022-1708: output of an exec can use up the node's memory"),)
    ),
}


def judge(facts: Facts) -> Iterator[Result]:
    """Handlers, their programs' versions, conmon and init, plugins and what they find."""
    for program in facts.programs:
        yield _program(program)
    judged = set()
    for handler in facts.handlers:
        yield _handler(handler)
        if not handler.unavailable and handler.path not in judged:
            judged.add(handler.path)
            yield from _version(f"runtimes.{handler.name}.version", handler.type, handler.version)
    if not any(handler.default for handler in facts.handlers):
        yield fail(
            "runtimes.default",
            "default_runtime names no handler",
            "pods without a RuntimeClass cannot run",
            "set default_runtime in /etc/noded/noded.toml to one of: "
            + (", ".join(handler.name for handler in facts.handlers) or "(there are none)"),
        )
    for plugin in facts.plugins:
        if plugin.disabled:
            yield ok(f"plugins.{plugin.name}", f"{plugin.distribution}: disabled by the configuration")
        elif plugin.problem:
            yield fail(
                f"plugins.{plugin.name}",
                f"{plugin.distribution}: {plugin.problem}",
                "nothing of this plugin is in use",
                f"repair or uninstall {plugin.distribution}, or add it to disabled_plugins in noded.toml",
            )
        else:
            yield ok(f"plugins.{plugin.name}", plugin.distribution)
    for finding in facts.plugin_findings:
        name, found = f"plugins.{finding.distribution}", f"{finding.subject}: {finding.detail}".rstrip(": ")
        if finding.ok:
            yield ok(name, found)
        elif not finding.used:
            yield ok(name, f"{found} (no handler needs it)")
        else:
            yield warn(
                name,
                found,
                f"{finding.distribution} says so; its handlers may fail",
                f"see what it says; noded plugins describe {finding.distribution}",
            )


def _handler(handler: Handler) -> Result:
    name = f"runtimes.{handler.name}"
    if not handler.unavailable:
        return ok(name, " ".join(filter(None, (handler.type, handler.version, handler.path))))
    first = next(iter(handler.unavailable.splitlines()), "")
    cure = (
        f"install {handler.program or handler.type}, or set path in [runtimes.{handler.name}] of noded.toml; "
        f"then: noded plugins describe {handler.name}"
    )
    if handler.default:
        return fail(name, first, "it is the default handler: pods without a RuntimeClass cannot run", cure)
    return warn(name, first, f"pods whose RuntimeClass has the handler {handler.name} cannot run", cure)


def _program(program: Program) -> Result:
    name = f"runtimes.{program.name}"
    if program.path:
        flawed = list(_version(name, program.name, program.version))
        return flawed[0] if flawed else ok(name, f"{program.path} {program.version}".rstrip())
    package = program.name.rpartition("/")[2]
    if package == "catatonit":
        return warn(
            name,
            f"{program.name} is not found",
            "pods with shareProcessNamespace: true cannot run",
            "apt-get install catatonit  (or: dnf install catatonit)",
        )
    return fail(
        name,
        f"{program.name} is not found",
        "it holds the output and the exit code of every container of runc and crun",
        f"apt-get install {package}  (or: dnf install {package}), or correct {package} in noded.toml",
    )


def _version(name: str, program: str, version: str) -> Iterator[Result]:
    """The first thing that is wrong with a release, if any."""
    known = _KNOWN.get(program.rpartition("/")[2])
    match = re.match(r"\d+(?:\.\d+)*", version)
    if known is None or match is None:
        return
    numbers = tuple(int(part) for part in match[0].split("."))
    if numbers < known.oldest:
        oldest = ".".join(map(str, known.oldest))
        yield warn(
            name,
            f"{program} {version} is older than {oldest}",
            "noded is not tested with it; pods may fail in strange ways",
            f"install {program} {oldest} or newer",
        )
        return
    flaws = [(repaired, what) for first, repaired, what in known.flaws if first <= numbers < repaired]
    if flaws:
        wanted = ".".join(map(str, max(repaired for repaired, _ in flaws)))
        yield warn(
            name,
            f"{program} {version}",
            "; ".join(what for _, what in flaws),
            f"install {program} {wanted} or newer, or a build of your distribution with the repairs in it",
        )
