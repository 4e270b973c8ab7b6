"""Runtime plugins and their handlers."""

from __future__ import annotations

from typing import Any, TypedDict


class Features(TypedDict):
    """What a handler can do."""

    version: str  # of the runtime
    recursive_read_only_mounts: bool  # read-only mounts can be so all the way down
    user_namespaces: bool  # pods can have a user namespace of their own
    idmap_mounts: bool  # volumes can be mapped into it
    update: bool  # limits of a running container can be changed
    exec: bool  # commands can be run in a container
    checkpoint: bool  # containers can be saved and restored
    needs_infra: bool  # it wants a sandbox container even when no namespace needs one
    highest_oci_version: str  # of the specification that it understands
    seccomp_notify: bool  # a filter's descriptor can be had
    sockets_in_netns: bool  # false: a network stack of its own
    waiting_reads: bool  # false: read(2) of a connection fails when no data has come yet
    forwards: bool  # the runtime itself connects to the loopback of a network stack of its own
    virtual_machine: bool  # containers run in one of the pod's own
    unknown_capabilities: list[str]  # CAP_ names that it refuses to be asked for
    usage_in_cgroup: bool  # false: the runtime is asked for usage


class Program(TypedDict):
    """A program that a handler runs."""

    name: str  # as it is configured
    path: str | None  # where it was found; null where it was not


class PluginListed(TypedDict):
    """One plugin."""

    name: str  # of its entry point
    distribution: str  # that it is part of
    version: str  # of the distribution
    hooks: list[str]  # that it implements
    runtime_types: list[str]  # that it offers
    handlers: list[str]  # of the configuration that use them
    problem: str  # why it is not in use; empty when it is
    muted: list[str]  # hooks that the running daemon no longer calls, after failures


class HandlerListed(TypedDict):
    """One handler of the configuration."""

    name: str  # what a RuntimeClass names
    type: str  # runtime type
    distribution: str  # of the plugin
    version: str  # of the distribution
    binaries: list[Program]  # that it runs
    features: Features | None  # null where they could not be had
    available: bool  # whether pods can use it
    unavailable_because: str  # why not; empty when they can


class PluginsListed(TypedDict):
    """`noded plugins list`."""

    plugins: list[PluginListed]  # installed ones
    handlers: list[HandlerListed]  # configured ones


class PluginOption(TypedDict):
    """A key of a table [runtimes.HANDLER]."""

    default: Any  # its value where it is not set
    meaning: str  # what it says; empty where its source is not there


class RuntimeTypeDescribed(TypedDict):
    """A runtime type of a plugin."""

    programs: list[str]  # that it runs
    options: dict[str, PluginOption]  # by key


class HandlerDescribed(TypedDict):
    """A handler that uses a type of the plugin."""

    type: str  # runtime type
    features: Features | None  # null where they could not be had
    programs: dict[str, str | None]  # where each was found; null where it was not
    unavailable_because: str  # why pods cannot use it; empty when they can


class PluginFinding(TypedDict):
    """What a plugin says of this node."""

    subject: str  # what it looked at
    ok: bool  # whether it is as needed
    detail: str  # what it found, and what to do


class PluginDescribed(TypedDict):
    """`noded plugins describe`."""

    name: str  # of its entry point
    distribution: str  # that it is part of
    version: str  # of the distribution
    problem: str  # why it is not in use; empty when it is
    hooks: dict[str, str]  # that it implements, and what each is for
    runtime_types: dict[str, RuntimeTypeDescribed]  # by name
    handlers: dict[str, HandlerDescribed]  # by name
    findings: list[PluginFinding]  # its part of `noded check`


class PluginWritten(TypedDict):
    """`noded plugins new`."""

    files: list[str]  # that were written
