"""`noded seccomp record`: a profile of what a workload really calls.

A filter cannot be changed once a container runs. So a container is recorded from its start: because its
pod has the annotation `seccomp-record.noded.io`, or from its next start after this command was given.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.pods import SeccompRecorded
from noded.cli.table import print_json
from noded.errors import InvalidArgument
from noded.host import files
from noded.proto.noded.admin import v1 as admin

_NOTHING_YET = 1


def record(arguments: argparse.Namespace) -> int:
    """Print the profile so far, or ask for a recording of the next start."""
    answer = wait_for(_record(arguments))
    for name in answer.waiting:
        print(
            f"container {name} is not recorded: it will be from its next start; "
            "restart it, let it do all that it does, and give this command again",
            file=sys.stderr,
        )
    if arguments.json:
        recorded: SeccompRecorded = {
            "recordings": [
                {
                    "id": one.container_id,
                    "container": one.container,
                    "attempt": one.attempt,
                    "calls": dict(sorted(one.calls.items())),
                    "profile": json.loads(one.profile),
                }
                for one in answer.recordings
            ],
            "waiting": list(answer.waiting),
        }
        print_json(recorded)
    if not answer.recordings:
        return _NOTHING_YET
    if len(answer.recordings) > 1 and (arguments.output or not arguments.json):
        names = ", ".join(sorted(one.container for one in answer.recordings))
        raise InvalidArgument(f"containers {names} are recorded: choose one with --container")
    one = answer.recordings[0]
    text = json.dumps(json.loads(one.profile), indent=2) + "\n"
    if arguments.output:
        files.publish(Path(arguments.output).absolute(), text.encode(), 0o644, durable=True)
        print(
            f"{arguments.output}: {len(one.calls)} calls of container {one.container}, attempt {one.attempt}",
            file=sys.stderr,
        )
    elif not arguments.json:
        print(text, end="")
    return 0


async def _record(arguments: argparse.Namespace) -> admin.RecordSeccompResponse:
    timeout = query_seconds(arguments.timeout)
    async with Daemon(arguments.address) as daemon:
        request = admin.RecordSeccompRequest(pod=arguments.pod, container=arguments.container, wish=True)
        return await daemon.admin("RecordSeccomp", request, admin.RecordSeccompResponse, timeout)
