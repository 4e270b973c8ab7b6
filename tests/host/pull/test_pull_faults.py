"""A proxy between noded and a real registry does everything wrong that networks and registries do.

Each pull succeeds by a retry or a resume, or fails with a message that says what happened, within its
deadline; a pull that fails leaves nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from fault_proxy import (
    Fault,
    FaultProxy,
    another_range,
    chunked,
    drop,
    drop_in_headers,
    flipped,
    hang_up,
    many_headers,
    no_http,
    redirect,
    resized,
    say,
    slow_body,
    slow_headers,
    stall,
    without_ranges,
)
from pull_node import IMAGE, Node, check

from noded.errors import (
    DataLoss,
    FailedPrecondition,
    NodedError,
    NotFound,
    PermissionDenied,
    RegistryUnavailable,
)
from noded.images.exchange import Retry
from noded.images.library import Library
from noded.images.pull import Puller
from tests.support.registry import Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]

LAYER = f"GET .*/blobs/{IMAGE.layer_digests[1]}"  # 700 KB
CONFIG = f"GET .*/blobs/{IMAGE.id}"
MANIFEST = "GET .*/manifests/"
ALWAYS = 99
STALL_SECONDS, CONNECT_SECONDS = 0.3, 0.3


@dataclass(frozen=True)
class Case:
    """Args:
    faults: pattern of requests, what goes wrong, how often; the first that is left counts.
    error: None for a pull that succeeds, else the class and a regular expression for the message.
    ranges: the Range headers of the requests for the layer, None where they do not matter.
    seconds: the pull's deadline, with room for a machine that is busy.
    """

    faults: tuple[tuple[str, Fault, int], ...]
    error: tuple[type[NodedError], str] | None = None
    ranges: tuple[str, ...] | None = None
    token_uses: int = 0
    seconds: float = 10


def once(pattern: str, *faults: Fault, **more: object) -> Case:
    return Case(tuple((pattern, fault, 1) for fault in faults), **more)


def always(pattern: str, fault: Fault, kind: type[NodedError], words: str, **more: object) -> Case:
    return Case(((pattern, fault, ALWAYS),), (kind, words), **more)


UNAVAILABLE = RegistryUnavailable
CASES = {
    # drops
    "dropped in a layer": once(LAYER, drop(200_000), ranges=("", "bytes=200000-")),
    "dropped again and again": once(
        LAYER, drop(100_000), drop(300_000), ranges=("", "bytes=100000-", "bytes=400000-")
    ),
    "dropped before the first byte": once(LAYER, drop(0), ranges=("", "")),
    "dropped for ever": always(LAYER, drop(7), UNAVAILABLE, "broke the connection at blob sha256:"),
    "dropped, then ranges are unknown": once(
        LAYER, drop(200_000), without_ranges, ranges=("", "bytes=200000-")
    ),
    "dropped, then another range": once(LAYER, drop(200_000), another_range),
    "hung up at the manifest": once(MANIFEST, hang_up, hang_up),
    "dropped amid headers": once(".*manifests", drop_in_headers),
    "dropped amid the headers of a layer": once(LAYER, drop_in_headers, ranges=("", "")),
    "dropped amid headers for ever": always(MANIFEST, drop_in_headers, UNAVAILABLE, "broke the connection"),
    "hung up for ever": always(".", hang_up, UNAVAILABLE, "broke the connection at manifests/"),
    "a manifest cut short": once(MANIFEST, drop(40)),
    "a manifest cut short for ever": always(MANIFEST, drop(40), UNAVAILABLE, "broke the connection"),
    "a configuration cut short": once(CONFIG, drop(10)),
    # stalls
    "stalled in a layer": once(LAYER, stall(after=150_000), ranges=("", "bytes=150000-")),
    "stalled before the headers": once(LAYER, stall()),
    "stalled for ever": always(LAYER, stall(after=9), UNAVAILABLE, "stalled .*sent nothing for too long"),
    "stalled at the manifest for ever": always(MANIFEST, stall(), UNAVAILABLE, "stalled .* at manifests/"),
    "slow headers": once(LAYER, slow_headers),
    "slow headers for ever": always(
        MANIFEST, slow_headers, UNAVAILABLE, "stalled .*did not begin its answer in time"
    ),
    "a slow body": once(LAYER, slow_body, ranges=("",)),
    # lengths and bytes
    "a layer that is too long": always(LAYER, resized(1), DataLoss, "bytes, its manifest says"),
    "a layer that is too short": always(LAYER, resized(-1), DataLoss, "bytes, its manifest says"),
    "chunks": once(LAYER, chunked(0)),
    "too many chunks": always(LAYER, chunked(5), DataLoss, "it is longer than"),
    "too few chunks for ever": always(LAYER, chunked(-5), UNAVAILABLE, "broke the connection"),
    "a wrong bit in a layer": always(LAYER, flipped, DataLoss, "sent a damaged layer"),
    "a wrong bit after a resume": Case(
        ((LAYER, drop(200_000), 1), (LAYER, flipped, ALWAYS)), (DataLoss, "sent a damaged layer")
    ),
    "a wrong bit in the configuration": always(CONFIG, flipped, DataLoss, "config"),
    "a wrong bit in the manifest": always(MANIFEST, flipped, DataLoss, "sent a manifest that"),
    # refusals
    "401 in the middle": Case((), token_uses=2),
    "401 while a layer is resumed": Case(
        ((LAYER, drop(200_000), 1),), token_uses=1, ranges=("", "", "bytes=200000-", "bytes=200000-")
    ),
    "401 without a way to log in": once(
        LAYER, say(401, "expired"), error=(PermissionDenied, r"wants a login .*\(expired\).*pull secret")
    ),
    "403 for a layer": always(LAYER, say(403, "not yours"), PermissionDenied, r"forbids it \(not yours\)"),
    "404 for a layer": always(LAYER, say(404, "gone"), NotFound, "lacks blobs/sha256:.*push it again"),
    "429 with Retry-After": once(LAYER, say(429, "slow down", Retry_After="1")),
    "429 that asks for an hour": once(
        LAYER, say(429, "slow down", Retry_After="3600"),
        error=(UNAVAILABLE, r"limits requests \(slow down\): wait, log in, or use a mirror"),
    ),
    "429 for ever": always(MANIFEST, say(429), UNAVAILABLE, "limits requests"),
    "500, 502, 503 and then it works": once(LAYER, say(500), say(502), say(503)),
    "503 with Retry-After": once(MANIFEST, say(503, Retry_After="1")),
    "504 for ever": always(LAYER, say(504, "no backend"), UNAVAILABLE, r"answered 504 4 times \(no ba"),
    "a teapot": always(LAYER, say(418), FailedPrecondition, "answered 418 for blobs/sha256"),
    # redirects
    "a redirect to the blob's store": once(LAYER, redirect("http://{upstream}{path}"), token_uses=99),
    "redirects in a circle": always(
        LAYER, redirect("http://{proxy}{path}"), FailedPrecondition, "redirects more than 10 times"
    ),
    "a redirect to nobody": always(LAYER, redirect("http://127.0.0.1:1/"), UNAVAILABLE, "cannot be reached"),
    "a redirect to a file": always(LAYER, redirect("file:///etc/shadow"), FailedPrecondition, "redirects"),
    # not even HTTP
    "another protocol": always(MANIFEST, no_http, FailedPrecondition, "cannot be talked to .*SSH-2.0"),
    "more headers than anybody needs": always(LAYER, many_headers, FailedPrecondition, "100 headers"),
}  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(IMAGE, "x/y", "z")
        yield running


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_overcome_or_told(tmp_path: Path, registry: Registry, name: str) -> None:
    case = CASES[name]
    node = Node(
        tmp_path,
        retry=Retry(first_wait_seconds=0.02, longest_wait_seconds=0.05),
        stall_seconds=STALL_SECONDS,
        connect_seconds=CONNECT_SECONDS,
    )
    with FaultProxy(registry.host, token_uses=case.token_uses) as proxy:
        node.trust(proxy.host, registry.host)
        for pattern, fault, times in case.faults:
            proxy.on(pattern, fault, times)
        image = f"{proxy.host}/x/y:z"

        async def work(puller: Puller, library: Library) -> None:
            with trio.fail_after(case.seconds):
                if case.error is None:
                    assert await puller.pull(image) == IMAGE.id
                    check(library, image)
                    await library.remove(image)
                else:
                    kind, words = case.error
                    with pytest.raises(kind, match=f"cannot pull {image}: registry {proxy.host} .*{words}"):
                        await puller.pull(image)
            assert library.list() == ()
            assert puller.progress() == ()

        node.run(work)
        assert node.is_empty()
        if case.ranges is not None:
            assert tuple(asked.get("range", "") for asked in proxy.asked(LAYER)) == case.ranges
