"""The parts that packages are made of, on small inputs."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from noded_packaging import build_rpm, deb, project, wheels
from noded_packaging.contents import licenses
from noded_packaging.tree import Tree

from noded.config import Config

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
SCRIPTS = [
    path
    for directory in ("deb", "rpm")
    for path in sorted((PACKAGING / directory).glob("[np]*"))
    if path.suffix not in (".triggers", ".lintian-overrides")
]

LOCK = """\
# This file was made.
first==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via x
old-one==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:cc
windows==3 ; os_name == 'nt' \\
    --hash=sha256:dd
setuptools==80 \\
    --hash=sha256:ee
"""


def test_a_lock_is_cut_to_what_runs_on_one_python():
    assert wheels.requirements(LOCK, "3.11", "x86_64", ["setuptools"]) == (
        "first==1.0 --hash=sha256:aa --hash=sha256:bb\nold-one==2.0 --hash=sha256:cc\n"
    )
    assert "old-one" not in wheels.requirements(LOCK, "3.12", "x86_64", [])
    assert "setuptools==80 --hash=sha256:ee" in wheels.requirements(LOCK, "3.12", "x86_64", [])


def test_every_entry_of_the_real_lock_is_understood():
    lock = wheels.LOCK.read_text()
    cut = wheels.requirements(lock, "3.13", "x86_64", [])
    names = {line.partition("==")[0] for line in cut.splitlines()}
    entries = [line for line in lock.splitlines() if "==" in line and line[0].isalnum()]
    left_out = {line.partition("==")[0]: line for line in entries if line.partition("==")[0] not in names}
    assert len(names) > 20
    assert all(" ; " in line for line in left_out.values()), "only for another system"
    assert all("--hash=sha256:" in line for line in cut.splitlines())


def wheel(directory: Path, name: str, members: dict[str, str]) -> Path:
    path = directory / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return path


def test_wheels_that_all_pythons_share_are_common_and_others_are_not(tmp_path):
    shared = wheel(tmp_path, "a-1-py3-none-any.whl", {})
    old = wheel(tmp_path, "b-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", {})
    new = wheel(tmp_path, "b-1-cp312-cp312-manylinux_2_28_x86_64.whl", {})
    placed = wheels.distribute({"3.11": [shared, old], "3.12": [shared, new]})
    assert placed == {"common": [shared], "cp311": [old], "cp312": [new]}
    assert wheels.glibc_needed([shared]) == (0, 0)
    assert wheels.glibc_needed([shared, old]) == (2, 17)
    assert wheels.glibc_needed([shared, old, new]) == (2, 28)


def test_a_wheel_is_unpacked_without_scripts_and_what_is_omitted(tmp_path):
    members = {
        "a/__init__.py": "",
        "a/test_a.py": "",
        "a-1.dist-info/METADATA": "Name: A\nVersion: 1\nLicense-Expression: MIT\n\nText",
        "a-1.data/purelib/a/more.py": "",
        "a-1.data/scripts/a": "",
    }
    path = wheel(tmp_path, "a-1-py3-none-any.whl", members)
    tree = Tree()
    wheels.unpack(tree, path, "/lib", omit=["a/test_*"])
    assert set(tree.files) == {"/lib/a/__init__.py", "/lib/a/more.py", "/lib/a-1.dist-info/METADATA"}
    assert licenses([path]) == [("A", "1", "MIT")]


def test_two_files_at_one_place_are_an_error():
    tree = Tree()
    tree.add("/a", "one")
    tree.add("/a", "one")
    with pytest.raises(ValueError, match=r"^/a: two files"):
        tree.add("/a", "other")


names = st.lists(st.text("abcdef-.", min_size=1, max_size=8).filter(lambda t: t.strip(".")), min_size=1)


@given(st.dictionaries(names.map(lambda parts: "/" + "/".join(parts)), st.binary(max_size=50), max_size=8))
def test_a_debian_package_is_read_back_as_it_was_written(tmp_path_factory, contents):
    tree = Tree()
    for path, content in contents.items():
        # A file cannot be a directory as well.
        if not any(other != path and other.startswith(f"{path}/") for other in contents):
            tree.add(path, content)
    path = tmp_path_factory.mktemp("deb") / "x.deb"
    deb.write(path, deb.Control({"Package": "x"}), tree, 1_000_000_000)
    members = read_ar(path.read_bytes())
    assert list(members) == ["debian-binary", "control.tar.xz", "data.tar.xz"]
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(members["data.tar.xz"]))) as archive:
        found = {}
        for entry in archive:
            assert (entry.mtime, entry.uid, entry.gid, entry.uname) == (1_000_000_000, 0, 0, "root")
            if entry.isfile():
                found[entry.name.removeprefix(".")] = archive.extractfile(entry).read()
    assert found == {name: file.content for name, file in tree.files.items()}


def read_ar(data: bytes) -> dict[str, bytes]:
    assert data.startswith(b"!<arch>\n")
    position, members = 8, {}
    while position < len(data):
        header = data[position : position + 60]
        size = int(header[48:58])
        members[header[:16].decode().strip()] = data[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    return members


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_dpkg_reads_every_field_and_the_modes(tmp_path):
    tree = Tree()
    tree.add("/usr/bin/x", "#!/bin/sh\n", executable=True)
    tree.add("/etc/x.conf", "a\n")
    control = deb.Control(
        {"Package": "x", "Version": "1-1", "Architecture": "all", "Maintainer": "A <a@b.invalid>",
         "Description": "short\nlong\n\nparagraph"},
        {"postinst": b"#!/bin/sh\n"}, conffiles=["/etc/x.conf"],
    )  # fmt: skip
    deb.write(tmp_path / "x.deb", control, tree, 1_000_000_000)
    fields = subprocess.run(
        ["dpkg-deb", "--field", tmp_path / "x.deb"], capture_output=True, text=True, check=True
    )
    assert "Description: short\n long\n .\n paragraph\n" in fields.stdout
    listed = subprocess.run(
        ["dpkg-deb", "--contents", tmp_path / "x.deb"], capture_output=True, text=True, check=True
    ).stdout
    assert "-rwxr-xr-x root/root" in next(line for line in listed.splitlines() if "usr/bin/x" in line)


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_a_plugins_package_is_the_same_bytes_each_time(kind, tmp_path):
    """The same code as for noded's own package, without its minutes of compression."""
    if kind == "rpm" and shutil.which("rpmbuild") is None:
        pytest.skip("rpmbuild is not installed: apt-get install rpm")
    made = []
    for number, odd in enumerate(({"TZ": "UTC"}, {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "HOME": "/"})):
        where = tmp_path / str(number)
        done = subprocess.run(
            [
                "sh", "-c", f"umask {number}22; exec \"$@\"", "sh",
                sys.executable, "-m", "noded_packaging", kind,
                "--package=noded-plugin-runc", f"--output={where}", f"--work={where / 'work'}",
            ],
            env={**os.environ, "PYTHONPATH": str(PACKAGING), "SOURCE_DATE_EPOCH": "1700000000", **odd},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made.append(Path(done.stdout.strip()))
    first, second = made
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_accepts_the_maintainer_scripts(script):
    done = subprocess.run(["shellcheck", "--shell=sh", script], capture_output=True, text=True)
    assert done.stdout == ""


def test_every_file_that_the_description_names_exists():
    for package in project.load().packages:
        assert (package.project / "pyproject.toml").exists()
        for installed, source in package.files.items():
            assert (PACKAGING / source).is_file(), installed
        assert set(package.configuration) <= set(package.files)


def test_every_python_that_the_project_supports_is_packaged():
    described = project.load()
    assert described.pythons[0] == "3.11"
    (noded,) = (package for package in described.packages if package.name == "noded")
    major, minor = described.pythons[-1].split(".")
    assert f"python3 (<< {major}.{int(minor) + 1}~)" in noded.deb.requires
    assert f"python3 < {major}.{int(minor) + 1}" in noded.rpm.requires


def test_a_file_in_etc_is_kept_by_both_package_managers():
    (noded,) = (package for package in project.load().packages if package.name == "noded")
    tree = Tree()
    tree.add("/etc/noded/noded.toml", "")
    assert '%config(noreplace) %attr(0644,root,root) "/etc/noded/noded.toml"' in build_rpm._files(noded, tree)
    assert [path for path in noded.files if path.startswith("/etc/")] == list(noded.configuration)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_service_and_socket_together(tmp_path):
    for name in ("noded.service", "noded.socket"):
        unit = (PACKAGING / "systemd" / name).read_text()
        # Only the syntax is in question, not whether noded is installed on this machine.
        (tmp_path / name).write_text(unit.replace("/usr/bin/noded", "/bin/true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "noded.socket", tmp_path / "noded.service"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "noded." not in checked.stderr, checked.stderr


def test_the_socket_is_where_clients_look_and_directories_are_those_of_the_configuration():
    unit = (PACKAGING / "systemd" / "noded.socket").read_text()
    assert f"ListenStream={Config().listen}\n" in unit
    listed = (PACKAGING / "tmpfiles" / "noded.conf").read_text()
    assert f"d {Config().state} " in listed
    assert f"d {Config().root} " in listed


START = PACKAGING / "program" / "noded_start.py"


def start(tmp_path: Path, directories: list[str], code: str = "") -> subprocess.CompletedProcess[str]:
    """Run noded_start.prepare() of a library with these directories."""
    library = tmp_path / "noded"
    for name in directories:
        (library / name).mkdir(parents=True)
    (library / "noded_start.py").write_text(START.read_text().replace("/usr/lib/noded", str(library)))
    program = (
        f"import sys; sys.path.insert(0, {str(library)!r}); import noded_start; noded_start.prepare(); {code}"
    )
    return subprocess.run([sys.executable, "-IBS", "-c", program], capture_output=True, text=True)


def test_the_launcher_takes_the_directories_of_the_running_python(tmp_path):
    mine = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    done = start(tmp_path, ["common", "cp38", mine], "print(sys.path[-2:], len(sys.path))")
    assert done.returncode == 0, done.stderr
    assert f"['{tmp_path}/noded/common', '{tmp_path}/noded/{mine}']" in done.stdout


def test_the_launcher_names_the_pythons_that_would_do(tmp_path):
    done = start(tmp_path, ["common", "cp39", "cp310"])
    assert done.returncode == 1
    assert done.stderr.startswith(f"noded: {sys.executable} is Python 3.")
    assert "this package of noded works with 3.9, 3.10. Install noded for this release" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_launcher_can_be_read_by_old_pythons():
    import ast

    for name in ("noded_start.py", "launcher.py"):
        ast.parse((PACKAGING / "program" / name).read_text(), feature_version=(3, 6))
