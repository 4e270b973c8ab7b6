"""OCI images for tests, built in Python from the host's static busybox.

    image = build([busybox_layer()], cmd=["sleep", "1000"])
    registry.push(image, "library/busybox", "1.0")
    write_layout(image, directory, "registry.example/busybox:1.0")

Everything is deterministic: the same arguments give the same digests.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

BUSYBOX_PATHS = (Path("/bin/busybox"), Path("/usr/bin/busybox"), Path("/usr/lib/busybox/busybox-static"))
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
web:x:1000:2000:a user with groups:/home/web:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUP = """root:x:0:
daemon:x:1:
web:x:2000:
extra:x:3000:web
more:x:50000:web,daemon
nogroup:x:65534:
"""


@dataclass(frozen=True)
class Entry:
    """One member of a layer: a directory when `path` ends with a slash, else a file or a link."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    hard: str = ""


@dataclass(frozen=True)
class Image:
    """A manifest with everything it points to."""

    manifest: bytes
    media_type: str
    config: bytes
    blobs: Mapping[str, bytes] = field(repr=False)  # digest -> content, config included
    layer_digests: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of the manifest, as in NAME@DIGEST."""
        return sha256(self.manifest)

    @property
    def id(self) -> str:
        """Digest of the config: what CRI calls the image id."""
        return sha256(self.config)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def architecture() -> str:
    """This machine's architecture in OCI's words."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def tar(entries: Iterable[Entry]) -> bytes:
    """An uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path.rstrip("/"))
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            if entry.path.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif entry.link or entry.hard:
                info.type = tarfile.SYMTYPE if entry.link else tarfile.LNKTYPE
                info.linkname = entry.link or entry.hard
            else:
                info.size = len(entry.content)
            archive.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()


def compress(layer: bytes, kind: str, level: int = 1) -> bytes:
    """`kind`: gzip, zstd or none."""
    if kind == "gzip":
        return gzip.compress(layer, compresslevel=level, mtime=0)
    return zstandard.compress(layer, level) if kind == "zstd" else layer


def build(
    layers: Sequence[bytes],
    *,
    compression: str = "gzip",
    level: int = 1,
    docker: bool = False,
    cmd: Sequence[str] = ("/bin/sh",),
    entrypoint: Sequence[str] = (),
    user: str = "",
    env: Sequence[str] = ("PATH=/bin:/sbin:/usr/bin:/usr/sbin",),
    working_dir: str = "",
    labels: Mapping[str, str] | None = None,
    stop_signal: str = "",
    volumes: Sequence[str] = (),
    os_and_architecture: tuple[str, str] | None = None,
) -> Image:
    """Build an image of uncompressed layers. `docker` gives a Docker v2 schema 2 manifest."""
    os_name, arch = os_and_architecture or ("linux", architecture())
    process: dict[str, Any] = {"Env": list(env), "Cmd": list(cmd)}
    for key, value in (
        ("Entrypoint", list(entrypoint)),
        ("User", user),
        ("WorkingDir", working_dir),
        ("Labels", dict(labels or {})),
        ("StopSignal", stop_signal),
        ("Volumes", {path: {} for path in volumes}),
    ):
        if value:
            process[key] = value
    config = json.dumps(
        {
            "architecture": arch,
            "os": os_name,
            "config": process,
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
            "history": [{"created_by": "test"} for _ in layers],
        }
    ).encode()
    packed = [compress(layer, compression, level) for layer in layers]
    suffix = {
        "gzip": ".gzip" if docker else "+gzip",
        "zstd": ".zstd" if docker else "+zstd",
        "none": "",
    }[compression]
    layer_type = (DOCKER_LAYER if docker else OCI_LAYER) + suffix
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, config),
            "layers": [_descriptor(layer_type, blob) for blob in packed],
        }
    ).encode()
    blobs = {sha256(content): content for content in (config, *packed)}
    return Image(manifest, media_type, config, blobs, tuple(sha256(blob) for blob in packed))


def artifact(files: Mapping[str, bytes], artifact_type: str = "application/vnd.example.model") -> Image:
    """An artifact as ORAS writes it: an empty configuration, one blob per file with its name as title."""
    empty = b"{}"
    layers = [
        {
            **_descriptor("application/octet-stream", content),
            "annotations": {"org.opencontainers.image.title": title} if title else {},
        }
        for title, content in files.items()
    ]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": _descriptor("application/vnd.oci.empty.v1+json", empty),
            "layers": layers,
        }
    ).encode()
    blobs = {sha256(content): content for content in (empty, *files.values())}
    return Image(manifest, OCI_MANIFEST, empty, blobs, tuple(sha256(content) for content in files.values()))


def index(images: Sequence[tuple[Image, str, str]]) -> bytes:
    """An OCI index of (image, os, architecture)."""
    manifests = [
        {
            **_descriptor(image.media_type, image.manifest),
            "platform": {"os": os_name, "architecture": arch},
        }
        for image, os_name, arch in images
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def write_layout(image: Image, directory: Path, reference: str) -> Path:
    """Write an OCI image layout with one image; return the directory."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for digest, content in {**image.blobs, image.digest: image.manifest}.items():
        (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    descriptor = _descriptor(image.media_type, image.manifest)
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": reference}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]})
    )
    return directory


@cache
def busybox() -> Path:
    """The host's static busybox. Raises FileNotFoundError when there is none."""
    for path in BUSYBOX_PATHS:
        # ldd fails for a static program and lists the libraries of a dynamic one.
        if path.is_file() and subprocess.run(["ldd", path], capture_output=True, check=False).returncode:
            return path
    raise FileNotFoundError("no static busybox: apt-get install busybox-static")


@cache
def busybox_layer() -> bytes:
    """A small root file system: busybox with a link for every applet, users, groups, /tmp.

    Debian's busybox prefers its own applets over files of the same name on PATH.
    """
    applets = subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True).stdout.split()
    entries = [
        *(Entry(f"{name}/", mode=0o755) for name in ("bin", "etc", "root", "home", "home/web", "var", "www")),
        Entry("tmp/", mode=0o1777),
        Entry("bin/busybox", busybox().read_bytes(), 0o755),
        *(Entry(f"bin/{applet}", link="busybox", mode=0o777) for applet in applets if applet != "busybox"),
        Entry("etc/passwd", PASSWD.encode()),
        Entry("etc/group", GROUP.encode()),
        Entry("www/index.html", b"a web server in a pod\n"),
    ]
    return tar(entries)


def busybox_image(**options: Any) -> Image:
    """busybox with users and groups: `web` is uid 1000, gid 2000, in groups 3000 and 50000."""
    return build([busybox_layer()], **options)


def http_image(port: int = 80, **options: Any) -> Image:
    """A web server on `port` that logs each request and answers `a web server in a pod`."""
    return build([busybox_layer()], cmd=["httpd", "-f", "-v", "-p", str(port), "-h", "/www"], **options)


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}
