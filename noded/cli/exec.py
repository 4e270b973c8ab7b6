"""`noded exec`: run a command in a container, over the streaming URL that CRI's Exec gives."""

from __future__ import annotations

import argparse

from noded.cli import find
from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.session import Session, exit_code, raw_terminal
from noded.proto.runtime import v1 as cri


def execute(arguments: argparse.Namespace) -> int:
    """Run the command; its exit code is the exit status."""
    with raw_terminal(arguments.tty and arguments.stdin):
        return exit_code(wait_for(_run(arguments)))


async def _run(arguments: argparse.Namespace) -> bytes:
    timeout = query_seconds(arguments.timeout)
    async with Daemon(arguments.address) as daemon:
        request = cri.ExecRequest(
            container_id=await find.container(daemon, arguments.container, timeout),
            cmd=[arguments.command_name, *arguments.arguments],
            tty=arguments.tty,
            stdin=arguments.stdin,
            stdout=True,
            stderr=not arguments.tty,  # a terminal has one output
        )
        reply = await daemon.runtime("Exec", request, cri.ExecResponse, timeout)
    return await Session(reply.url, stdin=arguments.stdin, tty=arguments.tty).run()
