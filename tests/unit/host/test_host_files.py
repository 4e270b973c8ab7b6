"""Files: published whole, read only inside a container's root, locked once, removed safely."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noded.errors import FailedPrecondition, NotFound, ResourceExhausted
from noded.host import beneath, files
from noded.host.lock import lock


def test_publishing_replaces_a_file_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    for durable in (False, True):
        files.publish(path, b"new", 0o640, durable=durable)
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o7777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_in_place_of_the_file_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (tmp_path / "file").symlink_to(victim)
    files.publish(tmp_path / "file", b"new", durable=False)
    assert victim.read_text() == "keep"
    assert not (tmp_path / "file").is_symlink()


def test_a_failed_publish_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "x").touch()
    with pytest.raises(Exception, match=r"cannot write .*dir"):
        files.publish(tmp_path / "dir", b"x", durable=True)
    assert os.listdir(tmp_path) == ["dir"]
    with pytest.raises(NotFound, match="missing/file"):
        files.publish(tmp_path / "missing" / "file", b"x", durable=True)


def test_what_a_crash_left_can_be_swept(tmp_path: Path) -> None:
    (tmp_path / ".0123.noded-tmp").touch()
    (tmp_path / "keep").touch()
    files.remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["keep"]


def tree(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "passwd").write_text("inside")
    (root / "abs").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../../../../../etc/passwd")
    (root / "etc" / "dir").symlink_to("/etc")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("/nowhere")
    os.mkfifo(root / "fifo")


@pytest.mark.parametrize(
    "name", ["etc/passwd", "/etc/passwd", "abs", "up", "../../etc/passwd", "etc/dir/dir/passwd"]
)
def test_every_way_to_a_file_ends_inside_the_root(tmp_path: Path, name: str) -> None:
    tree(tmp_path)
    assert files.read_beneath(tmp_path, name, 100) == b"inside"
    assert files.resolve_beneath(tmp_path, name) == tmp_path / "etc" / "passwd"


@pytest.mark.parametrize("name", ["fifo", "etc", "loop", "dangling", "missing", "etc/passwd/x", "/", ""])
def test_what_is_no_regular_file_is_no_file_and_never_waited_for(tmp_path: Path, name: str) -> None:
    tree(tmp_path)
    assert files.read_beneath(tmp_path, name, 100) is None


def test_a_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    assert files.read_beneath(tmp_path, "f", 100) == b"x" * 100
    with pytest.raises(ResourceExhausted, match="larger than 99 bytes"):
        files.read_beneath(tmp_path, "f", 99)


def test_a_missing_target_and_a_nul_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot open nothing below"):
        files.resolve_beneath(tmp_path, "nothing")
    with pytest.raises(FailedPrecondition, match="NUL"):
        files.resolve_beneath(tmp_path, "a\0b")


names = st.sampled_from(["a", "b", "c", "file", "..", ".", ""])
paths = st.lists(names, max_size=6).map("/".join)
targets = st.tuples(st.booleans(), paths).map(lambda pair: ("/" if pair[0] else "") + pair[1] or ".")


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), targets, max_size=5), paths)
def test_the_walk_without_openat2_gives_the_kernels_answer(
    links: dict[tuple[str, str], str], path: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        for first in "abc":
            (root / first).mkdir(parents=True)
            (root / first / "file").touch()
        for (first, second), target in links.items():
            (root / first / second).symlink_to(target)
        top = os.open(root, os.O_PATH | os.O_DIRECTORY)
        results = []
        try:
            for opener in (
                lambda: beneath.openat2(top, path.encode() or b".", os.O_PATH, beneath.RESOLVE_IN_ROOT),
                lambda: beneath.walk(top, path.encode(), os.O_PATH),
            ):
                try:
                    fd = opener()
                except OSError as error:
                    results.append(error.errno)
                else:
                    results.append(os.readlink(f"/proc/self/fd/{fd}"))
                    os.close(fd)
        finally:
            os.close(top)
        assert results[0] == results[1]


def test_a_second_process_cannot_take_the_lock_and_learns_who_has_it(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom noded.errors import FailedPrecondition\n"
        "from noded.host.lock import lock\n"
        "try: lock(Path(sys.argv[1]))\nexcept FailedPrecondition as error: print(error)\n"
        "else: print('taken')\n"
    )

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "lock")],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout

    with lock(tmp_path / "lock") as held:
        assert f"{tmp_path} is in use by noded process {os.getpid()}" in other()
    held.close()
    assert other() == "taken\n"


def test_a_tree_is_removed_with_links_but_not_what_they_point_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    root = tmp_path / "root"
    root.mkdir()
    tree(root)
    (root / "out").symlink_to(outside)
    (root / os.fsdecode(b"\xff\xfe")).mkdir()
    files.remove_tree(root)
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert os.listdir(outside) == ["keep"]


def test_removing_what_is_missing_a_file_or_a_link_succeeds(tmp_path: Path) -> None:
    files.remove_tree(tmp_path / "missing")
    files.remove_tree(tmp_path / "no" / "parent")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc")
    files.remove_tree(tmp_path / "file")
    files.remove_tree(tmp_path / "link")
    assert os.listdir(tmp_path) == []
    assert Path("/etc").is_dir()


def test_a_tree_deeper_than_the_recursion_and_path_limits_is_removed(tmp_path: Path) -> None:
    depth = 3000
    top = tmp_path / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("directory", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    files.remove_tree(top)
    assert os.listdir(tmp_path) == []
