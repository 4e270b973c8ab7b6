"""`noded check`: what is wrong on this node, why it matters, and the command that fixes it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from noded import logs, settings
from noded.checks import facts, gather, rules
from noded.checks.result import EXIT, Result, Verdict, document, worst
from noded.cli.client import Daemon, wait_for
from noded.cli.plugins_describe import look
from noded.cli.table import print_json, printable
from noded.config import Config
from noded.errors import NodedError, NotFound
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1 as cri

_ASK_SECONDS = 5.0  # for a daemon that may hang
_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def check(arguments: argparse.Namespace) -> int:
    """Print the report. Exits 0 when all is well, 1 with warnings, 2 with failures."""
    logs.setup("error", "console")  # what would be a warning is in the report
    found = collect(Path(arguments.config), arguments.kubelet_config)
    results = rules.judge(found)
    if arguments.json:
        print_json(document(results, found.program_version))
    else:
        _print(results, everything=arguments.all)
    return EXIT[worst(results)]


def collect(path: Path, kubelet_config: str = "") -> facts.Facts:
    """All facts of this node; the defaults stand in for a configuration that cannot be read."""
    problem = ""
    try:
        config = settings.load(path)
    except NotFound as error:
        raise error from None
    except NodedError as error:
        config, problem = Config(), str(error)
    found = gather.collect(config, Path(kubelet_config) if kubelet_config else None)
    found = dataclasses.replace(found, config_problem=problem)
    return dataclasses.replace(_with_plugins(found, config), daemon=wait_for(_ask(found.daemon)))


def _with_plugins(found: facts.Facts, config: Config) -> facts.Facts:
    try:
        node = look(config)
    except NodedError as error:
        handlers = (
            facts.Handler(each.name, each.type, each.name == config.default_runtime, unavailable=str(error))
            for each in config.runtimes
        )
        return dataclasses.replace(found, handlers=tuple(handlers))
    disabled = config.disabled_plugins
    serving = {plugin.distribution for plugin in node.reports if plugin.handlers or not plugin.types}
    return dataclasses.replace(
        found,
        handlers=tuple(
            facts.Handler(
                name=handler.name,
                type=handler.type,
                default=handler.name == config.default_runtime,
                program=handler.binaries[0][0] if handler.binaries else "",
                path=handler.binaries[0][1] if handler.binaries else "",
                version=handler.features.version if handler.features else "",
                unavailable=handler.unavailable,
            )
            for handler in node.handlers
        ),
        plugins=tuple(
            facts.Plugin(
                plugin.name,
                plugin.distribution,
                plugin.problem or node.plugins.problem_of(plugin.name),
                plugin.name in disabled or plugin.distribution in disabled,
            )
            for plugin in node.reports
        ),
        plugin_findings=tuple(
            facts.PluginFinding(
                distribution, each.subject, each.ok, each.detail, used=distribution in serving
            )
            for distribution, each in node.findings
        ),
    )


async def _ask(known: facts.Daemon) -> facts.Daemon:
    """Add what the running daemon says of itself."""
    try:
        async with Daemon(f"unix://{known.listen}") as daemon:
            version = await daemon.runtime("Version", cri.VersionRequest(), cri.VersionResponse, _ASK_SECONDS)
            status = await daemon.runtime("Status", cri.StatusRequest(), cri.StatusResponse, _ASK_SECONDS)
            owed = await daemon.admin(
                "ListDebts", admin.ListDebtsRequest(), admin.ListDebtsResponse, _ASK_SECONDS
            )
    except NodedError as error:
        return dataclasses.replace(known, problem=next(iter(str(error).splitlines()), ""))
    conditions = status.status.conditions if status.status else []
    return dataclasses.replace(
        known,
        running=True,
        version=version.runtime_version,
        conditions=tuple((each.type, each.status, each.message) for each in conditions),
        debts=len(owed.debts),
    )


def _print(results: Sequence[Result], *, everything: bool) -> None:
    """What is wrong with its cure, worst last, where the eye is; what is well in one line, or --all."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    shown = [each for each in results if everything or each.verdict is not Verdict.OK]
    for result in sorted(shown, key=lambda each: EXIT[each.verdict]):
        line = Text.assemble(
            (f"{result.verdict:<5}", _STYLES[result.verdict]), f"{result.check}: {printable(result.found)}"
        )
        console.print(line)
        if result.why:
            console.print(Text(f"     why: {printable(result.why)}"))
        if result.fix:
            console.print(Text(f"     fix: {printable(result.fix)}"))
    counted = {verdict: sum(each.verdict is verdict for each in results) for verdict in Verdict}
    console.print(
        f"{counted[Verdict.OK]} ok, {counted[Verdict.WARN]} warnings, {counted[Verdict.FAIL]} failures"
    )
