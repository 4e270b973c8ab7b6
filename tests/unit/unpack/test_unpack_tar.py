"""The tar reader against the standard library, GNU tar and arbitrary bytes."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.images.unpack import entry as kinds
from noded.images.unpack.entry import MAX_EXTENSION_BYTES, Entry
from noded.images.unpack.extract import clean
from noded.images.unpack.faults import CORRUPT, REFUSED, LayerFault
from noded.images.unpack.fields import number, parse_time
from noded.images.unpack.limits import UnpackLimits
from noded.images.unpack.pax import parse_pax
from noded.images.unpack.sparse import segments
from noded.images.unpack.stream import ByteStream
from noded.images.unpack.tar import TarReader

LIMITS = UnpackLimits(max_entries=1000)
KINDS = {
    kinds.REGULAR: tarfile.REGTYPE,
    kinds.HARDLINK: tarfile.LNKTYPE,
    kinds.SYMLINK: tarfile.SYMTYPE,
    kinds.CHARACTER: tarfile.CHRTYPE,
    kinds.BLOCK_DEVICE: tarfile.BLKTYPE,
    kinds.DIRECTORY: tarfile.DIRTYPE,
    kinds.FIFO: tarfile.FIFOTYPE,
}


def chunks(data: bytes, size: int) -> ByteStream:
    pieces = iter([data[start : start + size] for start in range(0, len(data), size)])
    return ByteStream(lambda: next(pieces, b""))


def read(data: bytes, chunk: int = 4096, limits: UnpackLimits = LIMITS) -> list[tuple[Entry, bytes]]:
    stream = chunks(data, chunk)
    return [(entry, stream.read(entry.size)) for entry in TarReader(stream, limits)]


@contextmanager
def only_faults(*kinds: str) -> Iterator[None]:
    """Whatever happens inside may fail, but in no other way than these."""
    try:
        yield
    except LayerFault as fault:
        if fault.kind not in kinds:
            raise AssertionError(f"fault of kind {fault.kind}") from fault


def content(entry: Entry, stored: bytes) -> bytes:
    """The file that an entry describes, holes filled in."""
    if entry.segments is None:
        return stored
    file = bytearray(entry.length)
    for offset, size in entry.segments:
        file[offset : offset + size], stored = stored[:size], stored[size:]
    return bytes(file)


def build(members: list[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=300
).filter(lambda name: name.strip("/"))
ids = st.integers(0, 2**31)


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(names).strip("/"))
    info.type = draw(st.sampled_from(list(KINDS.values())))
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(ids), draw(ids)
    info.mtime = draw(st.integers(0, 2**33))
    if info.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        info.linkname = draw(names)
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 4095))
    data = draw(st.binary(max_size=2000)) if info.type == tarfile.REGTYPE else b""
    return info, data


@given(
    st.lists(members(), max_size=8),
    st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
    st.integers(1, 5000),
)
def test_whatever_the_standard_library_writes_is_read_back(
    written: list[tuple[tarfile.TarInfo, bytes]], form: int, chunk: int
) -> None:
    found = read(build(written, form), chunk)
    assert len(found) == len(written)
    for (info, data), (entry, stored) in zip(written, found, strict=True):
        assert entry.name.rstrip(b"/") == info.name.encode()
        assert KINDS[entry.kind] == info.type
        assert (entry.mode, entry.uid, entry.gid) == (info.mode, info.uid, info.gid)
        assert entry.mtime_ns == info.mtime * 10**9
        assert entry.link == info.linkname.encode()
        assert entry.device == (info.devmajor, info.devminor)
        assert stored == data


@given(st.binary(max_size=4096), st.integers(1, 1024))
def test_arbitrary_bytes_are_read_or_refused(data: bytes, chunk: int) -> None:
    with only_faults(CORRUPT, REFUSED):
        read(data, chunk)


@given(
    st.lists(members(), min_size=1, max_size=4),
    st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6),
    st.booleans(),
)
def test_damaged_archives_are_read_or_refused(
    written: list[tuple[tarfile.TarInfo, bytes]], form: int, changes: list[tuple[int, int]], repair: bool
) -> None:
    try:
        data = bytearray(build(written, form))
    except (ValueError, tarfile.TarError, UnicodeError):
        return  # ustar cannot say it
    for position, value in changes:
        data[position % len(data)] = value
        if repair:  # behind a right checksum, the fields themselves are wrong
            block = position % len(data) // 512 * 512
            data[block + 148 : block + 156] = b" " * 8
            total = sum(data[block : block + 512])
            data[block + 148 : block + 156] = b"%06o\0 " % total
    with only_faults(CORRUPT, REFUSED):
        for entry, stored in read(bytes(data)):
            assert len(stored) == entry.size


pax_keys = st.binary(min_size=1, max_size=30).filter(
    lambda key: b"=" not in key and not key.startswith(b"GNU.sparse.")
)


@given(st.dictionaries(pax_keys, st.binary(max_size=99)))
def test_extension_records_are_read_back(records: dict[bytes, bytes]) -> None:
    data = b""
    for key, value in records.items():
        body = b" " + key + b"=" + value + b"\n"
        length = len(body)
        while length != len(body) + len(b"%d" % length):
            length = len(body) + len(b"%d" % length)
        data += b"%d" % length + body
    assert parse_pax(data) == records


@given(st.binary(max_size=200))
def test_arbitrary_extension_records_are_read_or_refused(data: bytes) -> None:
    with only_faults(CORRUPT):
        parse_pax(data)


@given(st.integers(-(2**63), 2**63 - 1))
def test_base_256_numbers_keep_their_sign(value: int) -> None:
    assert number(bytes([0xFF if value < 0 else 0x80]) + value.to_bytes(11, "big", signed=True)) == value


@given(st.binary(min_size=8, max_size=12))
def test_numbers_are_read_or_refused(field: bytes) -> None:
    with only_faults(CORRUPT):
        number(field)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0", 0),
        (b"1", 10**9),
        (b"1.5", 15 * 10**8),
        (b"1.0000000019", 10**9 + 1),
        (b"-1.5", -15 * 10**8),
        (b"99999999999999999999999", (1 << 40) * 10**9),
    ],
)
def test_times_have_nanoseconds_and_are_clamped(text: bytes, expected: int) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize("text", [b"", b".", b"1.x", b"1e3", b"+1", b" 1", b"--1"])
def test_times_that_are_none_are_corrupt(text: bytes) -> None:
    with pytest.raises(LayerFault, match="time"):
        parse_time(text)


@pytest.fixture(scope="module")
def sparse_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sparse") / "holes"
    with path.open("wb") as file:
        for index in range(40):  # more pieces than an old GNU header and its first extension hold
            file.seek(index * 65536)
            file.write(b"%04d" % index * 1024)
        file.truncate(41 * 65536 + 7)
    return path


@pytest.mark.parametrize("form", ["gnu", "posix0.0", "posix0.1", "posix1.0"])
def test_sparse_files_of_gnu_tar_are_read(sparse_file: Path, form: str) -> None:
    style, _, version = form.partition("x")
    options = ["--format=gnu"] if style == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    archive = subprocess.run(
        ["tar", "-cS", *options, "-C", sparse_file.parent, sparse_file.name], capture_output=True, check=True
    ).stdout
    assert len(archive) < sparse_file.stat().st_size, "GNU tar found no holes on this file system"
    [(entry, stored)] = read(archive)
    assert entry.name == b"holes"
    assert entry.segments is not None
    assert entry.length == sparse_file.stat().st_size
    assert content(entry, stored) == sparse_file.read_bytes()


@pytest.mark.parametrize(
    ("flat", "length", "stored"),
    [
        ([0, 10, 5, 5], 20, 15),  # overlapping
        ([10, 10], 15, 10),  # beyond the end
        ([0], 10, 0),  # odd
        ([0, 5], 10, 4),  # other than what is stored
        ([0, -5], 10, -5),
        ([0, 5], -1, 5),
    ],
)
def test_impossible_sparse_maps_are_corrupt(flat: list[int], length: int, stored: int) -> None:
    with pytest.raises(LayerFault) as caught:
        segments(flat, length, stored)
    assert caught.value.kind == CORRUPT


def test_more_entries_than_allowed_are_refused() -> None:
    data = build([(tarfile.TarInfo(f"f{n}"), b"") for n in range(20)], tarfile.USTAR_FORMAT)
    with pytest.raises(LayerFault, match="more than 10 entries"):
        read(data, limits=UnpackLimits(max_entries=10))


def test_extension_headers_without_end_are_refused() -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4
    block = info.tobuf(tarfile.GNU_FORMAT) + b"abc\0".ljust(512, b"\0")
    with pytest.raises(LayerFault, match="more than 1000 entries"):
        read(block * 1001)


def test_an_oversized_extension_header_is_refused_before_it_is_read() -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with pytest.raises(LayerFault, match="extension header has 1099511627776 bytes"):
        read(info.tobuf(tarfile.GNU_FORMAT))


def test_a_truncated_file_is_corrupt() -> None:
    data = build([(tarfile.TarInfo("f"), b"x" * 2000)], tarfile.USTAR_FORMAT)
    with pytest.raises(LayerFault, match="ends early"):
        read(data[:1500])


def test_an_archive_may_end_without_zero_blocks() -> None:
    data = build([(tarfile.TarInfo("f"), b"x")], tarfile.USTAR_FORMAT)
    assert len(read(data[:1024])) == 1


def test_an_unknown_type_is_refused_by_name() -> None:
    info = tarfile.TarInfo("multi")
    info.type = b"M"
    with pytest.raises(LayerFault, match="type") as caught:
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert caught.value.entry == b"multi"


def test_global_headers_hold_until_they_are_overridden() -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77", "comment": "x"}
    ) as archive:
        archive.addfile(tarfile.TarInfo("a"))
        other = tarfile.TarInfo("b")
        other.pax_headers = {"uid": "88"}
        archive.addfile(other)
    assert [(entry.name, entry.uid) for entry, _ in read(buffer.getvalue())] == [(b"a", 77), (b"b", 88)]


@pytest.mark.parametrize("kind", [b"g", b"x"])
def test_extension_headers_are_bounded_together(kind: bytes) -> None:
    headers = []
    for index in range(3):
        record = b" key%d=%s\n" % (index, b"v" * (MAX_EXTENSION_BYTES // 2))
        record = b"%d%s" % (len(record) + 6, record)
        assert len(record) == int(record.split(b" ")[0])
        info = tarfile.TarInfo("extension")
        info.type, info.size = kind, len(record)
        headers.append(info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512))
    file = tarfile.TarInfo("f").tobuf(tarfile.USTAR_FORMAT)
    assert len(read(headers[0] + file + bytes(1024))) == 1
    with pytest.raises(LayerFault, match="together"):
        read(b"".join(headers) + file + bytes(1024))


def test_extended_attributes_are_bytes() -> None:
    info = tarfile.TarInfo("f")
    info.pax_headers = {"SCHILY.xattr.user.a": "line\nline=\udcff", "mtime": "1.25"}
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        try:
            archive.addfile(info)
        except UnicodeEncodeError:
            pytest.skip("this Python cannot write binary PAX values")
    [(entry, _)] = read(buffer.getvalue())
    assert entry.xattrs[b"user.a"].startswith(b"line\nline=")
    assert entry.mtime_ns == 1_250_000_000


def test_old_directories_are_files_whose_name_ends_with_a_slash() -> None:
    info = tarfile.TarInfo("d/")
    info.type = tarfile.AREGTYPE
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if not bytes(block[:100]).rstrip(b"\0").endswith(b"/"):
        block[:2] = b"d/"
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    [(entry, _)] = read(bytes(block) + bytes(1024))
    assert entry.kind == kinds.DIRECTORY


def test_signed_checksums_of_ancient_tars_are_accepted() -> None:
    info = tarfile.TarInfo("f\u00e9")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT, encoding="latin-1"))
    block[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % signed
    [(entry, _)] = read(bytes(block) + bytes(1024))
    assert entry.name == b"f\xe9"


@pytest.mark.parametrize("name", ["../f", "a/../../f", "a/..", ".."])
def test_names_with_dotdot_are_refused(name: str) -> None:
    with pytest.raises(LayerFault, match=r"\.\."):
        clean(os.fsencode(name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./a//b/", "a/b"),
        ("/etc/passwd", "etc/passwd"),
        ("./", ""),
        ("", ""),
        ("a/./b", "a/b"),
        ("...", "..."),
    ],
)
def test_names_are_made_relative(name: str, expected: str) -> None:
    assert clean(os.fsencode(name)) == os.fsencode(expected)
