"""kubelet's configuration: its file with drop-ins, its unit with environment files, and its command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from noded.checks import facts
from noded.checks.gather.node import processes
from noded.errors import NodedError
from noded.wire.yaml_subset import scalars

_DROP_IN_SUFFIX = ".conf"
_UNIT = "kubelet.service"
# From the weakest to the strongest (systemd.unit(5)).
_UNIT_DIRECTORIES = (
    Path("/usr/lib/systemd/system"),
    Path("/run/systemd/system"),
    Path("/etc/systemd/system"),
)
_DEFAULT = Path("/var/lib/kubelet/config.yaml")
# What kubeadm's unit reads, in its order.
_ENVIRONMENT = (
    Path("/var/lib/kubelet/kubeadm-flags.env"),
    Path("/etc/default/kubelet"),
    Path("/etc/sysconfig/kubelet"),
)


def flags(words: Iterable[str]) -> dict[str, str]:
    """`--name=value` and `--name value` by name; the last of each wins. Pure."""
    found: dict[str, str] = {}
    pending = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else "true"
            pending = "" if equals else name
        else:
            if pending:
                found[pending] = word
            pending = ""
    return found


def environment_flags(text: str) -> dict[str, str]:
    """Flags in the values of a file of systemd's EnvironmentFile=. Pure."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.lstrip().startswith(("#", ";")) or "=" not in line:
            continue
        try:
            value = " ".join(shlex.split(line.partition("=")[2]))
        except ValueError:
            continue  # an unbalanced quote: systemd ignores the line too
        found.update(flags(value.split()))
    return found


def unit_flags(text: str) -> dict[str, str]:
    """Flags in ExecStart= and Environment= of a unit of systemd or of its drop-in. Pure."""
    found: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, _, value = line.strip().partition("=")
        if name not in ("Environment", "ExecStart"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        if name == "ExecStart":
            found.update(flags(words[1:]))
        for word in words if name == "Environment" else ():
            found.update(flags(word.partition("=")[2].split()))
    return found


def look(path: Path | None, *, root: Path = Path("/")) -> facts.Kubelet:
    """Facts about kubelet.

    Args:
        path: of its configuration when it is not where kubelet says.
        root: in whose place the node's files are looked for.
    """
    found: dict[str, str] = {}
    files: dict[str, str] = {}
    for file, parse in (
        *((file, unit_flags) for file in _unit_files(root)),
        *((_below(root, file), environment_flags) for file in _ENVIRONMENT),
    ):
        try:
            said = parse(file.read_text(errors="replace"))
        except OSError:
            continue
        found.update(said)
        files.update(dict.fromkeys(said, _shown(file, root)))
    running = processes("kubelet")
    for _, words in running[:1]:
        own = flags(words[1:])
        found.update(own)
        for name in own:
            files.pop(name, None)
    if path is not None:
        file = path
    else:
        file = _below(root, Path(found["config"]) if found.get("config", "").startswith("/") else _DEFAULT)
    kubelet = facts.Kubelet(bool(running), flags=found, flag_files=files)
    try:
        kubelet = replace(kubelet, config=scalars(file.read_text(errors="replace")), config_path=str(file))
    except FileNotFoundError:
        if path is not None:
            return replace(
                kubelet, config_path=str(path), problem_path=str(path), problem="it does not exist"
            )
    except (OSError, NodedError) as error:
        return replace(kubelet, config_path=str(file), problem_path=str(file), problem=_problem(error))
    return _with_drop_ins(kubelet, root)


def _with_drop_ins(kubelet: facts.Kubelet, root: Path) -> facts.Kubelet:
    """Add what the files of --config-dir say, as kubelet merges them: *.conf, by path, the last wins."""
    directory = kubelet.flags.get("config-dir", "")
    if not directory.startswith("/"):
        return kubelet
    config, places = dict(kubelet.config), dict(kubelet.drop_ins)
    for file in _walked(_below(root, Path(directory))):
        try:
            said = scalars(file.read_text(errors="replace"))
        except (OSError, NodedError) as error:
            return replace(kubelet, problem_path=str(file), problem=_problem(error))
        config.update(said)
        places.update(dict.fromkeys(said, str(file)))
    return replace(kubelet, config=config, drop_ins=places)


def _walked(directory: Path) -> Iterator[Path]:
    """Drop-ins, directories below too, in the order of their names."""
    try:
        entries = sorted(directory.iterdir(), key=lambda entry: entry.name.encode(errors="surrogateescape"))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _walked(entry)
        elif entry.suffix == _DROP_IN_SUFFIX:
            yield entry


def _unit_files(root: Path) -> Iterator[Path]:
    """The strongest unit file, then all drop-ins in the order in which systemd reads them."""
    units = [_below(root, directory) / _UNIT for directory in _UNIT_DIRECTORIES]
    yield from [unit for unit in units if unit.is_file()][-1:]
    drop_ins: dict[str, Path] = {}
    for unit in units:
        for file in sorted(unit.with_name(f"{_UNIT}.d").glob("*.conf")):
            drop_ins[file.name] = file  # one of the same name in a stronger directory takes its place
    yield from (drop_ins[name] for name in sorted(drop_ins))


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _shown(path: Path, root: Path) -> str:
    return str(Path("/") / path.relative_to(root))


def _problem(error: OSError | NodedError) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
