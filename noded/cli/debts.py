"""`noded debts`: teardowns that failed and are retried until they succeed or are forgiven."""

from __future__ import annotations

import argparse
import time

from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.node import Debts, Forgiven
from noded.cli.quantities import age
from noded.cli.table import print_json, print_table
from noded.proto.noded.admin import v1 as admin


def list_debts(arguments: argparse.Namespace) -> int:
    """Print what is owed, oldest first."""
    debts = wait_for(_list(arguments)).debts
    if arguments.json:
        listed: Debts = [
            {
                "id": debt.id,
                "kind": debt.kind,
                "subject": debt.subject,
                "since_ns": debt.since_ns,
                "tries": debt.tries,
                "last_error": debt.last_error,
                "next_try_ns": debt.next_try_ns,
            }
            for debt in debts
        ]
        print_json(listed)
        return 0
    now_ns = time.time_ns()
    print_table(
        ("ID", "KIND", "SUBJECT", "SINCE", "TRIES", "NEXT TRY", "LAST ERROR"),
        [
            (
                debt.id,
                debt.kind,
                debt.subject,
                age(debt.since_ns, now_ns),
                str(debt.tries),
                _in(debt.next_try_ns, now_ns),
                debt.last_error,
            )
            for debt in debts
        ],
    )
    return 0


def _in(next_try_ns: int, now_ns: int) -> str:
    """How long until then."""
    seconds = (next_try_ns - now_ns) / 1e9
    return f"in {seconds:.0f} s" if seconds > 0 else "now"


async def _list(arguments: argparse.Namespace) -> admin.ListDebtsResponse:
    timeout = query_seconds(arguments.timeout)
    async with Daemon(arguments.address) as daemon:
        return await daemon.admin("ListDebts", admin.ListDebtsRequest(), admin.ListDebtsResponse, timeout)


def forgive(arguments: argparse.Namespace) -> int:
    """Make the daemon give up one teardown."""
    debt_id = wait_for(_forgive(arguments)).id
    if arguments.json:
        forgiven: Forgiven = {"id": debt_id}
        print_json(forgiven)
    else:
        print(f"forgiven: {debt_id}; what it would have removed is still on this node")
    return 0


async def _forgive(arguments: argparse.Namespace) -> admin.ForgiveDebtResponse:
    timeout = query_seconds(arguments.timeout)
    async with Daemon(arguments.address) as daemon:
        request = admin.ForgiveDebtRequest(id=arguments.id)
        return await daemon.admin("ForgiveDebt", request, admin.ForgiveDebtResponse, timeout)
