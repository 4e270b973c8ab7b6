"""What is fuzzed: parsers of bytes that a client, a registry, a shim or a plugin sends.

A target takes any bytes and may refuse them by its own errors only. It asserts that what the parser
keeps and what it answers stay in proportion to what came in. The first byte of the input says into
pieces of which size the rest is cut.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from noded.errors import NodedError
from noded.images.unpack.faults import LayerFault
from noded.images.unpack.limits import UnpackLimits
from noded.images.unpack.stream import ByteStream
from noded.images.unpack.tar import TarReader
from noded.wire import http_upgrade, manifest, nri_mux, reference, spdy, ttrpc, websocket
from tests.unit.streams.spdy_peer import Peer
from tests.unit.streams.websocket_peer import frame

_DIGEST = "sha256:" + "0123456789abcdef" * 4


@dataclass(frozen=True)
class Target:
    """A parser. `run` fails on a fault of it; `seeds` are inputs that it takes."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _pieces(data: bytes) -> Iterator[bytes]:
    size = 1 + (data[0] if data else 0)
    for at in range(1, len(data), size):
        yield data[at : at + size]


def _spdy(data: bytes) -> None:
    connection = spdy.SpdyConnection()
    came = went = 0
    try:
        for piece in _pieces(data):
            came += len(piece)
            for event in connection.receive(piece):
                if isinstance(event, spdy.StreamOpened):
                    connection.reply(event.stream_id)
                elif isinstance(event, spdy.DataReceived):
                    connection.consumed(event.stream_id, len(event.data))
                    room = connection.sendable(event.stream_id)
                    connection.send_data(event.stream_id, event.data[:room])
                elif isinstance(event, spdy.StreamEnded):
                    connection.send_data(event.stream_id, b"", fin=True)
            went += sum(map(len, connection.take()))
            assert len(connection._buffer) <= spdy.CONTROL_LIMIT_BYTES + 8
            assert connection.open_streams <= spdy.STREAM_LIMIT
    except spdy.SpdyError:
        went += sum(map(len, connection.take()))
    assert went <= 64 * came + 1024


def _websocket(data: bytes) -> None:
    peer = websocket.WebSocket()
    came = went = 0
    try:
        for piece in _pieces(data):
            came += len(piece)
            for event in peer.receive(piece):
                if isinstance(event, websocket.Piece) and not peer.closed:
                    peer.send(event.data)
            went += sum(map(len, peer.take()))
            assert len(peer._buffer) <= 256
    except websocket.WebSocketError:
        went += sum(map(len, peer.take()))
    assert went <= 16 * came + 256


def _ttrpc(data: bytes) -> None:
    reader = ttrpc.FrameReader()
    try:
        for piece in _pieces(data):
            for one in reader.feed(piece):
                for message in (ttrpc.Request, ttrpc.Response):
                    _decoded(message, one.data)
            assert len(reader._buffer) <= ttrpc.MAX_DATA_BYTES + 10
    except ValueError:
        pass


def _decoded(message: type[ttrpc.Request] | type[ttrpc.Response], data: bytes) -> None:
    try:
        found = message.decode(data)
    except ValueError:
        return
    assert message.decode(found.encode()) == found


def _nri(data: bytes) -> None:
    mux = nri_mux.MuxReader()
    readers: dict[int, ttrpc.FrameReader] = {}
    try:
        for piece in _pieces(data):
            for connection, part in mux.feed(piece):
                if connection in (nri_mux.PLUGIN_CONNECTION, nri_mux.RUNTIME_CONNECTION):
                    readers.setdefault(connection, ttrpc.FrameReader()).feed(part)
            assert len(mux._buffer) <= nri_mux.MAX_PAYLOAD_BYTES + 8
    except ValueError:
        pass


def _http(data: bytes) -> None:
    parser = http_upgrade.UpgradeParser()
    try:
        for piece in _pieces(data):
            request = parser.receive(piece)
            if request is not None:
                request.has_token("connection", "upgrade")
                assert request.path.startswith("/")
                assert len(parser.trailing) <= len(piece)
                return
            assert len(parser._buffer) <= http_upgrade.HEAD_LIMIT_BYTES
    except http_upgrade.UpgradeError as error:
        http_upgrade.refusal(error.status, str(error), error.headers)


def _reference(data: bytes) -> None:
    try:
        parsed = reference.parse(data[1:].decode("utf-8", "surrogateescape"))
    except (NodedError, ValueError):
        return
    assert reference.parse(str(parsed)) == parsed


