from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import trio

from noded.network.orphans import OWNER, end_orphans

SLEEP = ["sleep", "1000"]


def start(*command, owner, **options):
    return subprocess.Popen(command, env={**os.environ, OWNER: owner}, start_new_session=True, **options)


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def test_running_plugins_of_an_earlier_daemon_are_ended_with_their_children(tmp_path):
    mine, other = str(tmp_path / "mine"), str(tmp_path / "mine-too")
    plugin = start("sh", "-c", "sleep 1000 & echo $!; wait", owner=mine, stdout=subprocess.PIPE)
    foreign = start(*SLEEP, owner=other)
    try:
        child = int(plugin.stdout.readline())
        trio.run(end_orphans, mine)
        assert plugin.wait(timeout=10) == -9
        assert state(child) in ("gone", "Z")
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()
        plugin.kill()
        plugin.wait()
        plugin.stdout.close()


def test_what_a_plugin_left_behind_on_purpose_is_spared(tmp_path):
    plugin = start("sh", "-c", "sleep 1000 >/dev/null & echo $!", owner=str(tmp_path), stdout=subprocess.PIPE)
    child = int(plugin.communicate()[0])
    try:
        trio.run(end_orphans, str(tmp_path))
        os.kill(child, 0)
    finally:
        os.kill(child, 9)


def test_children_that_a_plugin_leaves_do_not_stay_as_zombies(tmp_path):
    """noded is a child subreaper, so nobody else would collect them."""
    (tmp_path / "plugin").write_text("#!/bin/sh\nsleep 1000 >/dev/null 2>&1 & echo $!\n")
    (tmp_path / "quick").write_text("#!/bin/sh\n")
    for name in ("plugin", "quick"):
        (tmp_path / name).chmod(0o755)
    script = f"""
        import os, pathlib, trio
        from noded.host.processes import become_subreaper, open_pidfd, wait_pidfd
        from noded.network.plugin import Budget, Invocation, Plugins

        async def main():
            become_subreaper()
            plugins = Plugins((pathlib.Path({str(tmp_path)!r}),), "test")
            answer = await plugins.call("plugin", Invocation("ADD", "n"), {{}}, Budget(20))
            child = int(answer.stdout)
            pidfd = open_pidfd(child)
            os.kill(child, 9)
            await wait_pidfd(pidfd)
            assert os.path.exists(f"/proc/{{child}}")
            await plugins.call("quick", Invocation("ADD", "n"), {{}}, Budget(20))
            assert not os.path.exists(f"/proc/{{child}}")

        trio.run(main)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
