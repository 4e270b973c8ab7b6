"""Debian packages: control fields, scripts and what Debian wants beside the contents."""

from __future__ import annotations

import datetime
import email.utils
from pathlib import Path

from noded_packaging import deb
from noded_packaging.contents import Contents, assemble, licenses
from noded_packaging.project import PACKAGING, Package, Project
from noded_packaging.tree import Tree

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def build(project: Project, package: Package, machine: str, work: Path, output: Path) -> Path:
    """Build one package into `output`; return its path."""
    contents = assemble(project, package, machine, "deb", work)
    tree = contents.tree
    _add_debian_documents(tree, project, package, contents)
    architecture = ARCHITECTURES[machine] if package.vendored else "all"
    path = output / f"{package.name}_{project.full_version}_{architecture}.deb"
    control = deb.Control(
        fields=_fields(project, package, architecture, contents),
        scripts={name: file.read_bytes() for name in _SCRIPTS if (file := _part(package, name)).exists()},
        triggers=file.read_bytes() if (file := _part(package, "triggers")).exists() else b"",
        conffiles=package.configuration,
    )
    deb.write(path, control, tree, project.epoch)
    return path


def _part(package: Package, name: str) -> Path:
    """A script or list of the package's own, or that of all plugins."""
    own = PACKAGING / "deb" / f"{package.name}.{name}"
    return own if own.exists() or package.vendored else PACKAGING / "deb" / f"plugin.{name}"


def _fields(project: Project, package: Package, architecture: str, contents: Contents) -> dict[str, str]:
    requires = list(package.deb.requires)
    if package.vendored:
        requires.append("libc6 (>= {}.{})".format(*contents.glibc))
    else:
        # Plugins use noded's public interface only, which keeps what it once had.
        requires.append(f"noded (>= {project.version})")
    fields = {
        "Package": package.name,
        "Version": project.full_version,
        "Architecture": architecture,
        "Maintainer": project.maintainer,
        "Installed-Size": str(-(-contents.tree.size_bytes // 1024)),
        "Depends": ", ".join(sorted(requires)),
        "Recommends": ", ".join(package.deb.recommends),
        "Suggests": ", ".join(package.deb.suggests),
        "Section": "admin",
        "Priority": "optional",
        "Description": f"{package.summary}\n{package.description}",
    }
    return {name: value for name, value in fields.items() if value}


def _add_debian_documents(tree: Tree, project: Project, package: Package, contents: Contents) -> None:
    documents = f"/usr/share/doc/{package.name}"
    date = email.utils.format_datetime(datetime.datetime.fromtimestamp(project.epoch, datetime.UTC))
    tree.add_compressed(
        f"{documents}/changelog.Debian",
        f"{package.name} ({project.full_version}) unstable; urgency=medium\n\n"
        f"  * Version {project.version}.\n\n -- {project.maintainer}  {date}\n",
    )
    tree.add(f"{documents}/copyright", _copyright(project, contents))
    overrides = _part(package, "lintian-overrides")
    if overrides.exists():
        text = overrides.read_text(encoding="utf-8").replace("@PACKAGE@", package.name)
        tree.add(f"/usr/share/lintian/overrides/{package.name}", text)


def _copyright(project: Project, contents: Contents) -> str:
    year = datetime.datetime.fromtimestamp(project.epoch, datetime.UTC).year
    lines = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        "Upstream-Name: noded",
        "",
        "Files: *",
        f"Copyright: {year} the authors of noded",
        f"License: {project.license}",
        " On Debian systems the text of the Apache License, version 2.0, is in",
        " /usr/share/common-licenses/Apache-2.0.",
    ]
    if contents.distributions:
        lines += [
            "",
            "Comment:",
            " These Python packages are part of this one, in /usr/lib/noded, each with the",
        ]
        lines += [" terms that its authors chose in its own .dist-info directory:", " ."]
        lines += [f" {name} {version}: {terms}" for name, version, terms in licenses(contents.distributions)]
    return "\n".join(lines) + "\n"
