"""`noded plugins check HANDLER`: the acceptance suite over one handler of the configuration.

It runs in a noded of its own, apart from the node's, and needs root, pytest and a static busybox.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from noded import logs, settings
from noded.cli import program
from noded.cli.plugins_describe import look
from noded.errors import FailedPrecondition, NotFound, PermissionDenied


def check(arguments: argparse.Namespace) -> int:
    """Run the suite; exits 0 when every test passed.

    Raises: NotFound for an unknown handler, FailedPrecondition for one that is unavailable.
    """
    logs.setup("error", "console")
    config = settings.load(Path(arguments.config))
    if arguments.name not in [handler.name for handler in config.runtimes]:
        known = ", ".join(sorted(handler.name for handler in config.runtimes))
        raise NotFound(f"no handler {arguments.name!r} in {arguments.config}; handlers: {known}")
    if importlib.util.find_spec("pytest") is None:
        # noded's packages run without the system's modules (python3 -S).
        target = "--target /usr/local/lib/noded " if sys.flags.no_site else ""
        raise FailedPrecondition(f"the acceptance suite needs pytest: pip install {target}pytest")
    if os.geteuid() != 0:
        raise PermissionDenied("the acceptance suite makes pods: run it as root")
    found = next(handler for handler in look(config).handlers if handler.name == arguments.name)
    if found.features is None:
        raise FailedPrecondition(f"handler {found.name!r} is unavailable: {found.unavailable}")
    lacks = []
    if not found.features.update:
        lacks.append("update")
    if found.features.needs_infra:
        lacks.append("container_limits")
    argv = [
        *program.command("pytest"), "-p", "noded.testing.plugin", "-p", "no:cacheprovider",
        "--rootdir", os.path.dirname(os.path.abspath(__file__)), "-c", os.devnull,
        "--noded-handler", found.name, "--noded-config", arguments.config,
        *(word for name in lacks for word in ("--noded-lacks", name)),
        "--pyargs", "noded.testing.acceptance",
    ]  # fmt: skip
    if arguments.tests:
        argv += ["-k", arguments.tests]
    return subprocess.run([*argv, "-v"], check=False).returncode
