"""The conformance suite of the CRI, once, without retries; what it does not pass must be in the table."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import expected, suite
from tests.support import cri_tools
from tests.support.daemon import NodedDaemon
from tests.support.registry import Registry


@pytest.fixture(scope="session")
def critest() -> str:
    """Path of critest; skips, with the reason, where it is not to be had."""
    if shutil.which("cc") is None:
        pytest.skip("NO C COMPILER for the suite's setuid image: the conformance suite was not run")
    try:
        return cri_tools.find("critest")
    except cri_tools.NotHere as error:
        pytest.skip(str(error))


@pytest.fixture
def conform(critest: str, tmp_path: Path, seed: int) -> Callable[..., None]:
    """conform(handler, options={}, run=0): run the suite once on a daemon of its own.

    `run` is added to the seed, which decides about the order of the specs.
    """

    def once(handler: str, options: Mapping[str, Any] | None = None, run: int = 0) -> None:
        settings: dict[str, Any] = {"default_runtime": handler}
        if options:
            settings["runtimes"] = {handler: dict(options)}
        with Registry(tmp_path / "registry") as registry:
            suite.push_all(registry, tmp_path)
            mirrors = dict.fromkeys(suite.HOSTS, registry.host)
            with NodedDaemon(tmp_path, mirrors=mirrors, settings=settings) as daemon:
                with daemon.client() as cri:
                    cri.stop("0" * 64)  # answered once the handlers have been asked what they can do
                    status = cri.runtime.Status(cri.pb.StatusRequest(), timeout=20)
                features = {one.name: one.features for one in status.runtime_handlers}[handler]
                specs = suite.run(
                    critest,
                    daemon,
                    tmp_path,
                    seed=seed + run,
                    arguments=[f"-runtime-handler={handler}"],
                )
        outcome = Counter(spec.status for spec in specs)
        print(f"{handler}, seed {seed + run}: {dict(outcome)}")
        lines = expected.table(handler, expected.Node.look(features.user_namespaces))
        assert expected.differences(specs, lines) == []
        assert sum(outcome.values()) >= 130  # none was left out

    return once
