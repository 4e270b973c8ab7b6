"""Platform choice, proxies, the tee, flights."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import NotFound, RegistryUnavailable, Unavailable
from noded.images.flight import Flights
from noded.images.platform import choose, host_platform
from noded.images.proxies import Proxies
from noded.images.tee import Tee
from noded.wire import digest as digests
from noded.wire.descriptor import Descriptor, Platform


def entry(text: str | None) -> Descriptor:
    platform = None if text is None else Platform(*text.split("/"))
    return Descriptor("application/json", digests.of(str(text).encode()), 1, platform)


def chosen(machine: str, *offered: str | None) -> Platform | None:
    return choose([entry(one) for one in offered], host_platform(machine), "x").platform


@pytest.mark.parametrize(
    ("machine", "offered", "expected"),
    [
        ("x86_64", ["linux/arm64", "linux/amd64", "windows/amd64"], "linux/amd64"),
        ("x86_64", ["linux/amd64/v3", "linux/amd64/v1"], "linux/amd64/v1"),
        ("x86_64", ["linux/386", "linux/amd64"], "linux/amd64"),
        ("x86_64", ["linux/x86_64"], "linux/x86_64"),
        ("aarch64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
        ("aarch64", ["linux/arm64"], "linux/arm64"),
        ("armv7l", ["linux/arm/v6", "linux/arm/v7", "linux/arm/v5"], "linux/arm/v7"),
        ("armv7l", ["linux/arm/v5", "linux/arm/6"], "linux/arm/6"),
        ("armv6l", ["linux/arm/v7", "linux/arm/v5"], "linux/arm/v5"),
        ("s390x", ["linux/s390x"], "linux/s390x"),
    ],
)
def test_the_best_platform_is_chosen(machine: str, offered: list[str], expected: str) -> None:
    assert chosen(machine, *offered) == Platform(*expected.split("/"))


def test_an_entry_without_a_platform_is_the_last_resort() -> None:
    assert chosen("x86_64", None) is None
    assert chosen("x86_64", None, "linux/amd64") == Platform("linux", "amd64")


def test_a_missing_platform_is_answered_with_what_there_is() -> None:
    with pytest.raises(NotFound, match="x has no image for linux/s390x, it has linux/amd64, windows/amd64"):
        chosen("s390x", "windows/amd64", "linux/amd64", "unknown/unknown")
    with pytest.raises(NotFound, match="none at all"):
        chosen("x86_64", "unknown/unknown")


PROXIES = Proxies.from_environment(
    {
        "HTTP_PROXY": "proxy:3128",
        "https_proxy": "http://secure:1",
        "HTTPS_PROXY": "",
        "NO_PROXY": "example.com, .only.sub,*.star.io,10.0.0.0/8,192.168.1.1,host:8080,[::2]:80,fd00::/8",
    }
)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "expected"),
    [
        ("http", "quay.io", 80, "http://proxy:3128"),
        ("https", "quay.io", 443, "http://secure:1"),
        ("https", "example.com", 443, ""),
        ("https", "a.example.com", 443, ""),
        ("https", "badexample.com", 443, "http://secure:1"),
        ("https", "only.sub", 443, "http://secure:1"),
        ("https", "x.only.sub", 443, ""),
        ("https", "a.star.io", 443, ""),
        ("https", "10.1.2.3", 443, ""),
        ("https", "11.1.2.3", 443, "http://secure:1"),
        ("https", "192.168.1.1", 443, ""),
        ("https", "host", 8080, ""),
        ("https", "host", 443, "http://secure:1"),
        ("http", "[::2]", 80, ""),
        ("http", "[fd00::1]", 80, ""),
        ("http", "localhost", 80, ""),
        ("http", "127.0.0.1", 5000, ""),
        ("http", "[::1]", 5000, ""),
        ("https", "EXAMPLE.com.", 443, ""),
    ],
)
def test_proxies_follow_the_environment(scheme: str, host: str, port: int, expected: str) -> None:
    assert PROXIES.proxy_for(scheme, host, port) == expected


def test_a_star_bypasses_every_proxy() -> None:
    assert Proxies("http://p", "http://p", ("*",)).proxy_for("https", "quay.io", 443) == ""
    assert Proxies().proxy_for("https", "quay.io", 443) == ""


@given(st.text(max_size=30), st.text(max_size=20))
def test_any_no_proxy_is_understood(bypass: str, host: str) -> None:
    Proxies.from_environment({"NO_PROXY": bypass, "HTTP_PROXY": "p"}).proxy_for("http", host, 80)


def read_all(fd: int, into: bytearray) -> None:
    while data := os.read(fd, 65536):
        into += data


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.integers(0, 100))
def test_a_download_that_starts_over_is_sent_once(chunks: list[bytes], restart: int) -> None:
    whole = b"".join(chunks)
    restart = min(restart, len(whole))
    read_end, write_end = os.pipe()
    tee, got = Tee(write_end), bytearray()
    tee.seek(0)
    tee.write(whole[:restart])
    tee.seek(0)
    for chunk in chunks:
        tee.write(chunk)
    tee.close()
    read_all(read_end, got)
    os.close(read_end)
    assert bytes(got) == whole
    assert not tee.spoiled


def test_a_download_that_begins_in_the_middle_spoils_the_copy() -> None:
    read_end, write_end = os.pipe()
    tee = Tee(write_end)
    tee.seek(5)
    tee.write(b"rest")
    tee.close()
    tee.close()
    assert tee.spoiled
    assert os.read(read_end, 10) == b""
    os.close(read_end)


def test_a_reader_that_leaves_does_not_disturb_the_download() -> None:
    read_end, write_end = os.pipe()
    tee = Tee(write_end)
    writer = threading.Thread(target=tee.write, args=(b"x" * (4 << 20),))
    writer.start()
    os.read(read_end, 10)
    os.close(read_end)
    writer.join(10)
    assert not writer.is_alive()
    tee.write(b"more")
    tee.close()


class Work:
    """Counts what flights do; ends when told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = self.ended = 0
        self.error = error
        self.go = trio.Event()

    def begin(self) -> Callable[[], Awaitable[int]]:
        self.begun += 1
        return partial(self._run, self.begun)

    async def _run(self, number: int) -> int:
        try:
            await self.go.wait()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            self.ended += 1
        if self.error is not None:
            raise self.error
        return number


