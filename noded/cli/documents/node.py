"""The node, its daemon and its configuration."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class DaemonVersion(TypedDict):
    """What a running daemon says of itself."""

    name: str  # name of the runtime, noded
    version: str  # version of the daemon
    cri: str  # version of the API that it speaks


class Versions(TypedDict):
    """`noded version`."""

    program: str  # version of this program
    daemon: DaemonVersion | None  # null where none answers


class Condition(TypedDict):
    """One condition of the node, such as NetworkReady."""

    type: str  # its name
    status: bool  # whether it is met
    reason: str  # one word for programs; empty when it is met
    message: str  # what is wrong, for people


class HandlerFeatures(TypedDict):
    """What kubelet is told of one runtime handler."""

    name: str  # what a RuntimeClass names; empty for the default
    recursive_read_only_mounts: bool  # read-only mounts can be so all the way down
    user_namespaces: bool  # pods can have a user namespace of their own


class Status(TypedDict):
    """`noded status`."""

    conditions: list[Condition]  # all of them, met or not
    handlers: list[HandlerFeatures]  # runtime handlers that can be used
    info: dict[str, Any]  # the daemon's own account of itself; its keys are for people and may change


class CheckResult(TypedDict):
    """One thing that was looked at."""

    check: str  # stable name, subject.thing
    verdict: Literal["ok", "warn", "fail"]  # warn: pods run; fail: some or all do not
    found: str  # what is so
    why: str  # why it matters; empty when all is well
    fix: str  # the command that cures it, or what to write where; empty when all is well


class Check(TypedDict):
    """`noded check`."""

    schema: Literal["noded.check/1"]  # another number when a key changes its meaning
    noded: str  # version of this program
    verdict: Literal["ok", "warn", "fail"]  # the worst of all results
    counts: dict[str, int]  # number of results for each verdict
    results: list[CheckResult]  # in a fixed order


class Debt(TypedDict):
    """One teardown that failed and is retried."""

    id: str  # of the pod or container
    kind: str  # what is owed
    subject: str  # whose it is, for people
    since_ns: int  # first failure, nanoseconds since the epoch
    tries: int  # how often it failed
    last_error: str  # why, the last time
    next_try_ns: int  # when it is tried again, nanoseconds since the epoch; 0 = it is being tried


Debts = list[Debt]


class Forgiven(TypedDict):
    """`noded debts forgive`."""

    id: str  # of the debt that is not retried any more


Configuration = dict[str, Any]  # keys as in noded.toml, tables as objects


class ConfigDefault(TypedDict):
    """One key of the configuration."""

    key: str  # its dotted name, as network.conf_dir
    default: Any  # its value where no file has the key
    meaning: str  # what it is for, with the values or the unit that it takes


ConfigDefaults = list[ConfigDefault]


class ConfigChecked(TypedDict):
    """`noded config check`."""

    path: str  # the file that was asked for
    exists: bool  # whether there is one; without one the defaults are in force
    valid: bool  # whether it and its drop-ins are right; the exit status says so too
    problem: str  # what is wrong where; empty when they are


class ImportedKey(TypedDict):
    """What became of one key of another runtime's configuration."""

    key: str  # its dotted name
    value: str  # as it was set; never a password
    verdict: Literal["maps", "differs", "none"]  # the same; done in another way; no equivalent
    note: str  # the key of noded, or what to do instead


class ConfigImported(TypedDict):
    """`noded config import`."""

    config: dict[str, Any]  # what was translated, as tables of noded.toml
    toml: str  # the same as text
    report: list[ImportedKey]  # every key that was set


class Wiped(TypedDict):
    """`noded wipe`."""

    pods: list[str]  # ids of the pods that were removed
    images: list[str]  # ids of the images that were removed
    problems: list[str]  # what could not be removed, and why


class Bundle(TypedDict):
    """`noded support-bundle`."""

    path: str  # the file that was written
    parts: dict[str, str]  # name of each part, and why it could not be had; empty when it could


class SchemaListed(TypedDict):
    """`noded schema` without a command."""

    command: str  # words of the command
    about: str  # what the command does


Schemas = list[SchemaListed]
