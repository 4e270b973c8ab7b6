"""Runs the plugins of one network in the order that each verb asks for.

Everything comes from the attachment as it was stored before ADD: the list on disk is never read
here, so DEL stays right after the file has changed or gone.

Spec: 1.1.0 section 3 (execution of network configurations).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from noded.errors import FailedPrecondition, NodedError, Unavailable
from noded.model.network import Attachment, AttachmentResult
from noded.network import answer as answers
from noded.network.conflist import LOOPBACK, is_disabled, plugin_request
from noded.network.plugin import Budget, Invocation, Plugins
from noded.network.result import conform, pod_addresses
from noded.network.version import at_least


async def add(plugins: Plugins, attachment: Attachment, budget: Budget) -> AttachmentResult:
    """Run ADD of every plugin, each with the result of the one before.

    Nothing is undone on failure: the caller owes a `delete`.

    Raises:
        Unavailable: a plugin is missing, failed, crashed or printed garbage.
        FailedPrecondition: the configuration is at fault, or the pod got no address.
        DeadlineExceeded: a plugin did not answer within the budget.

    Cancellation: kills the running plugin; what it did stays for `delete`.
    """
    document = attachment.conflist
    invocation = _invocation("ADD", attachment, attachment.netns_path)
    result: Mapping[str, Any] | None = None
    for plugin in _plugins(document):
        request = plugin_request(
            document, plugin, capability_args=attachment.capability_args, previous=result
        )
        answer = await plugins.call(plugin["type"], invocation, request, budget)
        _succeed(answer, plugin["type"], invocation)
        try:
            result = conform(answers.result(answer), document["cniVersion"])
        except ValueError as error:
            raise Unavailable(
                f"CNI plugin {plugin['type']!r} answered ADD of {attachment.network!r} wrongly: {error}"
            ) from None
    addresses = pod_addresses(result or {}, attachment.ifname)
    if result is None or not addresses:
        raise FailedPrecondition(
            f"CNI network {attachment.network!r} gave the pod no IP address on {attachment.ifname}: "
            "configure an ipam plugin in it"
        )
    return AttachmentResult(raw=result, ips=addresses)


async def delete(
    plugins: Plugins, attachment: Attachment, result: AttachmentResult | None, budget: Budget
) -> None:
    """Run DEL of every plugin, last first; a success means that nothing is left of the attachment.

    Right also when ADD never ran, half ran, or the namespace is gone. Halts at the first failure,
    as the specification demands: DEL is then still owed for the whole list.

    Raises: Unavailable, FailedPrecondition, DeadlineExceeded naming the plugin.

    Cancellation: kills the running plugin; DEL stays owed.
    """
    document = attachment.conflist
    invocation = _invocation("DEL", attachment, live_netns(attachment.netns_path))
    previous = result.raw if result is not None and at_least(document["cniVersion"], "0.4.0") else None
    for plugin in reversed(list(_plugins(document))):
        request = plugin_request(
            document, plugin, capability_args=attachment.capability_args, previous=previous
        )
        why = await _ask(plugins, plugin["type"], invocation, request, budget)
        if why is not None and result is None:
            # Of an ADD that was cut off, real plugins need two: bridge 1.1 removes the interface,
            # then fails on the firewall rule that was not made yet; the next time it succeeds.
            why = await _ask(plugins, plugin["type"], invocation, request, budget)
        if why is not None:
            raise answers.failure("DEL", plugin["type"], attachment.network, why)


async def check(plugins: Plugins, attachment: Attachment, result: AttachmentResult, budget: Budget) -> None:
    """Run CHECK of every plugin; nothing is run where the version or the list excludes it.

    Raises: Unavailable, FailedPrecondition, DeadlineExceeded naming the plugin.

    Cancellation: kills the running plugin, no effect on the attachment.
    """
    document = attachment.conflist
    if not at_least(document["cniVersion"], "0.4.0") or is_disabled(document, "disableCheck"):
        return
    invocation = _invocation("CHECK", attachment, attachment.netns_path)
    for plugin in _plugins(document):
        request = plugin_request(
            document, plugin, capability_args=attachment.capability_args, previous=result.raw
        )
        answer = await plugins.call(plugin["type"], invocation, request, budget)
        _succeed(answer, plugin["type"], invocation)


async def status(plugins: Plugins, document: Mapping[str, Any], budget: Budget) -> None:
    """Run STATUS of every plugin; nothing is run before 1.1.0.

    Raises: Unavailable, FailedPrecondition, DeadlineExceeded: pods cannot be attached now, and why.
    """
    if not at_least(document["cniVersion"], "1.1.0"):
        return
    invocation = Invocation("STATUS", document["name"])
    for plugin in _plugins(document):
        answer = await plugins.call(plugin["type"], invocation, plugin_request(document, plugin), budget)
        _succeed(answer, plugin["type"], invocation)


async def gc(
    plugins: Plugins, document: Mapping[str, Any], valid: Iterable[Attachment], budget: Budget
) -> None:
    """Tell every plugin which attachments are valid, so that it frees all others it knows of.

    All plugins are asked even if one fails. Nothing is run before 1.1.0 or where the list says
    `disableGC`.

    Raises: the first plugin's error, the others as its notes.
    """
    if not at_least(document["cniVersion"], "1.1.0") or is_disabled(document, "disableGC"):
        return
    extra = {
        "cni.dev/valid-attachments": [
            {"containerID": attachment.sandbox_id, "ifname": attachment.ifname} for attachment in valid
        ]
    }
    invocation = Invocation("GC", document["name"])
    errors: list[NodedError] = []
    for plugin in _plugins(document):
        request = plugin_request(document, plugin, extra=extra)
        try:
            answer = await plugins.call(plugin["type"], invocation, request, budget)
            _succeed(answer, plugin["type"], invocation)
        except NodedError as error:
            errors.append(error)
    raise_first(errors)


def raise_first(errors: Sequence[NodedError]) -> None:
    """Raise the first error, if there is one, with the others as notes."""
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]


def live_netns(path: str) -> str:
    """Return `path` if a namespace is there, else "": the form in which DEL says that it is gone.

    A pin file that outlived its mount is no namespace: plugins would fail on it.
    """
    try:
        # All namespace files live on the one nsfs, and nothing else does.
        return path if os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev else ""
    except OSError:
        return ""


async def _ask(
    plugins: Plugins, type_: str, invocation: Invocation, request: Mapping[str, Any], budget: Budget
) -> answers.Refusal | None:
    why = answers.refusal(await plugins.call(type_, invocation, request, budget))
    # "Container unknown": the specification says that no cleanup is needed then.
    return None if why is not None and why.code == answers.UNKNOWN_CONTAINER else why


def _invocation(command: str, attachment: Attachment, netns: str) -> Invocation:
    return Invocation(
        command=command,
        network=attachment.network,
        container_id=attachment.sandbox_id,
        netns=netns,
        ifname=attachment.ifname,
        args=attachment.cni_args,
    )


def _plugins(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (plugin for plugin in document["plugins"] if plugin["type"] != LOOPBACK)


def _succeed(answer: answers.Answer, plugin: str, invocation: Invocation) -> None:
    why = answers.refusal(answer)
    if why is not None:
        raise answers.failure(invocation.command, plugin, invocation.network, why)