def _manifest(data: bytes) -> None:
    with suppress(NodedError, ValueError):
        parsed = manifest.parse_manifest(data[1:])
        if isinstance(parsed, manifest.Manifest):
            manifest.layer_refs(parsed, manifest.parse_config(data[1:]))
    with suppress(NodedError, ValueError):
        manifest.parse_config(data[1:])


def _tar(data: bytes) -> None:
    pieces = _pieces(data)
    stream = ByteStream(lambda: next(pieces, b""))
    try:
        for number, entry in enumerate(TarReader(stream, UnpackLimits(max_entries=500))):
            assert number < 500
            assert entry.size >= 0
            stream.skip(entry.size)
    except LayerFault:
        pass


# seeds


def _spdy_seeds() -> Iterator[bytes]:
    for size in (0, 7, 255):
        peer = Peer()
        yield bytes([size]) + b"".join(
            (
                peer.settings(65536),
                *(
                    peer.open(2 * one + 1, {"streamtype": name})
                    for one, name in enumerate(("error", "stdin"))
                ),
                peer.data(3, b"some input\n" * 20),
                peer.window_update(3, 1000),
                peer.data(3, b"", fin=True),
                peer.reset(1),
                peer.control(spdy.Frame.PING, struct.pack(">I", 1)),
                peer.control(spdy.Frame.GOAWAY, struct.pack(">II", 3, 0)),
            )
        )


def _websocket_seeds() -> Iterator[bytes]:
    for size in (0, 5, 255):
        yield bytes([size]) + b"".join(
            (
                frame(2, b"\x00" + b"input" * 60),
                frame(1, b"\x04" + json.dumps({"Width": 80, "Height": 24}).encode(), fin=False),
                frame(9, b"ping"),
                frame(0, "é".encode()),
                frame(8, struct.pack(">H", 1000) + b"bye"),
            )
        )


def _ttrpc_frames() -> bytes:
    pairs = (ttrpc.KeyValue("traceparent", "00-1-2-01"),)
    request = ttrpc.Request("containerd.task.v2.Task", "Create", b"payload", 5, pairs)
    response = ttrpc.Response(ttrpc.Status(5, "gone"), b"x")
    return ttrpc.Frame(1, 1, request.encode()).encode() + ttrpc.Frame(1, 2, response.encode()).encode()


def _manifests() -> Iterator[bytes]:
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": _DIGEST, "size": 7}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 7}
    image = {"schemaVersion": 2, "config": config, "layers": [layer], "annotations": {"a": "b"}}
    index = {
        "schemaVersion": 2,
        "manifests": [{**config, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}],
    }
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [_DIGEST]},
        "config": {"User": "1:2", "Env": ["A=b"], "Cmd": ["x"], "Volumes": {"/v": {}}, "Labels": {"l": "m"}},
    }
    for value in (image, index, document):
        yield b"\0" + json.dumps(value).encode()


def _archives() -> Iterator[bytes]:
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind, bufsize=512) as archive:
            for name in ("dir/", "dir/file", "dir/.wh.gone", "long/" * 19 + "name"):
                entry = tarfile.TarInfo(name)
                entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                entry.size = 0 if name.endswith("/") else 20
                if kind == tarfile.PAX_FORMAT:
                    entry.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1.5"}
                archive.addfile(entry, io.BytesIO(bytes(20)))
        yield b"\xff" + buffer.getvalue()


_MESSAGES = _ttrpc_frames()
_HEADS = (
    b"\x07POST /exec/abc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nrest",
    b"\xffGET /attach/abc?x=1 HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
)
_NAMES = (
    "busybox",
    "registry.example:5000/a/b_c/d:tag",
    f"[::1]:80/a@{_DIGEST}",
    f"docker.io/library/a:b@{_DIGEST}",
)
_MUXED = nri_mux.encode(1, _MESSAGES) + nri_mux.encode(2, _MESSAGES)

TARGETS = {
    target.name: target
    for target in (
        Target("spdy", _spdy, tuple(_spdy_seeds())),
        Target("websocket", _websocket, tuple(_websocket_seeds())),
        Target("ttrpc", _ttrpc, tuple(bytes([size]) + _MESSAGES for size in (0, 9, 255))),
        Target("nri_mux", _nri, tuple(bytes([size]) + _MUXED for size in (0, 255))),
        Target("http_upgrade", _http, _HEADS),
        Target("reference", _reference, tuple(b"\0" + name.encode() for name in _NAMES)),
        Target("manifest", _manifest, tuple(_manifests())),
        Target("tar", _tar, tuple(_archives())),
    )
}


def write_seeds(target: Target, directory: Path) -> None:
    """The corpus that a fuzzer starts from."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (directory / f"seed-{number}").write_bytes(seed)
