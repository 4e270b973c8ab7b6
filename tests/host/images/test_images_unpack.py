"""Extraction by the real worker: equal to GNU tar and umoci, and closed to hostile layers."""

# ruff: noqa: ASYNC240 - nothing else runs on the event loops of these tests

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path

import pytest
import trio
import trio.testing
import zstandard

from noded.errors import DataLoss, InvalidArgument, NodedError, ResourceExhausted
from noded.images.filesystem import tree_size
from noded.images.unpack.client import Unpacker, ZygoteDied
from noded.images.unpack.limits import UnpackLimits, UnpackReport
from noded.model.image import Image
from tests.support.layer_cases import (
    TAR,
    directory,
    file,
    hardlink,
    make_image,
    member,
    open_store,
    scan,
    sha256,
    symlink,
    tar,
)

pytestmark = pytest.mark.root


def unpack(
    blob: Path | bytes, target: Path, limits: UnpackLimits | None = None, diff_id: str = ""
) -> UnpackReport:
    """Extract with a zygote of this test's own."""
    if isinstance(blob, bytes):
        path = target.with_name(f"{target.name}.blob")
        path.write_bytes(blob)
        blob = path
    target.mkdir(exist_ok=True)

    async def main() -> UnpackReport:
        with trio.fail_after(120):
            async with Unpacker(1) as unpacker:
                fd = os.open(blob, os.O_RDONLY)
                try:
                    return await unpacker.unpack(fd, target, TAR, diff_id, limits)
                finally:
                    os.close(fd)

    return trio.run(main)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the destination that no layer may change."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("untouched")
    return path


def make_tree(root: Path) -> None:
    """One of everything that a layer can hold."""
    rng = random.Random(1)
    root.mkdir()
    for number in range(30):
        (root / f"d{number % 7}" / "sub").mkdir(parents=True, exist_ok=True)
        path = root / f"d{number % 7}" / "sub" / f"file{number}"
        path.write_bytes(rng.randbytes(rng.choice((0, 1, 511, 512, 513, 5000, 400_000))))
        os.chown(path, rng.randrange(70000), rng.randrange(70000))
        os.chmod(path, rng.choice((0o644, 0o755, 0o600, 0o4755, 0o2755, 0o6711, 0o1644, 0)))
        os.utime(path, ns=(rng.randrange(2 * 10**18), rng.randrange(2 * 10**18)))
    (root / "target").write_text("x")
    os.chmod(root / "target", 0o4711)
    os.link(root / "target", root / "d1" / "hard")
    os.chown(root / "target", 12, 34)
    os.chmod(root / "target", 0o4711)
    (root / "soft").symlink_to("../../etc/passwd")
    os.lchown(root / "soft", 5, 6)
    os.utime(root / "soft", ns=(1, 1_234_567_890_123_456_789), follow_symlinks=False)
    (root / ("long" * 30)).mkdir()
    (root / ("long" * 30) / ("name" * 60)).symlink_to("t" * 300)
    (root / "new\nline").write_text("n")
    Path(os.fsdecode(os.fsencode(root) + b"/not-utf8-\xff\xfe")).write_text("8")
    (root / "häßlich").write_text("u")
    os.mkfifo(root / "fifo", 0o611)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 300))
    (root / "capable").write_text("c")
    subprocess.run(["setcap", "cap_net_raw+ep", root / "capable"], check=True)
    os.setxattr(root / "capable", "user.note", b"binary\0\n\xff=value")
    os.setxattr(root / "d2", "user.dir", b"d")
    with (root / "sparse").open("wb") as sparse:
        for offset in range(0, 40 << 16, 1 << 16):
            sparse.seek(offset)
            sparse.write(b"data" * 1024)
        sparse.truncate(50 << 16)
    os.chmod(root / "d3", 0o2775)
    os.chmod(root / "d4", 0o1777)
    os.chown(root / "d4", 100_000, 65534)
    (root / "readonly").mkdir()
    (root / "readonly" / "inside").write_text("r")
    os.chmod(root / "readonly", 0o555)
    for path in (*root.iterdir(), root):
        if path.is_dir() and not path.is_symlink():
            os.utime(path, ns=(5, rng.randrange(2 * 10**18)))


def pack(root: Path, archive: Path, *options: str) -> Path:
    xattrs = () if "--format=gnu" in options else ("--xattrs", "--xattrs-include=*")
    subprocess.run(
        ["tar", "-c", *xattrs, "--sort=name", *options, "-f", archive, "-C", root, "."], check=True
    )
    return archive


