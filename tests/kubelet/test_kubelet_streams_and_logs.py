"""The URLs of streams that kubelet proxies to, and the logs that it rotates."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest

pytestmark = pytest.mark.root

LINE = re.compile(
    rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(Z|[+-]\d\d:\d\d) (stdout|stderr) [PF](:[^ ]*)? [^\n]*\n"
)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("Exec", "v4.channel.k8s.io"),
        ("Attach", "v4.channel.k8s.io"),
        ("PortForward", "portforward.k8s.io"),
    ],
)
def test_a_stream_has_an_absolute_url_on_loopback_that_takes_the_protocol_of_kubelet(
    kubelet, standing, name, protocol
):
    mine = standing
    container, sandbox = kubelet.newest(mine).id, kubelet.pod_status(mine.uid)[0][0].id
    fields = {
        "Exec": {"container_id": container, "cmd": ["true"], "stdout": True, "stderr": True},
        "Attach": {"container_id": container, "stdout": True, "stderr": True},
        "PortForward": {"pod_sandbox_id": sandbox, "port": [80]},
    }[name]
    url = urlsplit(kubelet.call(name, **fields).url)
    assert (url.scheme, url.hostname) == ("http", "127.0.0.1")
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        request = (
            f"POST {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: Upgrade\r\n"
            f"Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n"
            "X-Stream-Protocol-Version: v3.channel.k8s.io\r\n\r\n"
        )
        connection.sendall(request.encode())
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert f"X-Stream-Protocol-Version: {protocol}".lower() in answer.decode().lower()


def test_every_line_of_a_log_has_the_form_that_kubelet_parses(kubelet, pod, cri):
    words = "echo one; echo two >&2; printf unfinished; head -c 40000 /dev/zero | tr '\\0' x; echo"
    mine = pod("sh", "-c", words, restart=False)
    kubelet.sync(mine)
    status = cri.wait_exited(kubelet.newest(mine).id)
    content = Path(status.log_path).read_bytes()
    lines = content.splitlines(keepends=True)
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert any(b" stdout P " in line for line in lines)
    assert sum(line.count(b"x") for line in lines) >= 40000


def test_a_rotated_log_goes_on_in_a_new_file_and_no_line_is_lost(kubelet, pod, cri):
    mine = pod("sh", "-c", "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i + 1)); done", restart=False)
    kubelet.sync(mine)
    container = kubelet.newest(mine)
    log = Path(container.log_path)
    parts = []
    for number in range(3):
        try:
            parts.append(kubelet.rotate(container.id, f"20260101-00000{number}"))
        except grpc.RpcError:
            break  # it has ended meanwhile: renamed back
    cri.wait_exited(container.id)
    written = b"".join(path.read_bytes() for path in (*parts, log)).splitlines(keepends=True)
    assert [line for line in written if not LINE.fullmatch(line)] == []
    fields = [line.rstrip(b"\n").split(b" ", 3) for line in written]
    text = b"".join(rest + (b"\n" if tag == b"F" else b"") for _, _, tag, rest in fields)
    assert text == b"".join(b"line %d\n" % number for number in range(1000))


def test_a_log_that_is_missing_is_made_again(kubelet, standing):
    mine = standing
    container = kubelet.newest(mine)
    Path(container.log_path).unlink()
    kubelet.call("ReopenContainerLog", container_id=container.id)
    assert Path(container.log_path).exists()


def test_the_log_of_a_dead_container_is_not_made_by_a_refused_reopening(kubelet, pod, cri):
    mine = pod("true", restart=False)
    kubelet.sync(mine)
    status = cri.wait_exited(kubelet.newest(mine).id)
    with pytest.raises(grpc.RpcError):
        kubelet.rotate(status.id, "20260101-000000")
    # kubelet has renamed it back; the runtime made none beside it
    assert [path.name for path in Path(status.log_path).parent.iterdir()] == ["0.log"]


def test_logs_are_left_to_kubelet_when_a_container_is_removed(kubelet, pod, cri):
    mine = pod("echo", "kept", restart=False)
    kubelet.sync(mine)
    status = cri.wait_exited(kubelet.newest(mine).id)
    cri.remove(status.id)
    assert b"kept" in Path(status.log_path).read_bytes()