def test_twenty_callers_share_one_flight() -> None:
    async def main() -> None:
        results = []
        async with trio.open_nursery() as service:
            flights: Flights[str, int] = Flights(service)
            work = Work()

            async def caller() -> None:
                results.append(await flights.join("k", work.begin))

            async with trio.open_nursery() as callers:
                for _ in range(20):
                    callers.start_soon(caller)
                await trio.testing.wait_all_tasks_blocked()
                assert "k" in flights
                work.go.set()
            assert results == [1] * 20
            assert work.begun == 1
            assert len(flights) == 0

    trio.run(main)


def test_a_caller_who_leaves_disturbs_nobody_and_the_last_one_ends_the_flight() -> None:
    async def main() -> None:
        async with trio.open_nursery() as service:
            flights: Flights[str, int] = Flights(service)
            work = Work()
            scopes = [trio.CancelScope() for _ in range(3)]

            async def caller(scope: trio.CancelScope) -> None:
                with scope:
                    await flights.join("k", work.begin)

            async with trio.open_nursery() as callers:
                for scope in scopes:
                    callers.start_soon(caller, scope)
                await trio.testing.wait_all_tasks_blocked()
                for scope in scopes[:2]:
                    scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert work.ended == 0
                scopes[2].cancel()
            assert work.ended == 1, "the last caller waits for the unwinding"
            work.go.set()
            assert await flights.join("k", work.begin) == 2

    trio.run(main)


def test_who_comes_while_a_flight_unwinds_gets_a_new_one() -> None:
    async def main() -> None:
        async with trio.open_nursery() as service:
            flights: Flights[str, int] = Flights(service)
            work = Work()
            async with trio.open_nursery() as first:
                first.start_soon(flights.join, "k", work.begin)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel_scope.cancel()
                async with trio.open_nursery() as second:
                    with trio.CancelScope(shield=True):
                        work.go.set()
                        assert await flights.join("k", work.begin) in (1, 2)
                    second.cancel_scope.cancel()

    trio.run(main)


@pytest.mark.parametrize("own", [False, True])
def test_a_failure_is_shared_or_tried_again_as_asked(own: bool) -> None:
    async def main() -> None:
        async with trio.open_nursery() as service:
            flights: Flights[str, int] = Flights(service)
            bad, good = Work(RegistryUnavailable("down")), Work()
            good.go.set()
            results: list[object] = []

            async def caller(work: Work) -> None:
                try:
                    results.append(await flights.join("k", work.begin, own_failures_only=own))
                except RegistryUnavailable as error:
                    results.append(error)

            async with trio.open_nursery() as callers:
                callers.start_soon(caller, bad)
                await trio.testing.wait_all_tasks_blocked()
                callers.start_soon(caller, good)
                await trio.testing.wait_all_tasks_blocked()
                bad.go.set()
            assert bad.error in results
            assert (1 in results) is own

    trio.run(main)


def test_a_service_that_stops_tells_its_callers() -> None:
    async def main() -> None:
        caught: list[str] = []
        async with trio.open_nursery() as callers, trio.open_nursery() as service:
            flights: Flights[str, int] = Flights(service)

            async def caller() -> None:
                try:
                    await flights.join("k", Work().begin)
                except Unavailable as error:
                    caught.append(str(error))

            callers.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
            service.cancel_scope.cancel()
        assert caught == ["noded is stopping: try again when it is up"]

    trio.run(main)
