from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
import subprocess
import sys

import pytest

from noded.errors import FailedPrecondition, InvalidArgument
from noded.host import sockets


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def test_the_socket_is_for_its_owner_and_group_only_and_accepts_at_once(tmp_path):
    path = tmp_path / "run" / "noded.sock"
    group = grp.getgrgid(os.getgid()).gr_name
    with sockets.bind(path, group), connect(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == os.getgid()
        assert [entry.name for entry in path.parent.iterdir()] == ["noded.sock"]


def test_the_socket_of_a_dead_process_is_replaced(tmp_path):
    path = tmp_path / "noded.sock"
    sockets.bind(path).close()
    assert path.exists()
    with sockets.bind(path), connect(path):
        pass


def test_a_socket_that_somebody_listens_on_stays_theirs(tmp_path):
    path = tmp_path / "noded.sock"
    with sockets.bind(path):
        with pytest.raises(FailedPrecondition, match="another process listens"):
            sockets.bind(path)
        with connect(path):
            pass


def test_a_listener_with_a_full_backlog_counts_as_listening(tmp_path):
    path = tmp_path / "noded.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with connect(path), pytest.raises(FailedPrecondition, match="another process listens"):
            sockets.bind(path)


def test_a_file_in_the_way_is_left_alone(tmp_path):
    path = tmp_path / "noded.sock"
    path.write_text("precious")
    with pytest.raises(FailedPrecondition, match="not a socket"):
        sockets.bind(path)
    assert path.read_text() == "precious"


def test_an_unknown_group_is_named(tmp_path):
    with pytest.raises(InvalidArgument, match=r"listen_group.*no-such-group"):
        sockets.bind(tmp_path / "noded.sock", "no-such-group")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_no_address_can_hold_is_refused(tmp_path):
    with pytest.raises(InvalidArgument, match="107"):
        sockets.bind(tmp_path / ("x" * 108))


def test_unlink_removes_our_dead_socket_but_not_a_successors(tmp_path):
    path = tmp_path / "noded.sock"
    sockets.bind(path).close()
    with sockets.bind(path):
        sockets.unlink(path)
        assert path.exists()
    sockets.unlink(path)
    assert not path.exists()
    sockets.unlink(path)


INHERITING = """
import os
from noded.host import sockets
found = sockets.inherited(os.environ)
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(found.fileno(), found.getsockname(), os.get_inheritable(4), left)
"""


def test_a_socket_from_systemd_is_taken_and_the_variables_are_gone(tmp_path):
    """In a program of its own, because the descriptors must start at 3 and the pid be right."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        fd = fcntl.fcntl(listener, fcntl.F_DUPFD, 10)
        shell = f'LISTEN_PID=$$ exec "$0" -c "$1" 3</dev/null 4<&{fd}'
        try:
            result = subprocess.run(
                ["bash", "-c", shell, sys.executable, INHERITING],
                env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
                pass_fds=[fd],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            os.close(fd)
        assert result.stdout.strip() == f"4 {path} False []"


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}],
)
def test_variables_for_another_process_are_ignored(environ):
    assert sockets.inherited(dict(environ)) is None


def test_an_inherited_socket_elsewhere_or_for_others_is_told(tmp_path):
    path = tmp_path / "noded.sock"
    group = grp.getgrgid(os.getgid()).gr_name
    other = next(each.gr_name for each in grp.getgrall() if each.gr_gid != os.getgid())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert sockets.difference(listener, path, group) == ""
        assert sockets.difference(listener, path, "") == ""
        assert str(tmp_path / "b.sock") in sockets.difference(listener, tmp_path / "b.sock", "")
        assert f"group {other}" in sockets.difference(listener, path, other)
        alias = tmp_path / "alias"
        alias.symlink_to(tmp_path)
        assert sockets.difference(listener, alias / "noded.sock", group) == ""
        path.unlink()
        assert "has no file" in sockets.difference(listener, path, group)
