"""An OCI image assembled on the spot from the host's static busybox: no registry, no download."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import struct
import tarfile
from pathlib import Path
from typing import Any

from noded.errors import FailedPrecondition

REFERENCE = "demo.invalid/web:latest"
GREETING = "Hello from a pod that noded runs."
_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"), Path("/usr/lib/busybox/busybox-static"))
_APPLETS = ("sh", "httpd", "echo", "cat", "ls", "hostname", "id", "ps", "wget")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le",
                  "s390x": "s390x", "riscv64": "riscv64"}  # fmt: skip
_PT_INTERP = 3


def find_busybox() -> Path:
    """The host's statically linked busybox. Raises FailedPrecondition when there is none."""
    for path in _BUSYBOX:
        if path.is_file() and is_static(path):
            return path
    raise FailedPrecondition("no statically linked busybox here: apt-get install busybox-static")


def is_static(path: Path) -> bool:
    """Whether an ELF program runs without a dynamic loader: it has no PT_INTERP header (elf(5))."""
    with path.open("rb") as file:
        header = file.read(64)
        if len(header) < 52 or header[:4] != b"\x7fELF":
            return False
        order = "<" if header[5] == 1 else ">"
        if header[4] == 2:
            offset, size, count = (
                *struct.unpack_from(f"{order}Q", header, 32),
                *struct.unpack_from(f"{order}HH", header, 54),
            )
        else:
            offset, size, count = (
                *struct.unpack_from(f"{order}I", header, 28),
                *struct.unpack_from(f"{order}HH", header, 42),
            )
        file.seek(offset)
        table = file.read(size * count)
    kinds = (struct.unpack_from(f"{order}I", table, size * index)[0] for index in range(count))
    return _PT_INTERP not in kinds


def write_layout(directory: Path, busybox: Path) -> str:
    """Write an OCI image layout with one web server image; return the manifest's digest."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    layer = _layer(busybox.read_bytes())
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    packed = put(
        gzip.compress(layer, compresslevel=1, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"
    )
    config = put(_config(diff_id), "application/vnd.oci.image.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [packed],
    }
    descriptor = put(json.dumps(manifest).encode(), str(manifest["mediaType"]))
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": REFERENCE}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
    }
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(descriptor["digest"])


def _config(diff_id: str) -> bytes:
    # `exec` makes the server process 1 of the container, so that a stop signal reaches it.
    serve = "echo 'web server starts on port 80'; exec httpd -f -v -p 80 -h /www"
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh", "-c", serve], "StopSignal": "SIGKILL"},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "noded demo"}],
    }
    return json.dumps(config).encode()


def _layer(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("www", 0o755), ("tmp", 0o1777)):
            archive.addfile(_entry(name, mode, tarfile.DIRTYPE))
        _add_file(archive, "bin/busybox", busybox, 0o755)
        for applet in _APPLETS:
            link = _entry(f"bin/{applet}", 0o777, tarfile.SYMTYPE)
            link.linkname = "busybox"
            archive.addfile(link)
        _add_file(archive, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)
        _add_file(archive, "etc/group", b"root:x:0:\n", 0o644)
        _add_file(archive, "www/index.html", f"{GREETING}\n".encode(), 0o644)
    return buffer.getvalue()


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = _entry(name, mode, tarfile.REGTYPE)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type = mode, kind
    return entry