def du(*options: str | Path) -> int:
    return int(subprocess.run(["du", "-s", *options], capture_output=True, check=True).stdout.split()[0])


FORMS = {
    "posix": ("--format=posix",),
    "posix with sparse 1.0": ("--format=posix", "-S"),
    "posix with sparse 0.1": ("--format=posix", "-S", "--sparse-version=0.1"),
    "posix with sparse 0.0": ("--format=posix", "-S", "--sparse-version=0.0"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
def test_the_tree_equals_the_one_that_was_packed(tmp_path: Path, form: str, compression: str) -> None:
    make_tree(tmp_path / "source")
    archive = pack(tmp_path / "source", tmp_path / "layer.tar", *FORMS[form])
    data = archive.read_bytes()
    blob = {
        "plain": lambda: data,
        "gzip": lambda: gzip.compress(data, 1),
        "zstd": lambda: zstandard.ZstdCompressor().compress(data),
    }[compression]()
    report = unpack(blob, tmp_path / "out", diff_id=sha256(data))
    assert scan(tmp_path / "out") == scan(tmp_path / "source")
    assert report.implied == () == report.opaque
    assert (report.skipped_devices, report.dropped_xattrs) == (0, 0)
    assert report.stream_bytes == len(data)
    assert report.blob_bytes == len(blob)


def test_gnu_archives_equal_the_extraction_of_gnu_tar(tmp_path: Path) -> None:
    make_tree(tmp_path / "source")
    archive = pack(tmp_path / "source", tmp_path / "layer.tar", "--format=gnu", "-S")
    (tmp_path / "reference").mkdir()
    subprocess.run(
        ["tar", "-xpf", archive, "-C", tmp_path / "reference", "--same-owner", "--delay-directory-restore"],
        check=True,
    )
    unpack(archive, tmp_path / "out")
    assert scan(tmp_path / "out") == scan(tmp_path / "reference")


def test_the_accounted_disk_use_is_what_du_counts(tmp_path: Path) -> None:
    make_tree(tmp_path / "source")
    (tmp_path / "source" / "big").write_bytes(os.urandom(20 << 20))
    report = unpack(
        pack(tmp_path / "source", tmp_path / "layer.tar", "--format=posix", "-S"), tmp_path / "out"
    )
    os.sync()
    found = int(
        subprocess.run(["du", "-s", "-B1", tmp_path / "out"], capture_output=True, check=True).stdout.split()[
            0
        ]
    )
    assert abs(found - report.used_bytes) <= found / 100
    inodes = int(
        subprocess.run(
            ["du", "-s", "--inodes", tmp_path / "out"], capture_output=True, check=True
        ).stdout.split()[0]
    )
    assert report.used_inodes == inodes
    assert report.length_bytes == tree_size(tmp_path / "out").length_bytes > 20 << 20


def umoci(image: Image, blobs: Mapping[str, bytes], directory: Path) -> None:
    """Have umoci unpack an image into DIRECTORY/bundle/rootfs."""
    oci = directory / "oci"
    (oci / "blobs" / "sha256").mkdir(parents=True)
    for digest, data in blobs.items():
        (oci / "blobs" / "sha256" / digest[7:]).write_bytes(data)
    (oci / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.manifest_digest,
        "size": len(blobs[image.manifest_digest]),
        "annotations": {"org.opencontainers.image.ref.name": "t"},
    }
    (oci / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    subprocess.run(
        ["umoci", "unpack", "--image", f"{oci}:t", directory / "bundle"], check=True, capture_output=True
    )


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_layers_applied_one_over_another_equal_the_rootfs_of_umoci(tmp_path: Path) -> None:
    tars = [
        tar(
            directory("./", mtime=9, mode=0o755),
            directory("etc", mtime=5, mode=0o750, uid=3),
            file("etc/a", b"a", mtime=1),
            file("etc/b", b"b", mtime=1),
            directory("var", mtime=4),
            directory("var/old", mtime=4),
            file("var/old/x", b"x", mtime=1),
            directory("keep", mode=0o1777, uid=7, mtime=3),
            directory("gone", mtime=1),
            file("gone/away", b"", mtime=2),
            symlink("link", "etc", mtime=8),
        ),
        tar(
            directory("etc", mtime=6, mode=0o711, uid=4),
            file("etc/.wh.a", mtime=1),
            file("etc/c", b"c2", mtime=2),
            directory("var", mtime=7),
            directory("var/old", mtime=6, mode=0o700),
            file("var/old/.wh..wh..opq"),
            file("var/old/y", b"y", mtime=1),
            file(".wh.gone"),
            directory("keep/new", mtime=2),
            directory("keep", mode=0o1777, uid=7, mtime=11),
        ),
        tar(file("etc/b", b"b3", mode=0o4755, mtime=3), hardlink("etc/d", "etc/b", mode=0o4755, mtime=3)),
    ]
    image, blobs = make_image(tars, "localhost/t:1")
    umoci(image, blobs, tmp_path)

    async def main() -> None:
        async with open_store(tmp_path / "store") as store:
            await store.add(tars, "localhost/t:1")
            await store.snapshots.prepare("c1", image, None)
            try:
                ours = scan(store.layout.rootfs("c1"))
                reference = scan(tmp_path / "bundle" / "rootfs")
                ours.pop(b"."), reference.pop(b".")  # umoci gives the root its own mtime
                # The last layer has no entry for etc: umoci leaves the time of its own change there,
                # here it keeps that of the layer below.
                ours[b"etc"], reference[b"etc"] = (
                    (*tree[b"etc"][:4], 0, *tree[b"etc"][5:]) for tree in (ours, reference)
                )
                assert ours == reference
            finally:
                await store.snapshots.remove("c1")

    trio.run(main)


def test_a_pipe_works_like_a_file(tmp_path: Path) -> None:
    data = gzip.compress(tar(directory("./"), file("f", os.urandom(500_000))))
    read_end, write_end = os.pipe()

    def feed() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    (tmp_path / "out").mkdir()

    async def main() -> UnpackReport:
        async with Unpacker() as unpacker:
            return await unpacker.unpack(read_end, tmp_path / "out", TAR, "")

    try:
        report = trio.run(main)
    finally:
        os.close(read_end)
        feeder.join()
    assert report.blob_bytes == len(data)
    assert (tmp_path / "out" / "f").stat().st_size == 500_000


HOSTILE = {
    "a name with dotdot": ([file("../outside/secret", b"pwned")], InvalidArgument),
    "a deep dotdot": ([directory("a"), file("a/../../outside/secret", b"pwned")], InvalidArgument),
    "a symlinked parent": ([symlink("a", "OUTSIDE"), file("a/secret", b"pwned")], None),
    "a chain of symlinked parents": (
        [symlink("a", "b"), symlink("b", "../../../../../../..OUTSIDE"), file("a/secret", b"pwned")],
        None,
    ),
    "a symlink loop": ([symlink("a", "b"), symlink("b", "a"), file("a/f", b"x")], NodedError),
    "a symlink replaced under a directory": (
        [directory("d", mode=0o777), symlink("d", "OUTSIDE"), directory("d/sub"), file("d/secret", b"pwned")],
        None,
    ),
    "a hard link out of the tree": ([hardlink("h", "../outside/secret")], InvalidArgument),
    "a hard link through a symlink": ([symlink("a", "OUTSIDE"), hardlink("h", "a/secret")], InvalidArgument),
    "a hard link to a symlink to the outside": (
        [symlink("a", "OUTSIDE/secret"), hardlink("h", "a", mode=0o777, uid=1), file("h", b"pwned")],
        None,
    ),
    "a whiteout of dotdot": ([directory("a"), file("a/.wh..")], InvalidArgument),
    "a whiteout of two dots": ([directory("a"), file("a/.wh...")], InvalidArgument),
    "a whiteout through a symlink": ([symlink("a", "OUTSIDE"), file("a/.wh.secret")], None),
    "an opaque marker through a symlink": ([symlink("a", "OUTSIDE"), file("a/.wh..wh..opq")], None),
    "something below a whiteout": ([file(".wh.a/b")], InvalidArgument),
    "a link in place of the root": ([symlink("./", "OUTSIDE")], InvalidArgument),
    "a 1 TiB sparse file": (
        [
            member(
                "big", pax_headers={
                    "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0",
                    "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1",
                },
            )
        ],
        InvalidArgument,
    ),
    "a 1 TiB sparse file with its map in the data": (
        [
            member(
                "x", data=b"0\n".ljust(512, b"\0"), pax_headers={
                    "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "big",
                    "GNU.sparse.realsize": str(1 << 40),
                },
            )
        ],
        InvalidArgument,
    ),
    "a sparse map beyond the file": (
        [
            member(
                "big", data=bytes(1024), pax_headers={
                    "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "1048576,1024",
                    "GNU.sparse.size": "4096", "GNU.sparse.numblocks": "1",
                },
            )
        ],
        DataLoss,
    ),
    "a device behind a symlink": (
        [symlink("a", "OUTSIDE"), member("a/dev", tarfile.BLKTYPE, devmajor=8, devminor=0)],
        None,
    ),
    "overlay attributes": (
        [file("f", b"x", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/OUTSIDE",
                                       "SCHILY.xattr.user.overlay.whiteout": "y",
                                       "SCHILY.xattr.trusted.overlay.opaque": "y"})],
        None,
    ),
    "a name longer than a path": ([file("x/" * 2100 + "f", b"")], InvalidArgument),
    "a component longer than a name": ([file("y" * 300, b"")], NodedError),
    "a newline before dotdot": ([file("new\nline/../../outside/secret", b"pwned")], InvalidArgument),
    "dotdot in a name that is not UTF-8": ([file("\udcff\udcfe/../outside/secret", b"x")], InvalidArgument),
    "a hard link whose target has a newline": ([hardlink("h\nard", "../out\nside/secret")], InvalidArgument),
    "a hard link to an absolute path": ([hardlink("h", "OUTSIDE/secret")], InvalidArgument),
    "a hard link to a directory": ([directory("d"), hardlink("h", "d")], InvalidArgument),
    "a hard link to the root": ([hardlink("h", "/")], InvalidArgument),
    "a symbolic link to nothing": ([symlink("s", "")], InvalidArgument),
    "a file below a file": ([file("f", b"x"), file("f/secret", b"pwned")], InvalidArgument),
    "a file in place of the root": ([file("./", b"pwned")], InvalidArgument),
    "another name in an extension header": (
        [file("innocent", b"pwned", pax_headers={"path": "../outside/secret"})], InvalidArgument,
    ),
    "a device number out of range": (
        [member("dev", tarfile.CHRTYPE, devmajor=1 << 20, devminor=0)], InvalidArgument,
    ),
    "a type that no layer has": ([member("contiguous", b"7"), member("multi", b"M")], InvalidArgument),
    "a device in place of a directory": (
        [directory("d"), file("d/f", b"x"), member("d", tarfile.CHRTYPE, devmajor=1, devminor=3)], None,
    ),
    "an absurd owner": ([file("f", b"", pax_headers={"uid": "4294967295"})], InvalidArgument),
}  # fmt: skip


def hostile(case: str, outside: str) -> tuple[bytes, type[NodedError] | None, str]:
    """The layer, the error that it is refused with, and the entry that this names: the last one."""
    members, expected = HOSTILE[case]
    copies = []
    for info, data in members:
        info = copy(info)
        info.linkname = info.linkname.replace("OUTSIDE", outside)
        info.pax_headers = {key: value.replace("OUTSIDE", outside) for key, value in info.pax_headers.items()}
        copies.append((info, data))
    headers = copies[-1][0].pax_headers
    name = headers.get("path") or headers.get("GNU.sparse.name") or copies[-1][0].name
    return tar(*copies), expected, name


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_layer_changes_nothing_outside(tmp_path: Path, outside: Path, case: str) -> None:
    data, expected, name = hostile(case, str(outside))
    before = scan(outside)
    if expected is None:
        report = unpack(data, tmp_path / "out", diff_id=sha256(data))
        for path in (tmp_path / "out").rglob("*"):
            assert not any(
                key.startswith(("trusted.", "user.overlay"))
                for key in os.listxattr(path, follow_symlinks=False)
            )
        assert report.entries == len(HOSTILE[case][0])
    else:
        with pytest.raises(expected) as caught:
            unpack(data, tmp_path / "out", UnpackLimits(max_bytes=1 << 38), diff_id=sha256(data))
        message = str(caught.value)
        assert message.startswith(f"layer {sha256(data)}, entry {name!r}: ")
        assert message.isprintable(), "one line, whatever the names are"
    assert scan(outside) == before
    assert sorted(os.listdir(tmp_path)) == ["out", "out.blob", "outside"]


# Of a whiteout in a directory that no layer has, the directory stays. `user.overlay.*` attributes mean
# something to overlayfs in a user namespace: they are dropped here.
OTHERWISE = ("a whiteout through a symlink", "an opaque marker through a symlink", "overlay attributes")


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
@pytest.mark.parametrize(
    "case", [case for case, (_, error) in HOSTILE.items() if error is None and case not in OTHERWISE]
)
def test_what_is_accepted_of_a_hostile_layer_equals_the_rootfs_of_umoci(tmp_path: Path, case: str) -> None:
    data, _, _ = hostile(case, "/outside-of-it")
    report = unpack(data, tmp_path / "out")
    umoci(*make_image([data], "localhost/t:1"), tmp_path)
    ours, reference = scan(tmp_path / "out"), scan(tmp_path / "bundle/rootfs")
    for tree in (ours, reference):
        for path in map(os.fsencode, report.implied):  # no entry tells their times
            tree[path or b"."] = (*tree[path or b"."][:4], 0, *tree[path or b"."][5:])
    assert ours == reference


def test_an_absolute_name_lands_inside(tmp_path: Path, outside: Path) -> None:
    info, data = file("f", b"inside")
    info.name = f"{outside}/secret"
    unpack(tar((info, data)), tmp_path / "out")
    assert (outside / "secret").read_text() == "untouched"
    assert (tmp_path / "out" / str(outside).lstrip("/") / "secret").read_text() == "inside"


def test_an_entry_bomb_is_refused(tmp_path: Path) -> None:
    data = tar(*(file(f"f{n}") for n in range(300)), form=tarfile.USTAR_FORMAT)
    words = f"layer {sha256(data)}, after entry 'f199': it has more than 200 entries"
    with pytest.raises(InvalidArgument, match=words):
        unpack(gzip.compress(data), tmp_path / "out", UnpackLimits(max_entries=200), sha256(data))


def test_what_follows_the_last_entry_is_bounded_too(tmp_path: Path) -> None:
    data = tar(file("last")) + bytes(4 << 20)
    words = f"layer {sha256(data)}, after entry 'last': it is longer than {2 << 20} bytes"
    with pytest.raises(InvalidArgument, match=words):
        unpack(gzip.compress(data), tmp_path / "out", UnpackLimits(max_bytes=2 << 20), sha256(data))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (UnpackLimits(max_bytes=16 << 20), "its files are longer than"),
        (UnpackLimits(max_ratio=100, ratio_free_bytes=1 << 20), "it expands to more than 100 times"),
    ],
)
def test_a_gzip_bomb_is_refused_long_before_it_has_exploded(
    tmp_path: Path, limits: UnpackLimits, words: str
) -> None:
    """Zeros that are written, and not a hole: they would take the disk."""
    blob = gzip.compress(tar(file("small", b"1"), file("bomb", bytes(64 << 20))), 9)
    with pytest.raises(InvalidArgument, match=f"layer sha256:f+, entry 'bomb': .*{words}"):
        unpack(blob, tmp_path / "out", limits, diff_id="sha256:" + "f" * 64)
    assert du("-B1", tmp_path / "out") < 8 << 20


