"""Handlers whose runtimes fail, hang or raise anything leave the others, and the daemon, alone."""

from __future__ import annotations

import dataclasses

import pytest
import trio
import trio.testing

from noded.config import HandlerConfig
from noded.engine import spec_files
from noded.engine.handlers import Handlers
from noded.errors import FailedPrecondition, InvalidArgument, Unavailable
from noded.model.runtime import RuntimeFeatures
from noded.plugins import Handler


class Fake:
    """A runtime whose probe returns or raises what it is told, or hangs."""

    def __init__(self, outcome):
        self.outcome = outcome

    async def features(self):
        await trio.lowlevel.checkpoint()
        if self.outcome == "hang":
            await trio.sleep_forever()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def handler(name, outcome):
    return Handler(name, "fake", Fake(outcome), HandlerConfig(name, "fake"))


FINE = RuntimeFeatures(version="1")


def test_a_probe_that_fails_in_any_way_is_a_problem_of_its_handler_only(autojump_clock):
    broken = {
        "kind": Unavailable("cannot find the program runx"),
        "nonsense": ZeroDivisionError("by zero"),
        "group": ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
        "late": "hang",
    }
    handlers = Handlers(
        {"fine": handler("fine", FINE)} | {name: handler(name, outcome) for name, outcome in broken.items()},
        "fine",
    )
    trio.run(handlers.probe, clock=autojump_clock)
    assert handlers.features() == [("fine", FINE)]
    assert set(handlers.problems) == set(broken)
    assert handlers.problems["kind"] == "cannot find the program runx"
    assert "ZeroDivisionError: by zero" in handlers.problems["nonsense"]
    assert "within 20 s" in handlers.problems["late"]


def test_who_waits_for_the_first_probe_is_told_once_it_is_over():
    handlers = Handlers({"fine": handler("fine", FINE)}, "fine")
    told = []
    handlers.when_probed(lambda: told.append(handlers.features()))
    assert told == []
    trio.run(handlers.probe)
    trio.run(handlers.probe)
    assert told == [[("fine", FINE)]]
    handlers.when_probed(lambda: told.append("at once"))
    assert told[1:] == ["at once"]


def test_a_handler_that_gets_well_is_used_and_one_that_falls_ill_is_not():
    runtime = Fake(Unavailable("gone"))
    handlers = Handlers({"x": Handler("x", "fake", runtime, HandlerConfig("x", "fake"))}, "x")

    async def main():
        await handlers.probe()
        with pytest.raises(FailedPrecondition, match="'x' is unavailable: gone"):
            await handlers.open("x")
        runtime.outcome = FINE
        assert await handlers.open("") == (runtime, FINE)
        assert handlers.problems == {}
        runtime.outcome = RuntimeError("broken")
        with pytest.raises(FailedPrecondition, match="RuntimeError: broken"):
            await handlers.open("x")
        assert handlers.features() == []

    trio.run(main)


def test_a_handler_that_is_taken_away_still_serves_the_pods_that_it_started():
    old = handler("old", dataclasses.replace(FINE, usage_in_cgroup=False))
    handlers = Handlers({"old": old, "new": handler("new", FINE)}, "old")

    async def main():
        await handlers.probe()
        handlers.replace({"new": handlers.opened["new"]}, "new")
        assert handlers.runtime("old") is old.runtime
        assert handlers.settings("old") is old.config
        assert not handlers.usage_in_cgroup("old")
        assert (await handlers.features_of("old")).version == "1"
        with pytest.raises(InvalidArgument, match="'old' is not configured"):
            await handlers.open("old")
        assert handlers.default == "new"

    trio.run(main)


class Slow(Fake):
    """A runtime that says when its probe has begun, and waits for its end to be allowed."""

    def __init__(self, outcome):
        super().__init__(outcome)
        self.begun, self.go_on = trio.Event(), trio.Event()

    async def features(self):
        self.begun.set()
        await self.go_on.wait()
        return await super().features()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("after", [dataclasses.replace(FINE, version="2"), Unavailable("gone"), None])
def test_a_handler_that_is_reloaded_while_it_is_opened_is_opened_as_it_is_then(after, known):
    slow = Slow(FINE)
    handlers = Handlers({"x": Handler("x", "fake", slow, HandlerConfig("x", "fake"))}, "x")
    new = {"x": handler("x", after)} if after is not None else {"other": handler("other", FINE)}

    async def replace():
        await slow.begun.wait()
        handlers.replace(new, "x")
        slow.go_on.set()

    async def main():
        if known:
            slow.go_on.set()
            await handlers.probe()
            slow.begun, slow.go_on = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace)
            if isinstance(after, RuntimeFeatures):
                assert await handlers.open("x") == (new["x"].runtime, after)
                return
            refusal = (FailedPrecondition, "'x' is unavailable: gone")
            if after is None:
                refusal = (InvalidArgument, "'x' is not configured")
            with pytest.raises(refusal[0], match=refusal[1]):
                await handlers.open("x")

    trio.run(main)


def test_a_handler_that_is_taken_away_while_all_are_probed_is_not_missed():
    old = Fake(FINE)
    handlers = Handlers({"old": Handler("old", "fake", old, HandlerConfig("old", "fake"))}, "old")

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handlers.probe)
            nursery.start_soon(replace_at_once)

    async def replace_at_once():
        handlers.replace({"new": handler("new", FINE)}, "new")

    for _ in range(20):  # trio runs tasks in a random order
        trio.run(main)
        handlers.replace({"old": Handler("old", "fake", old, HandlerConfig("old", "fake"))}, "old")


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0)


def test_a_broken_seccomp_profile_makes_its_handler_unavailable_and_names_the_key(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text('{"defaultAktion": "SCMP_ACT_ALLOW"}')
    own = Handler("own", "fake", Fake(FINE), HandlerConfig("own", "fake", seccomp_profile=str(path)))
    handlers = Handlers({"own": own, "fine": handler("fine", FINE)}, "fine")

    async def main():
        await handlers.probe()
        assert handlers.features() == [("fine", FINE)]
        problem = handlers.problems["own"]
        assert f"runtimes.own.seccomp_profile: seccomp profile {path}: defaultAktion" in problem
        assert 'did you mean "defaultAction"?' in problem
        path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
        assert (await handlers.open("own"))[1] == FINE
        path.unlink()
        with pytest.raises(FailedPrecondition, match=r"runtimes\.own\.seccomp_profile: cannot read"):
            await handlers.open("own")

    trio.run(main)


def test_the_profile_of_a_handler_is_parsed_once_while_its_file_is_the_same(tmp_path, monkeypatch):
    parse, parsed = spec_files.parse_profile, []
    monkeypatch.setattr(spec_files, "parse_profile", lambda *given: parsed.append(given) or parse(*given))
    path = tmp_path / "profile.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')

    async def main():
        profiles = [await spec_files.read_handler_profile("own", str(path)) for _ in range(3)]
        assert profiles[0] is profiles[1] is profiles[2]
        assert len(parsed) == 1
        path.write_text('{"defaultAction": "SCMP_ACT_ERRNO"}')
        changed = await spec_files.read_handler_profile("own", str(path))
        assert changed["defaultAction"] == "SCMP_ACT_ERRNO"
        assert len(parsed) == 2

    trio.run(main)
