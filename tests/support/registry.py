"""A real registry, docker-registry, on a free port of 127.0.0.1."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import urlsplit

from tests.support.images import Image
from tests.support.processes import end, read_until

_LISTENING = "listening on "
_BCRYPT = "$2b$04$1jcbKQPX597JmfoTEgmdI.ku9T6Cda6pUAbFARkun.3GEgge8Crzm"  # of PASSWORD
USER, PASSWORD = "reader", "open sesame"


class Registry:
    """A running registry; use it as a context manager. With `private` it asks for USER and PASSWORD."""

    def __init__(self, directory: Path, *, private: bool = False) -> None:
        program = shutil.which("docker-registry") or shutil.which("registry")
        assert program is not None, "docker-registry is not installed: run `make packages` as root"
        directory.mkdir(parents=True, exist_ok=True)
        self._private = private
        self._storage = directory / "storage"
        config = {
            "version": "0.1",
            "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._storage)},
                "delete": {"enabled": True},
            },
            "http": {"addr": "127.0.0.1:0", "secret": "shared by nobody"},
        }
        if private:
            (directory / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
        path = directory / "config.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        self._process = subprocess.Popen(
            [program, "serve", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        try:
            line = read_until(self._process.stderr, self._process, lambda text: _LISTENING in text, 20)
        except BaseException:
            self.close()
            raise
        # A full pipe would block the registry.
        drain = threading.Thread(target=_discard, args=(self._process.stderr,), daemon=True)
        drain.start()
        self.host = str(json.loads(line)["msg"]).partition(_LISTENING)[2].split(",")[0]

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the registry. Idempotent."""
        end(self._process)

    def stall(self) -> None:
        """Make it accept connections and never answer, until `resume`."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def push(self, image: Image, repository: str, *tags: str) -> str:
        """Push an image by the distribution API; return `HOST/repository:tag` of the first tag."""
        for digest, content in image.blobs.items():
            self.push_blob(repository, digest, content)
        for tag in tags:
            self.push_manifest(repository, tag, image.manifest, image.media_type)
        return f"{self.host}/{repository}:{tags[0]}"

    def push_blob(self, repository: str, digest: str, content: bytes) -> None:
        location = self._request("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        parts = urlsplit(location)
        query = f"{parts.query}&digest={digest}" if parts.query else f"digest={digest}"
        self._request("PUT", f"{parts.path}?{query}", content, "application/octet-stream")

    def push_manifest(self, repository: str, tag: str, manifest: bytes, media_type: str) -> None:
        self._request("PUT", f"/v2/{repository}/manifests/{tag}", manifest, media_type)

    def delete_manifest(self, repository: str, digest: str) -> None:
        self._request("DELETE", f"/v2/{repository}/manifests/{digest}")

    def blob_path(self, digest: str) -> Path:
        """The file of a blob, for tests that damage it."""
        algorithm, hexadecimal = digest.split(":")
        return self._storage / "docker/registry/v2/blobs" / algorithm / hexadecimal[:2] / hexadecimal / "data"

    def _request(self, method: str, path: str, body: bytes = b"", media_type: str = "") -> Any:
        request = urllib.request.Request(self.url + path, data=body, method=method)
        if media_type:
            request.add_header("Content-Type", media_type)
        if self._private:
            request.add_header(
                "Authorization", "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                answer.read()
                return answer
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()[:500]!r}") from error


def _discard(stream: IO[bytes]) -> None:
    while stream.read(65536):
        pass