def test_a_truncated_layer_names_the_entry(tmp_path: Path) -> None:
    data = tar(file("first", b"1"), file("dir/second", b"2" * 5000))
    with pytest.raises(DataLoss, match=r"layer sha256:f+, entry 'dir/second': the archive ends early"):
        unpack(data[:3000], tmp_path / "out", diff_id="sha256:" + "f" * 64)


@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
def test_a_layer_that_ends_anywhere_names_the_entry_that_it_reached(
    tmp_path: Path, rng: random.Random, counts: Callable[[int, int], int], compression: str
) -> None:
    names = [f"dir/{number}" for number in range(40)]
    # Noise in all sizes, so that compressed blobs end in headers, names, data and padding alike.
    data = tar(directory("dir"), *(file(name, rng.randbytes(rng.randrange(3000))) for name in names))
    blob = {"plain": data, "gzip": gzip.compress(data), "zstd": zstandard.compress(data)}[compression]
    padding = len(data.rstrip(b"\0"))  # from here on nothing is missing but zeros
    (tmp_path / "blob").write_bytes(blob)
    seen = set()

    async def main() -> None:
        async with Unpacker(1) as unpacker:
            for number in range(counts(15, 300)):
                length = rng.randrange(1, padding if compression == "plain" else len(blob))
                os.truncate(tmp_path / "blob", 0)
                (tmp_path / "blob").write_bytes(blob[:length])
                (tmp_path / str(number)).mkdir()
                with (tmp_path / "blob").open("rb") as source, pytest.raises(DataLoss) as caught:
                    await unpacker.unpack(
                        source.fileno(), tmp_path / str(number), TAR, sha256(data), UnpackLimits()
                    )
                shutil.rmtree(tmp_path / str(number))
                place = str(caught.value).removeprefix(f"layer {sha256(data)}").partition(": ")[0]
                seen.add(place)
                # The first block of zstd is the smallest piece that comes out: before it, the digest tells.
                assert re.fullmatch(r"|, (after )?entry 'dir/\d*'| is damaged", place), caught.value

    trio.run(main)
    assert len(seen) > (5 if compression != "zstd" else 0)


