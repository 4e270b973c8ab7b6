"""kubelet's configuration: its file, its environment files and its command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from noded.checks import facts
from noded.checks.gather.node import processes
from noded.errors import NodedError
from noded.wire.yaml_subset import scalars

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


def look(path: Path | None) -> facts.Kubelet:
    """Facts about kubelet; `path` of its configuration when it is not where kubelet says."""
    found: dict[str, str] = {}
    for file in _ENVIRONMENT:
        try:
            found.update(environment_flags(file.read_text(errors="replace")))
        except OSError:
            continue
    running = processes("kubelet")
    for _, words in running[:1]:
        found.update(flags(words[1:]))
    if path is not None:
        file = path
    else:
        file = Path(found["config"]) if found.get("config", "").startswith("/") else _DEFAULT
    try:
        config = scalars(file.read_text(errors="replace"))
    except FileNotFoundError:
        problem = "it does not exist" if path is not None else ""
        source = str(path or "")
        return facts.Kubelet(bool(running), source, {}, found, problem)
    except OSError as error:
        return facts.Kubelet(bool(running), str(file), {}, found, f"cannot be read: {error.strerror}")
    except NodedError as error:
        return facts.Kubelet(bool(running), str(file), {}, found, str(error))
    return facts.Kubelet(bool(running), str(file), config, found)
