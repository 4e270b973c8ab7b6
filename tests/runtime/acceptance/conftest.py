"""noded's own handlers, for the suite that third parties run, too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from noded.testing import Ability, HandlerCase
from noded.testing.fixtures import node, pod
from tests.support.runsc import forwards, named_runsc, own_root

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


_GVISOR = next(case for case in CASES if case.name == "gvisor")
# $NODED_TEST_RUNSC is tested beside the one in PATH.
NAMED = [
    replace(_GVISOR, name="named-runsc", toml=f'{_GVISOR.toml}\npath = "{path}"')
    for path in (named_runsc(),)
    if path is not None
]


@pytest.fixture(scope="session", params=CASES + NAMED, ids=str)
def handler(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HandlerCase]:
    """Each handler in turn."""
    case: HandlerCase = request.param
    program = named_runsc() if case in NAMED else shutil.which("runsc")
    # The document says what Debian 12's release cannot do.
    if Ability.LOOPBACK_FORWARD in case.lacks and forwards(program):
        case = replace(case, lacks=case.lacks - {Ability.LOOPBACK_FORWARD})
    if request.param in NAMED:
        with own_root(tmp_path_factory.mktemp("runsc") / "root") as line:
            yield replace(case, toml=f"{case.toml}\n{line}")
    else:
        yield case