def test_a_wrong_diff_id_is_data_loss(tmp_path: Path) -> None:
    data = tar(file("f"))
    with pytest.raises(DataLoss, match=f"uncompressed it has digest {sha256(data)}"):
        unpack(data, tmp_path / "out", diff_id="sha256:" + "f" * 64)


def test_a_window_beyond_the_memory_limit_is_an_error_and_not_a_dead_worker(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = compressor.compress(tar(file("f", os.urandom(1 << 20)))) + compressor.flush()
    with pytest.raises((ResourceExhausted, DataLoss)):
        unpack(blob, tmp_path / "out", UnpackLimits(memory_bytes=120 << 20))


def test_whiteouts_and_opaque_directories_are_reported_in_overlay_form(tmp_path: Path) -> None:
    report = unpack(
        tar(
            directory("a"), file("a/.wh.gone"), file("a/.wh..wh..opq"), file("a/.wh..wh.plnk/1.2", b"aufs"),
            file(".wh.again"), directory("again"), directory("kept"), file(".wh.kept"),
            file("own", b"x"), file(".wh.own"),
        ),
        tmp_path / "out",
    )  # fmt: skip
    gone = (tmp_path / "out" / "a" / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert set(report.opaque) == {"a", "again", "kept"}
    assert report.implied == ("",)
    assert (tmp_path / "out" / "own").read_bytes() == b"x"
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "again", "kept", "own"]


def test_missing_parents_are_made_and_reported(tmp_path: Path) -> None:
    report = unpack(tar(file("a/b/c", b"x"), directory("a", mode=0o700)), tmp_path / "out")
    assert report.implied == ("", "a/b")
    assert stat.S_IMODE((tmp_path / "out/a").stat().st_mode) == 0o700


def test_parents_behind_dangling_links_are_made_where_the_link_points(tmp_path: Path) -> None:
    report = unpack(
        tar(symlink("lib", "usr/lib"), file("lib/x/f", b"x"), directory("lib/x", mode=0o711)),
        tmp_path / "out",
    )
    assert (tmp_path / "out/usr/lib/x/f").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "out/usr/lib/x").stat().st_mode) == 0o711
    assert set(report.implied) == {"", "usr", "usr/lib"}


