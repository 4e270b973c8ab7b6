"""critest against a real daemon: images under the names it wants, one run, its report as values.

The images are built from the host's busybox; noded finds them because its mirrors for the public
registries' names point to the test's own registry, as an air-gapped cluster is set up.
"""

from __future__ import annotations

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


def real_ls() -> bytes:
    """A layer with the host's `ls`: busybox runs its own applets even when their path is masked."""
    entries = []
    program = Path(shutil.which("ls") or "/bin/ls")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = {word for line in listed.splitlines() for word in line.split() if word.startswith("/")}
    made: set[str] = set()
    for library in sorted(libraries):
        for parent in reversed(Path(library).parents[:-1]):
            name = f"{str(parent).strip('/')}/"
            if name not in made:
                made.add(name)
                entries.append(Entry(name, mode=0o755))
        entries.append(Entry(library.lstrip("/"), Path(library).read_bytes(), 0o755))
    entries.append(Entry("bin/ls", program.read_bytes(), 0o755))
    return images.tar(entries)


def push_all(registry: Registry) -> None:
    """Push every image that the suite names."""
    base = images.busybox_layer()
    tools = real_ls()

    def busybox(label: str, **options: object) -> Image:
        # A label makes each a different image, as they are in the public registries.
        return images.build([base, tools], labels={"image": label}, **options)  # type: ignore[arg-type]

    def web(label: str, port: int) -> Image:
        return busybox(label, cmd=["httpd", "-f", "-v", "-p", str(port), "-h", "/www"])

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


def run(
    critest: str, daemon: NodedDaemon, directory: Path, *, seed: int, arguments: Sequence[str] = ()
) -> list[Spec]:
    """Run the validation specs once, with no retries; every spec of the report."""
    report = directory / "critest.xml"
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
