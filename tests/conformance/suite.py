"""critest against a real daemon: images under the names it wants, one run, its report as values.

The images are built from the host's busybox; noded finds them because its mirrors for the public
registries' names point to the test's own registry, as an air-gapped cluster is set up.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import images
from tests.support.daemon import NodedDaemon
from tests.support.images import Entry, Image
from tests.support.registry import Registry

HOSTS = ("registry.k8s.io", "k8s.gcr.io", "gcr.io")
_TOOLS = "k8s-staging-cri-tools"


@dataclass(frozen=True)
class Spec:
    """One spec of the suite and how it went: passed, failed or skipped."""

    name: str
    status: str
    message: str


_NGINX = b"""#!/bin/sh
# Looks to its observers like nginx: its name, its pid file, its "master process" argument.
mkdir -p /var/run
echo $$ >/var/run/nginx.pid
httpd -f -v -p "${PORT:-80}" -h /www &
trap 'kill %1; exit 0' TERM QUIT
wait
"""

_SETUID_PROGRAM = """
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\\n", (int) geteuid()); return 0; }
"""


def busybox_without_ls() -> bytes:
    """A layer with a busybox that knows no `ls`.

    Debian's is built so that its shell runs its own applets whatever stands, or is masked, in PATH;
    the one that the suite was written for is not. The spec of masked paths runs `ls` in the shell.
    """
    program = images.busybox().read_bytes()
    table = re.compile(rb"(?<=\0losetup\0)ls(?=\0)")  # names of applets, sorted, each with its end
    assert len(table.findall(program)) == 1, "another list of applets than Debian's busybox has"
    return images.tar([Entry("bin/", mode=0o755), Entry("bin/busybox", table.sub(b"lr", program), 0o755)])


def host_programs(*names: str) -> bytes:
    """A layer with programs of the host and their libraries."""
    contents: dict[str, bytes] = {}
    for name in names:
        found = shutil.which(name)
        assert found is not None, f"{name} is not installed on this host"
        contents[f"bin/{name}"] = Path(found).read_bytes()
        listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for word in listed.split():
            if word.startswith("/"):
                contents[word.lstrip("/")] = Path(word).read_bytes()
    directories = {
        f"{parent}/" for path in contents for parent in map(str, Path(path).parents) if parent != "."
    }
    return images.tar(
        [
            *(Entry(name, mode=0o755) for name in sorted(directories)),
            *(Entry(path, content, 0o755) for path, content in sorted(contents.items())),
        ]
    )


def setuid_program(directory: Path) -> bytes:
    """A layer with /nnp, a setuid program that prints its effective uid; needs a C compiler."""
    source, program = directory / "nnp.c", directory / "nnp"
    source.write_text(_SETUID_PROGRAM)
    subprocess.run(["cc", "-static", "-o", program, source], check=True)
    return images.tar([Entry("nnp", program.read_bytes(), 0o4755)])


def push_all(registry: Registry, directory: Path) -> None:
    """Push every image that the suite names; `directory` is for scratch files."""
    base = images.busybox_layer()
    ls_free = busybox_without_ls()
    tools = host_programs("ls", "pgrep", "ipcs")
    nginx = images.tar(
        [Entry("usr/", mode=0o755), Entry("usr/sbin/", mode=0o755), Entry("usr/sbin/nginx", _NGINX, 0o755)]
    )

    def busybox(label: str, **options: object) -> Image:
        # A label makes each a different image, as they are in the public registries.
        return images.build([base, ls_free, tools], labels={"image": label}, **options)

    def web(label: str, port: int) -> Image:
        return images.build(
            [base, tools, nginx],
            labels={"image": label},
            cmd=["/usr/sbin/nginx", "master process"],
            env=["PATH=/bin:/sbin:/usr/bin:/usr/sbin", f"PORT={port}"],
        )

    registry.push(busybox("busybox"), "e2e-test-images/busybox", "1.29-2")
    registry.push(web("nginx", 80), "e2e-test-images/nginx", "1.14-2")
    said = 'echo "httpd is ready" >&2; exec httpd -f -v -p 80 -h /www'
    httpd = busybox("httpd", cmd=["sh", "-c", said])
    registry.push(httpd, "e2e-test-images/httpd", "2.4.39-4")
    registry.push(busybox("pause", cmd=["sleep", "1000000"]), "pause", "3.9")
    registry.push(web("hostnet-nginx", 12003), f"{_TOOLS}/hostnet-nginx-amd64", "latest")
    registry.push(busybox("latest"), f"{_TOOLS}/test-image-latest", "latest")
    tagged = busybox("tag")
    registry.push(tagged, f"{_TOOLS}/test-image-tag", "test", "all")
    registry.push(busybox("digest"), f"{_TOOLS}/test-image-digest", "test")
    for number in (1, 2, 3):
        registry.push(busybox(f"test-{number}"), f"{_TOOLS}/test-image-{number}", "latest")
    registry.push(busybox("tags"), f"{_TOOLS}/test-image-tags", "1", "2", "3")
    for name, user in (
        ("uid", "1002"),
        ("username", "www-data"),
        ("uid-group", "1003:1004"),
        ("username-group", "www-data:100"),
    ):
        registry.push(busybox(name, user=user), f"{_TOOLS}/test-image-user-{name}", "latest")
    passwd = b"root:x:0:0::/root:/bin/sh\ndefault-user:x:1000:1000::/home:/bin/sh\n"
    group = b"root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
    members = images.tar([Entry("etc/passwd", passwd), Entry("etc/group", group)])
    grouped = images.build([base, tools, members], user="1000", labels={"image": "groups"})
    registry.push(grouped, f"{_TOOLS}/test-image-predefined-group", "latest")
    setuid = images.build([base, setuid_program(directory)], cmd=["/nnp"])
    registry.push(setuid, "e2e-test-images/nonewprivs", "1.3")


def run(
    critest: str, daemon: NodedDaemon, directory: Path, *, seed: int, arguments: Sequence[str] = ()
) -> list[Spec]:
    """Run the validation specs once, with no retries; every spec of the report."""
    report = directory / "critest.xml"
    options = subprocess.run([critest, "-help"], capture_output=True, text=True, check=False, timeout=60)
    if "-nri-socket" in options.stdout + options.stderr:  # since v1.37; earlier ones have no specs of NRI
        arguments = [*arguments, f"-nri-socket={daemon.nri_socket}"]
    command = [
        critest,
        f"-runtime-endpoint={daemon.address}",
        f"-image-endpoint={daemon.address}",
        f"-ginkgo.junit-report={report}",
        f"-ginkgo.seed={seed}",
        "-ginkgo.flake-attempts=0",
        "-ginkgo.no-color",
        *arguments,
    ]
    with (directory / "critest.log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=log, check=False, timeout=1700, cwd=directory)
    assert report.exists(), (directory / "critest.log").read_text(errors="replace")[-4000:]
    return [_spec(case) for case in ET.parse(report).getroot().iter("testcase")]


def _spec(case: ET.Element) -> Spec:
    for kind in ("failure", "error"):
        found = case.find(kind)
        if found is not None:
            return Spec(case.get("name", ""), "failed", (found.get("message") or found.text or "").strip())
    skipped = case.find("skipped")
    if skipped is not None:
        return Spec(case.get("name", ""), "skipped", skipped.get("message") or "")
    return Spec(case.get("name", ""), "passed", "")
