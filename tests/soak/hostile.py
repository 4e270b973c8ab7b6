"""Calls that no good client makes. Each must be refused as the caller's fault, and change nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import grpc

from tests.support.cri_client import Cri

SECONDS = 30.0
# What a caller may be told about a call that makes no sense. OK is for calls that are idempotent,
# and for those whose nonsense decodes to a request without any field.
REFUSALS = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
# Streams that answer until the client leaves, and one call that would want a registry.
_NOT_ASKED = frozenset({"GetContainerEvents", "PullImage"})
_IDS = ("", " ", "../../etc/passwd", "x" * 5000, "a\nb", "%s%n", "\u202e" * 40, "f" * 64, "-", "0", "/", ".")
_NUMBERS = (-1, -(1 << 63), (1 << 63) - 1, 1 << 40)


def call(cri: Cri, variant: int) -> tuple[str, grpc.StatusCode, str]:
    """Make the call of this number: what was called, and the code and message of the answer."""
    rng = random.Random(variant)
    what, act = rng.choice((_bytes, _bytes, _field, _field, _field, _mutated, _unknown, _huge))(cri, rng)
    try:
        act()
    except grpc.RpcError as error:
        return what, error.code(), str(error.details())
    return what, grpc.StatusCode.OK, ""


Act = tuple[str, Callable[[], Any]]


def _methods(cri: Cri) -> list[tuple[str, Any, bool]]:
    """(path, request class, answers with a stream) of every method."""
    found = []
    for service in cri.pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            if method.name not in _NOT_ASKED:
                request = getattr(cri.pb, method.input_type.name)
                found.append((f"/{service.full_name}/{method.name}", request, method.server_streaming))
    return found


def _raw(cri: Cri, path: str, data: bytes, streams: bool) -> Callable[[], Any]:
    if streams:
        return lambda: list(cri.channel.unary_stream(path)(data, timeout=SECONDS))
    return lambda: cri.channel.unary_unary(path)(data, timeout=SECONDS)


def _bytes(cri: Cri, rng: random.Random) -> Act:
    path, _, streams = rng.choice(_methods(cri))
    data = rng.randbytes(rng.choice((0, 1, 7, 100, 5000)))
    return f"{path} with {len(data)} random bytes", _raw(cri, path, data, streams)


def _field(cri: Cri, rng: random.Random) -> Act:
    """Some fields are set, to strange values."""
    path, message, streams = rng.choice(_methods(cri))
    request = message()
    _fill(request, rng, 4)
    return f"{path} with {str(request)[:300]!r}", _raw(cri, path, request.SerializeToString(), streams)


def _fill(message: Any, rng: random.Random, depth: int) -> None:
    fields = message.DESCRIPTOR.fields
    for field in rng.sample(list(fields), min(len(fields), rng.randint(1, 3))):
        kind = field.cpp_type
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        if kind == field.CPPTYPE_MESSAGE:
            if depth:
                child = getattr(message, field.name)
                child = child.add() if repeated else child
                if not repeated:
                    child.SetInParent()
                _fill(child, rng, depth - 1)
            continue
        if kind == field.CPPTYPE_STRING:
            value: Any = rng.choice(_IDS) if field.type != field.TYPE_BYTES else rng.randbytes(9)
        elif kind == field.CPPTYPE_BOOL:
            value = True
        elif kind in (field.CPPTYPE_INT64, field.CPPTYPE_INT32):
            value = rng.choice(_NUMBERS) if kind == field.CPPTYPE_INT64 else rng.choice((-1, 1 << 30))
        elif kind in (field.CPPTYPE_UINT64, field.CPPTYPE_UINT32):
            value = rng.choice((1 << 31, 0xFFFFFFFF))
        elif kind == field.CPPTYPE_ENUM:
            value = rng.choice((-1, 99))
        else:
            continue
        if repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


def _mutated(cri: Cri, rng: random.Random) -> Act:
    """A good pod but for one thing."""
    pb = cri.pb
    config = cri.pod_config("hostile", cgroup_parent="/hostile")
    ways: dict[str, Callable[[], Any]] = {
        "no metadata": lambda: config.ClearField("metadata"),
        "no name": lambda: setattr(config.metadata, "name", ""),
        "no uid": lambda: setattr(config.metadata, "uid", ""),
        "a log directory that is relative": lambda: setattr(config, "log_directory", "../logs"),
        "a cgroup that climbs out": lambda: setattr(config.linux, "cgroup_parent", "/../../x"),
        "a host name with a newline": lambda: setattr(config, "hostname", "a\nb"),
        "a host name of 5000 characters": lambda: setattr(config, "hostname", "h" * 5000),
        "an unknown sysctl": lambda: config.linux.sysctls.update({"kernel/../../x": "1"}),
        "a name server with a newline": lambda: config.dns_config.servers.append("1.1.1.1\nroot::0:0"),
        "a port of 99999": lambda: config.port_mappings.add(container_port=99999, host_port=99999),
        "a negative port": lambda: config.port_mappings.add(container_port=-1, host_port=-5),
    }
    name, change = rng.choice(list(ways.items()))
    change()
    handler = rng.choice(("", "", "no-such-handler", "../runc"))
    if name == "no uid" and not handler:
        handler = "no-such-handler"
    request = pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
    return f"RunPodSandbox with {name}, handler {handler!r}", lambda: cri.runtime.RunPodSandbox(
        request, timeout=SECONDS
    )


def _unknown(cri: Cri, rng: random.Random) -> Act:
    path = rng.choice(
        ("/runtime.v1.RuntimeService/NotYetInvented", "/x.Y/Z", "/runtime.v1alpha2.RuntimeService/Version")
    )
    return path, _raw(cri, path, b"", False)


def _huge(cri: Cri, rng: random.Random) -> Act:
    path, _, streams = rng.choice(_methods(cri))
    return f"{path} with 17 MiB", _raw(cri, path, bytes(17 << 20), streams)
