"""Blobs: verified before they have a name, resumable, and owned by one writer at a time."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import Aborted, DataLoss, InvalidArgument, NotFound
from noded.images.content import ContentStore

DATA = b"some blob" * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def leftovers(store: ContentStore) -> list[str]:
    return sorted(os.listdir(store.scratch))


def test_a_blob_is_there_once_it_is_committed(store: ContentStore) -> None:
    writer = store.begin(DIGEST, len(DATA))
    writer.write(DATA[:100])
    writer.write(memoryview(DATA)[100:])
    assert not store.has(DIGEST)
    writer.commit()
    assert store.has(DIGEST)
    assert store.size(DIGEST) == len(DATA)
    assert store.read(DIGEST, len(DATA)) == DATA
    assert store.path(DIGEST).stat().st_mode & 0o777 == 0o600
    assert leftovers(store) == []
    assert [digest for digest, _ in store.blobs()] == [DIGEST]


def test_sha512_digests_are_verified_too(store: ContentStore) -> None:
    digest = f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    writer = store.begin(digest, None)
    writer.write(DATA)
    writer.commit()
    assert store.read(digest, 1 << 20) == DATA
    assert [found for found, _ in store.blobs()] == [digest]


def test_a_wrong_digest_is_data_loss_and_leaves_nothing(store: ContentStore) -> None:
    writer = store.begin(DIGEST, len(DATA))
    writer.write(b"x" * len(DATA))
    with pytest.raises(DataLoss, match=f"blob {DIGEST} is damaged"):
        writer.commit()
    assert not store.has(DIGEST)
    assert leftovers(store) == []


def test_a_short_blob_is_data_loss(store: ContentStore) -> None:
    writer = store.begin(DIGEST, len(DATA))
    writer.write(DATA[:-1])
    with pytest.raises(DataLoss, match="truncated: 8999 of 9000 bytes"):
        writer.commit()
    assert leftovers(store) == []


def test_more_bytes_than_announced_are_refused(store: ContentStore) -> None:
    writer = store.begin(DIGEST, 10)
    writer.write(b"0123456789")
    with pytest.raises(DataLoss, match="longer than the 10 bytes"):
        writer.write(b"x")
    writer.abort()


@given(cut=st.integers(0, len(DATA)), size_known=st.booleans())
def test_a_kept_blob_is_resumed_where_it_stopped(
    tmp_path_factory: pytest.TempPathFactory, cut: int, size_known: bool
) -> None:
    store = ContentStore(tmp_path_factory.mktemp("content"))
    size = len(DATA) if size_known else None
    writer = store.begin(DIGEST, size)
    writer.write(DATA[:cut])
    writer.keep()
    writer.abort()  # after keep: nothing
    again = store.begin(DIGEST, size)
    assert again.offset == cut
    again.write(DATA[cut:])
    again.commit()
    assert store.read(DIGEST, 1 << 20) == DATA


def test_a_resumed_blob_that_is_too_long_starts_over(store: ContentStore) -> None:
    writer = store.begin(DIGEST, None)
    writer.write(DATA + b"more")
    writer.keep()
    again = store.begin(DIGEST, len(DATA))
    assert again.offset == 0
    again.write(DATA)
    again.commit()


def test_two_writers_of_one_blob_exclude_each_other(store: ContentStore) -> None:
    writer = store.begin(DIGEST, None)
    with pytest.raises(Aborted, match="written by another task"):
        store.begin(DIGEST, None)
    writer.abort()
    writer.abort()
    store.begin(DIGEST, None).abort()
    assert leftovers(store) == []


def test_a_collection_leaves_the_blobs_of_living_writers(store: ContentStore) -> None:
    writer = store.begin(DIGEST, None)
    writer.write(DATA)
    other = store.begin("sha256:" + "0" * 64, None)
    other.write(DATA)
    other.keep()
    assert store.discard_partial(keep=["sha256:" + "0" * 64]) == 0
    assert store.discard_partial() > 0
    assert len(leftovers(store)) == 1
    writer.commit()
    assert store.has(DIGEST)


def test_small_blobs_are_put_at_once(store: ContentStore) -> None:
    partial = store.begin(DIGEST, len(DATA))
    partial.write(b"wrong")
    partial.keep()
    assert store.put(DATA) == DIGEST
    assert store.put(DATA) == DIGEST
    assert store.read(DIGEST, len(DATA)) == DATA


def test_a_damaged_stored_blob_is_noticed_when_it_is_read(store: ContentStore) -> None:
    store.put(DATA)
    store.path(DIGEST).write_bytes(b"x" + DATA[1:])
    with pytest.raises(DataLoss, match=DIGEST):
        store.read(DIGEST, len(DATA))
    with pytest.raises(DataLoss, match=DIGEST):
        store.verify(DIGEST)


def test_long_blobs_are_not_read_into_memory(store: ContentStore) -> None:
    store.put(DATA)
    with pytest.raises(InvalidArgument, match="longer than the 100 bytes"):
        store.read(DIGEST, 100)


def test_a_missing_blob_is_named(store: ContentStore) -> None:
    for ask in (store.size, store.open, store.verify, lambda digest: store.read(digest, 10)):
        with pytest.raises(NotFound, match=DIGEST):
            ask(DIGEST)
    store.delete(DIGEST)


@pytest.mark.parametrize("digest", ["../../etc/passwd", "sha256:../x", "md5:abc", "sha256:" + "A" * 64, ""])
def test_nothing_but_a_digest_becomes_a_path(store: ContentStore, digest: str) -> None:
    with pytest.raises(InvalidArgument):
        store.path(digest)


def test_usage_counts_complete_and_partial_blobs(store: ContentStore) -> None:
    assert store.usage() == (0, 0)
    store.put(DATA)
    writer = store.begin("sha256:" + "0" * 64, None)
    writer.write(b"x" * 5000)
    used_bytes, inodes = store.usage()
    writer.abort()
    assert inodes == 2
    assert used_bytes >= 14_000
