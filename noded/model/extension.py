"""Values that plugins hand to noded and noded hands to plugins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `noded check`.

    Args:
        subject: what was looked at, e.g. "/dev/kvm".
        ok: whether it is as needed.
        detail: what was found, and what to do when it is not ok.
    """

    subject: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact about a pod or container, told after it has been committed.

    Args:
        kind: "sandbox_started", "sandbox_stopped", "sandbox_removed", "container_created",
            "container_started", "container_exited", "container_removed" or "container_call_blocked" (by
            seccomp, once for each call; where the pod wants that reported); plugins ignore others.
        container_id: "" for an event of the sandbox itself.
        detail: text for people, e.g. the reason of an exit; of a blocked call its name.
    """

    kind: str
    at_ns: int
    sandbox_id: str
    container_id: str = ""
    exit_code: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of an OCI runtime spec.

    Args:
        path: keys from the top of the spec to the place, e.g. ("annotations", "example.com/x").
            Missing objects on the way are made.
        value: what to put there; ignored with `remove`.
        append: add `value` to the end of the list at `path` instead. Appending never conflicts.
        remove: take the key away; a missing one is success.
    """

    path: tuple[str, ...]
    value: Any = None
    append: bool = False
    remove: bool = False
