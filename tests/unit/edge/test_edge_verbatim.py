"""Requests as they came."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref

from edge_fakes import FakeCore

from noded.edge.method import unary
from noded.edge.verbatim import verbatim
from noded.proto.runtime import v1

# With a field that this noded does not know.
SENT = bytes(v1.VersionRequest(version="1")) + b"\xfa\x3f\x03new"


def test_tasks_that_outlive_a_call_do_not_keep_its_request(serve):
    """The watch of a container is such a task: it has the context of the call that began it."""
    stored, kept, requests = [], [], []

    async def run(request, deadline):
        stored.append(verbatim(request))
        kept.append(contextvars.copy_context())
        requests.append(weakref.ref(request))
        return v1.VersionResponse()

    async def main():
        methods = [unary("runtime.v1.RuntimeService", "Version", v1.VersionRequest, v1.VersionResponse, run)]
        async with serve(FakeCore(), methods) as client:
            await client.channel.unary_unary("/runtime.v1.RuntimeService/Version")(SENT)

    asyncio.run(main())
    gc.collect()
    assert stored == [SENT]
    assert [request() for request in requests] == [None]
    assert kept[0].run(verbatim, v1.VersionRequest(version="2")) == bytes(v1.VersionRequest(version="2"))
