"""noded's own handlers, for the suite that third parties run, too."""

from __future__ import annotations

import pytest

from noded.testing import Ability, HandlerCase
from noded.testing.fixtures import node, pod

__all__ = ["handler", "node", "pod"]

GVISOR_LACKS = frozenset({Ability.CONTAINER_LIMITS, Ability.UPDATE})

CASES = [
    HandlerCase("runc", 'type = "runc"'),
    HandlerCase("crun", 'type = "crun"'),
    HandlerCase("runsc", 'type = "runsc"\nplatform = "ptrace"\nnetwork = "host"', GVISOR_LACKS),
    # gVisor's own network stack and a writable layer in memory.
    HandlerCase(
        "gvisor",
        'type = "runsc"\nplatform = "ptrace"\nnetwork = "sandbox"\noverlay = "root:memory"',
        GVISOR_LACKS | {Ability.LOOPBACK_FORWARD},
    ),
    HandlerCase(
        "shim",
        'type = "shim"\nruntime_type = "io.containerd.runc.v2"',
        monitor="containerd-shim",
        monitor_of_pod=True,
    ),
]


@pytest.fixture(scope="session", params=CASES, ids=str)
def handler(request: pytest.FixtureRequest) -> HandlerCase:
    """Each handler in turn."""
    case: HandlerCase = request.param
    return case
