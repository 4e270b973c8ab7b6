"""Which handler a run of the acceptance suite is about, and what its runtime cannot do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from noded import config_text
from noded.config import Config
from noded.errors import NotFound


class Ability(StrEnum):
    """What some runtimes lack by their nature. The values are the words of the printed matrix."""

    CONTAINER_LIMITS = "limits of each container (without: of the pod as a whole)"
    UPDATE = "changing the limits of a running container"
    SHARED_PIDS = "one PID namespace for the containers of a pod"
    LOOPBACK_FORWARD = "port-forward to servers on the pod's loopback (without: on its address only)"


@dataclass(frozen=True, slots=True)
class HandlerCase:
    """One handler under test.

    Args:
        name: the handler's name, as a RuntimeClass would say it.
        toml: the lines of its `[runtimes.NAME]` table.
        lacks: what its runtime cannot do; the suite then checks that it is refused clearly.
        slow: factor for the suite's time limits, e.g. for virtual machines without KVM.
        monitor: start of the command name of what watches a container, "" = there is none to kill.
        monitor_of_pod: whether one such process serves a pod, so that all its containers end with it.
    """

    name: str
    toml: str
    lacks: frozenset[Ability] = field(default_factory=frozenset)
    slow: float = 1.0
    monitor: str = "conmon"
    monitor_of_pod: bool = False

    def __str__(self) -> str:
        return self.name

    def can(self, ability: Ability) -> bool:
        return ability not in self.lacks


def case_of(
    config: Config, name: str, *, lacks: frozenset[Ability] = frozenset(), slow: float = 1.0
) -> HandlerCase:
    """The case of a handler in a configuration. Raises NotFound."""
    for handler in config.runtimes:
        if handler.name == name:
            text = config_text.render(replace(Config(), runtimes=(handler,)))
            _, _, table = text.partition(f"[runtimes.{name}]\n")
            return HandlerCase(name, table, lacks, slow)
    known = ", ".join(handler.name for handler in config.runtimes)
    raise NotFound(f"no handler {name!r} in the configuration; handlers: {known}")


def matrix(cases: list[HandlerCase]) -> str:
    """What each handler can do, as a Markdown table."""
    lines = [
        "| | " + " | ".join(case.name for case in cases) + " |",
        "|---|" + "---|" * len(cases),
    ]
    for ability in Ability:
        cells = " | ".join("yes" if case.can(ability) else "no" for case in cases)
        lines.append(f"| {ability.value} | {cells} |")
    ends = (("all containers of its pod" if one.monitor_of_pod else "its container") for one in cases)
    lines.append(f"| what ends with a killed monitor | {' | '.join(ends)} |")
    return "\n".join(lines) + "\n"
