"""wipe and support-bundle against a real daemon, up and down."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from noded import settings
from tests.docs.test_command_line import REPOSITORY, container, image, loaded, noded
from tests.support.processes import read_until

__all__ = ["container", "image", "loaded"]  # fixtures
pytestmark = pytest.mark.root


def run(*arguments: str, input_: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "noded", *arguments],
        cwd=REPOSITORY, input=input_, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_wipe_asks_first_and_then_removes_everything(daemon, container):
    asked = run("wipe", "--config", str(daemon.config), input_="no\n")
    assert (asked.returncode, asked.stderr) == (1, "noded: nothing was removed\n")
    assert json.loads(noded(daemon, "ps", "--json"))
    done = run("wipe", "--config", str(daemon.config), "--keep-images", input_="yes\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(noded(daemon, "pods", "--json")) == []
    assert json.loads(noded(daemon, "images", "ls", "--json"))


def test_wipe_works_while_the_daemon_is_down(daemon, container):
    daemon.stop()
    done = run("wipe", "--config", str(daemon.config), "--force")
    assert done.returncode == 0, done.stderr
    daemon.start()
    assert json.loads(noded(daemon, "pods", "--json")) == []
    assert json.loads(noded(daemon, "images", "ls", "--json")) == []


def test_a_support_bundle_has_every_part_and_no_secret(daemon, container, tmp_path):
    path = tmp_path / "bundle.tar.gz"
    done = run("support-bundle", "-o", str(path), "--config", str(daemon.config), "--address", daemon.address)
    assert (done.returncode, done.stdout) == (0, f"{path}\n"), done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        parts = {each.name.partition("/")[2]: archive.extractfile(each).read().decode() for each in archive}
    assert json.loads(parts["check.json"])["schema"] == "noded.check/1"
    assert [each["id"] for each in json.loads(parts["containers.json"])] == [container]
    assert json.loads(parts["pods.json"])[0]["name"] == "default/shown"
    assert {"config.toml", "status.json", "images.json", "debts.json", "versions.txt", "journal.txt"} <= set(
        parts
    )
    assert "mkfifo" not in "".join(parts.values()), "commands of containers are not in it"
    again = run("support-bundle", "-o", str(path), "--config", str(daemon.config))
    assert again.returncode == 1, "an existing file is not written over"


ALONE = """
import sys
from pathlib import Path
from noded import settings
from noded.cli import alone
with alone.running(settings.load(Path(sys.argv[1]))) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_for_one_command_ends_with_it(daemon, number):
    daemon.stop()
    state = settings.load(daemon.config).state
    with subprocess.Popen(
        [sys.executable, "-c", ALONE, str(daemon.config)],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            read_until(process.stdout, process, lambda line: line.startswith("unix://"), 60.0)
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            ended = os.pidfd_open(int(child))
            try:
                os.killpg(process.pid, number)
                assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
                assert select.select([ended], [], [], 60.0)[0], "it lives on"
            finally:
                os.close(ended)
        finally:
            process.kill()
    if number != signal.SIGKILL:
        assert list(state.glob("alone-*")) == []
    done = run("wipe", "--config", str(daemon.config), "--force")
    assert done.returncode == 0, done.stderr
    assert list(state.glob("alone-*")) == [], "also what a killed one has left"
    daemon.start()