def test_the_metadata_of_a_directory_that_was_replaced_goes_nowhere(tmp_path: Path) -> None:
    """`a/b` names another directory once `a` is a link."""
    unpack(
        tar(
            directory("c"), directory("c/b", mode=0o755, uid=1), directory("a"),
            directory("a/b", mode=0o700, uid=2), symlink("a", "c"),
        ),
        tmp_path / "out",
    )  # fmt: skip
    found = (tmp_path / "out/c/b").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o755, 1)


def test_later_entries_replace_earlier_ones(tmp_path: Path) -> None:
    report = unpack(
        tar(
            directory("d", mode=0o700), file("d/x/y", b"1"), file("d", b"file"), file("f", b"1"),
            file("f", b"22"), symlink("s", "f"), file("s", b"s"), file("t"), directory("t", mode=0o711),
        ),
        tmp_path / "out",
    )  # fmt: skip
    out = tmp_path / "out"
    assert [(out / name).read_bytes() for name in ("d", "f", "s")] == [b"file", b"22", b"s"]
    assert stat.S_IMODE((out / "t").stat().st_mode) == 0o711
    assert report.used_inodes == 5
    assert report.length_bytes == len(b"file22s")


def test_a_hard_link_keeps_file_capabilities(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000").decode("latin-1")
    data = tar(
        file("a", b"x", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": capability}),
        hardlink("b", "a", mode=0o755, uid=9),
    )
    unpack(data, tmp_path / "out")
    assert os.getxattr(tmp_path / "out/b", "security.capability") == capability.encode("latin-1")
    assert (tmp_path / "out/a").stat().st_uid == 9


@pytest.mark.parametrize("propagation", ["shared", "private"])
def test_the_child_has_no_more_rights_than_it_needs(tmp_path: Path, propagation: str) -> None:
    """A child that waits for its pipe is looked at from outside.

    The store's mount is shared where systemd has set the node up, and private elsewhere.
    """
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        subprocess.run(["mount", f"--make-{propagation}", tmp_path], check=True)
        check_rights(tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def check_rights(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()

    async def main() -> dict[str, str]:
        async with Unpacker() as unpacker, trio.open_nursery() as nursery:
            child = await start_blocked(unpacker, nursery, tmp_path / "out", read_end)
            status = proc_status(child)
            status["mounts"] = Path(f"/proc/{child}/mountinfo").read_text()
            status["fds"] = " ".join(os.listdir(f"/proc/{child}/fd"))
            nursery.cancel_scope.cancel()
            return status

    try:
        status = trio.run(main)
    finally:
        os.close(read_end)
        os.close(write_end)
    kept = sum(1 << number for number in (0, 1, 3, 4, 27, 31))
    assert {int(status[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")} == {kept}
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["mounts"].count("\n") == 1
    assert len(status["fds"].split()) <= 5  # three standard ones, the blob and the report


def proc_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_gone(pid: int, seconds: float = 10) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    try:
        assert select.select([fd], [], [], seconds)[0], f"process {pid} did not end"
    finally:
        os.close(fd)


async def start_blocked(unpacker: Unpacker, nursery: trio.Nursery, out: Path, read_end: int) -> int:
    """Begin an unpack that waits for its pipe; returns the child's pid."""
    out.mkdir(exist_ok=True)
    nursery.start_soon(unpacker.unpack, read_end, out, TAR, "")
    children = Path(f"/proc/{unpacker.pid}/task/{unpacker.pid}/children")
    with trio.fail_after(20):
        while not (pids := children.read_text().split()):
            await trio.lowlevel.checkpoint()
        while proc_status(int(pids[0]))["Seccomp"] != "2":  # the last step of its set-up
            await trio.lowlevel.checkpoint()
    return int(pids[0])


def test_a_cancelled_unpack_ends_its_child(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()

    async def main() -> None:
        async with Unpacker() as unpacker:
            async with trio.open_nursery() as nursery:
                child = await start_blocked(unpacker, nursery, tmp_path / "out", read_end)
                nursery.cancel_scope.cancel()
            wait_gone(child)
            zygote = unpacker.pid
            (tmp_path / "blob").write_bytes(tar(file("f", b"x")))
            (tmp_path / "next").mkdir()
            with (tmp_path / "blob").open("rb") as blob:
                await unpacker.unpack(blob.fileno(), tmp_path / "next", TAR, "")
            assert unpacker.pid == zygote

    try:
        trio.run(main)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_killed_zygote_takes_its_children_along_and_is_replaced(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()

    async def main() -> None:
        async with Unpacker() as unpacker:
            with pytest.RaisesGroup(ZygoteDied):
                async with trio.open_nursery() as nursery:
                    child = await start_blocked(unpacker, nursery, tmp_path / "out", read_end)
                    zygote = unpacker.pid
                    os.kill(zygote, signal.SIGKILL)
            wait_gone(child)
            (tmp_path / "blob").write_bytes(tar(file("f", b"x")))
            (tmp_path / "next").mkdir()
            with (tmp_path / "blob").open("rb") as blob:
                await unpacker.unpack(blob.fileno(), tmp_path / "next", TAR, "")
            assert unpacker.pid != zygote

    try:
        trio.run(main)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_zygote_that_a_signal_stopped_is_continued(tmp_path: Path) -> None:
    """A pull has no deadline: it would wait for ever."""
    (tmp_path / "blob").write_bytes(tar(file("f", b"x")))
    (tmp_path / "out").mkdir()

    async def main() -> None:
        with trio.fail_after(60):
            async with Unpacker(stalled_seconds=0.2) as unpacker:
                os.kill(unpacker.pid, signal.SIGSTOP)
                with (tmp_path / "blob").open("rb") as blob:
                    await unpacker.unpack(blob.fileno(), tmp_path / "out", TAR, "")

    trio.run(main)
    assert (tmp_path / "out" / "f").read_bytes() == b"x"


def test_a_zygote_that_signals_keep_stopped_is_given_up(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    (tmp_path / "out").mkdir()

    async def keep_stopped(pid: int) -> None:
        """Stop it as soon as it goes on; it is no more than asked to."""
        while True:
            os.kill(pid, signal.SIGSTOP)
            await trio.sleep(0.005)

    async def main() -> None:
        with trio.fail_after(60):
            async with Unpacker(stalled_seconds=0.2) as unpacker:
                zygote = unpacker.pid
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(keep_stopped, zygote)
                    with pytest.raises(ZygoteDied):
                        await unpacker.unpack(read_end, tmp_path / "out", TAR, "")
                    nursery.cancel_scope.cancel()

    try:
        trio.run(main)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_an_idle_zygote_that_was_killed_is_replaced_unnoticed(tmp_path: Path) -> None:
    async def main() -> None:
        async with Unpacker() as unpacker:
            os.kill(unpacker.pid, signal.SIGKILL)
            wait_gone(unpacker.pid)
            (tmp_path / "blob").write_bytes(tar(file("f", b"x")))
            (tmp_path / "out").mkdir()
            with (tmp_path / "blob").open("rb") as blob:
                await unpacker.unpack(blob.fileno(), tmp_path / "out", TAR, "")

    trio.run(main)


def test_a_zygote_is_ended_when_nothing_is_left_to_extract_and_not_before(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    (tmp_path / "blob").write_bytes(tar(file("f", b"x")))

    async def quick(unpacker: Unpacker, name: str) -> None:
        (tmp_path / name).mkdir()
        with (tmp_path / "blob").open("rb") as blob:
            await unpacker.unpack(blob.fileno(), tmp_path / name, TAR, "")
        await trio.testing.wait_all_tasks_blocked()  # the service has seen it

    async def main() -> None:
        with trio.fail_after(60):
            async with Unpacker(2, idle_seconds=0) as unpacker, trio.open_nursery() as nursery:
                nursery.start_soon(unpacker.end_idle)
                zygote = unpacker.pid
                async with trio.open_nursery() as blocked:
                    await start_blocked(unpacker, blocked, tmp_path / "slow", read_end)
                    await quick(unpacker, "first")
                    assert unpacker.pid == zygote
                    os.write(write_end, (tmp_path / "blob").read_bytes())
                    os.close(write_end)
                await trio.to_thread.run_sync(wait_gone, zygote)
                await quick(unpacker, "second")
                nursery.cancel_scope.cancel()
        assert (tmp_path / "slow" / "f").read_bytes() == (tmp_path / "second" / "f").read_bytes() == b"x"

    try:
        trio.run(main)
    finally:
        os.close(read_end)


def test_a_killed_child_is_reported_and_the_zygote_lives_on(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()

    async def main() -> None:
        async with Unpacker() as unpacker:
            zygote = unpacker.pid
            with pytest.RaisesGroup(pytest.RaisesExc(ZygoteDied, match="killed by signal 9")):
                async with trio.open_nursery() as nursery:
                    os.kill(
                        await start_blocked(unpacker, nursery, tmp_path / "out", read_end), signal.SIGKILL
                    )
            assert unpacker.pid == zygote

    try:
        trio.run(main)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_the_death_of_the_daemon_ends_zygote_and_children(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    script = f"""
import os, trio
from pathlib import Path
from noded.images.unpack.client import Unpacker
async def main():
    read_end, write_end = os.pipe()
    async with Unpacker() as unpacker, trio.open_nursery() as nursery:
        nursery.start_soon(unpacker.unpack, read_end, Path({str(tmp_path / "out")!r}), {TAR!r}, "")
        children = Path(f"/proc/{{unpacker.pid}}/task/{{unpacker.pid}}/children")
        while not children.read_text():
            await trio.lowlevel.checkpoint()
        print(unpacker.pid, children.read_text(), flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
    import sys

    daemon = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert daemon.stdout is not None
        while True:
            line = daemon.stdout.readline()
            words = line.split()
            if words and all(word.isdigit() for word in words):
                break
            assert line, "the daemon ended early"
        pids = [int(word) for word in words]
        assert len(pids) == 2
    finally:
        daemon.kill()
        daemon.wait()
    deadline = time.monotonic() + 10
    for pid in pids:
        if not gone(pid):
            wait_gone(pid, deadline - time.monotonic())
