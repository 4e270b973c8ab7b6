"""RPM packages: a spec file and a build root for rpmbuild, both made from the contents."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from pathlib import Path

from noded_packaging.contents import Contents, assemble, licenses
from noded_packaging.project import PACKAGING, REPOSITORY, Package, Project
from noded_packaging.tree import Tree

_LIBC_SUFFIX = "()(64bit)"
# Nothing of the machine that builds gets in: no names, no time, no scripts of its distribution that
# change or check what was gathered, no symbols to split off.
_MACROS = {
    "_buildhost": "localhost",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "__os_install_post": "%{nil}",
    "_build_id_links": "none",
    "debug_package": "%{nil}",
    "_binary_payload": "w6.xzdio",
    "_source_filedigest_algorithm": "8",
    "_binary_filedigest_algorithm": "8",
    "_docdir_fmt": "%%{NAME}",
    "dist": "%{nil}",
}


def build(project: Project, package: Package, machine: str, work: Path, output: Path) -> Path:
    """Build one package into `output` with rpmbuild; return its path.

    Raises: SystemExit when rpmbuild is not installed or fails.
    """
    if shutil.which("rpmbuild") is None:
        raise SystemExit("rpmbuild is missing: apt-get install rpm, or dnf install rpm-build")
    contents = assemble(project, package, machine, "rpm", work)
    _add_documents(contents.tree, package, contents)
    architecture = machine if package.vendored else "noarch"
    top = (work / "rpm" / package.name).resolve()
    shutil.rmtree(top, ignore_errors=True)
    root = top / "root"
    _write(contents.tree, root, project.epoch)
    spec = top / f"{package.name}.spec"
    spec.write_text(_spec(project, package, architecture, contents, root), encoding="utf-8")
    macros = {**_MACROS, "_topdir": str(top), "_rpmdir": str(top / "made"), "_tmppath": str(top)}
    command = ["rpmbuild", "-bb", "--quiet", f"--target={architecture}-linux", f"--dbpath={top}/db"]
    for name, value in macros.items():
        command += ["--define", f"{name} {value}"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(project.epoch), "LC_ALL": "C", "TZ": "UTC"}
    built = subprocess.run(
        [*command, str(spec)], env=environment, cwd=top, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise SystemExit(f"rpmbuild failed:\n{built.stdout}{built.stderr}")
    name = f"{package.name}-{project.full_version}.{architecture}.rpm"
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(top / "made" / architecture / name, output / f".{name}.unfinished")
    shutil.rmtree(top)
    return (output / f".{name}.unfinished").replace(output / name)


def _add_documents(tree: Tree, package: Package, contents: Contents) -> None:
    tree.add(f"/usr/share/licenses/{package.name}/LICENSE", (REPOSITORY / "LICENSE").read_bytes())
    if not contents.distributions:
        tree.add(f"/usr/share/doc/{package.name}/README", f"{package.description}\n")
        return
    rows = [f"{name} {version}: {terms}\n" for name, version, terms in licenses(contents.distributions)]
    tree.add(
        f"/usr/share/doc/{package.name}/vendored.txt",
        "Python packages in /usr/lib/noded, each with the terms that its authors chose in its own\n"
        ".dist-info directory:\n\n" + "".join(rows),
    )


def _write(tree: Tree, root: Path, epoch: int) -> None:
    for path, file in tree.entries():
        place = root / path[1:]
        if file is None:
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o755)
        else:
            place.write_bytes(file.content)
            place.chmod(file.mode)
    for path, _ in tree.entries():
        os.utime(root / path[1:], (epoch, epoch))


def _spec(project: Project, package: Package, architecture: str, contents: Contents, root: Path) -> str:
    requires = list(package.rpm.requires)
    if package.vendored:
        requires.append("libc.so.6(GLIBC_{}.{}){}".format(*contents.glibc, _LIBC_SUFFIX))
    else:
        requires.append(f"noded >= {project.version}")
    day = datetime.datetime.fromtimestamp(project.epoch, datetime.UTC)
    lines = [
        f"Name: {package.name}",
        f"Version: {project.version}",
        f"Release: {project.revision}",
        f"Summary: {package.summary}",
        f"License: {project.license}",
        "Group: System/Management",
        f"Packager: {project.maintainer}",
        "AutoReqProv: no",
        *(f"Requires: {each}" for each in sorted(requires)),
        *(f"Recommends: {each}" for each in package.rpm.recommends),
        *(f"Suggests: {each}" for each in package.rpm.suggests),
        *(
            f"Provides: bundled(python3dist({name.lower()})) = {version}"
            for name, version, _ in licenses(contents.distributions)
        ),
        "",
        "%description",
        package.description,
        "",
        "%install",
        f"cp -a {root}/. %{{buildroot}}/",
        "",
        *_scriptlets(package),
        "%files",
        *_files(package, contents.tree),
        "",
        "%changelog",
        f"* {day:%a %b %d %Y} {project.maintainer} - {project.full_version}",
        f"- Version {project.version}.",
    ]
    return "\n".join(lines) + "\n"


def _scriptlets(package: Package) -> list[str]:
    """Sections of scripts. A change of any package below /usr/lib/noded, or of Python, runs `changed`."""
    sections = {
        "post": "%post",
        "preun": "%preun",
        "changed": "%transfiletriggerin -- /usr/lib/noded /usr/bin/python3",
    }
    lines = []
    for name, section in sections.items():
        file = PACKAGING / "rpm" / f"{package.name}.{name}"
        if file.exists():
            text = file.read_text(encoding="utf-8").replace("%", "%%")
            lines += [section, text.rstrip("\n"), ""]
            if name == "changed":
                lines += [section.replace("triggerin", "triggerpostun"), text.rstrip("\n"), ""]
    return lines


def _files(package: Package, tree: Tree) -> list[str]:
    lines = []
    own = {directory for directory in tree.directories if _is_own(directory)}
    for path, file in tree.entries():
        if file is None:
            if path in own:
                lines.append(f"%dir %attr(0755,root,root) {path}")
            continue
        kind = ""
        if path in package.configuration:
            kind = "%config(noreplace) "
        elif path.startswith(("/usr/share/doc/", "/usr/share/man/")):
            kind = "%doc "
        elif path.startswith("/usr/share/licenses/"):
            kind = "%license "
        lines.append(f'{kind}%attr({file.mode:04o},root,root) "{path}"')
    return lines


def _is_own(directory: str) -> bool:
    """Whether a directory is noded's, or that of a shell which may not be installed."""
    return "noded" in directory or directory.startswith(("/usr/share/fish", "/usr/share/zsh"))
