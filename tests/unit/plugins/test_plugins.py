"""Discovery, handlers and hooks, with plugins that behave and plugins that do not."""

from __future__ import annotations

import sys
import threading
import types
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from noded import api, hookspecs
from noded.api import Edit, Event, Finding, RuntimeType, hookimpl
from noded.config import Config, HandlerConfig
from noded.errors import FailedPrecondition, Unavailable
from noded.model.runtime import RuntimeFeatures
from noded.plugins import (
    Hooks,
    apply_edits,
    describe_handlers,
    describe_plugins,
    discover,
    discovery,
    open_handlers_of,
)
from noded.plugins import hooks as plugin_hooks
from noded.plugins.deadline import call_within


@dataclass(frozen=True)
class Options:
    path: str = ""
    number: int = 1


class FakeDistribution:
    version = "1.2"

    def __init__(self, name):
        self.name = name


class FakeRuntime:
    def __init__(self, error=None):
        self.error = error

    async def features(self):
        if self.error:
            raise self.error
        return RuntimeFeatures(version="9")


def point(distribution, name, module):
    """An entry point of an invented distribution, whose module is the given object."""
    module_name = f"fake_plugin_{distribution}_{name}".replace("-", "_")
    sys.modules[module_name] = module
    made = EntryPoint(name, module_name, "noded")
    vars(made).update(dist=FakeDistribution(distribution))
    return made


def plugin(**hooks):
    module = types.ModuleType("fake")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def offering(*names, open_=lambda handler, options, host: FakeRuntime()):
    return plugin(noded_runtime_types=lambda: [RuntimeType(name, Options, open_, ("sh",)) for name in names])


def config(*handlers):
    return Config(runtimes=tuple(handlers))


def test_a_handler_is_opened_with_its_options():
    seen = []
    good = offering("demo", open_=lambda *args: seen.append(args) or FakeRuntime())
    plugins = discover(points=[point("dist-a", "demo", good)])
    handlers = open_handlers_of(plugins, config(HandlerConfig("h1", "demo", {"number": 5})), "HOST")
    assert seen == [("h1", Options(number=5), "HOST")]
    handler = handlers["h1"]
    assert (handler.distribution, handler.version, handler.unavailable) == ("dist-a", "1.2", "")
    assert handler.runtime is not None


def test_a_type_offered_twice_is_refused_naming_both_distributions():
    plugins = discover(
        points=[point("dist-a", "one", offering("x", "y")), point("dist-b", "two", offering("x"))]
    )
    handlers = open_handlers_of(plugins, config(HandlerConfig("h", "x"), HandlerConfig("i", "y")), None)
    assert "dist-a" in handlers["h"].unavailable
    assert "dist-b" in handlers["h"].unavailable
    assert handlers["i"].runtime is not None


def raising(*_):
    raise RuntimeError("out of order\nsecond line")


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (plugin(noded_runtime_types=raising), "RuntimeError: out of order"),
        (plugin(noded_runtime_types=lambda: ["x"]), "not a RuntimeType"),
        (plugin(noded_runtime_types=lambda: sys.exit(3)), "SystemExit"),
        (plugin(noded_unheard_of=lambda: None), "noded_unheard_of"),
        (plugin(noded_observe=lambda evnt: None), "evnt"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_others_work(module, problem):
    plugins = discover(points=[point("bad-dist", "bad", module), point("good-dist", "good", offering("x"))])
    bad = next(each for each in plugins.plugins if each.name == "bad")
    assert problem in bad.problem
    handlers = open_handlers_of(plugins, config(HandlerConfig("h", "x"), HandlerConfig("lost", "gone")), None)
    assert handlers["h"].runtime is not None
    assert "bad-dist" in handlers["lost"].unavailable
    assert Hooks(plugins).muted == ()


def test_a_plugin_that_cannot_be_imported_is_reported():
    broken = EntryPoint("broken", "no_such_module_anywhere", "noded")
    vars(broken).update(dist=FakeDistribution("dist-x"))
    (found,) = discover(points=[broken]).plugins
    assert "no_such_module_anywhere" in found.problem


def test_a_disabled_plugin_is_not_imported():
    never = EntryPoint("never", "no_such_module_anywhere", "noded")
    vars(never).update(dist=FakeDistribution("dist-x"))
    for disabled in ({"never"}, {"dist-x"}):
        (found,) = discover(disabled, [never]).plugins
        assert "disabled" in found.problem


@pytest.mark.parametrize(
    ("open_", "options", "reason"),
    [
        (raising, {}, "dist-a could not open it: RuntimeError: out of order"),
        (lambda *_: FakeRuntime(), {"nmber": 1}, "did you mean number"),
        (lambda *_: FakeRuntime(), {"number": "x"}, "runtimes.h.number"),
    ],
)
def test_a_handler_that_cannot_be_opened_says_why(open_, options, reason):
    plugins = discover(points=[point("dist-a", "a", offering("x", open_=open_))])
    handler = open_handlers_of(plugins, config(HandlerConfig("h", "x", options)), None)["h"]
    assert handler.runtime is None
    assert reason in handler.unavailable


def test_reports_tell_binaries_features_and_problems():
    sick = offering("sick", open_=lambda *_: FakeRuntime(Unavailable("install sick")))
    plugins = discover(points=[point("d1", "good", offering("x")), point("d2", "sick", sick)])
    handlers = open_handlers_of(
        plugins, config(HandlerConfig("h", "x"), HandlerConfig("s", "sick", {"path": "/nonexistent"})), None
    )
    healthy, ill = trio.run(describe_handlers, handlers)
    assert healthy.features is not None
    assert healthy.binaries[0][1].endswith("/sh")
    assert (ill.features, ill.unavailable) == (None, "install sick")
    assert ill.binaries == (("/nonexistent", ""),)
    assert [(each.name, each.handlers) for each in describe_plugins(plugins, handlers)] == [
        ("good", ("h",)),
        ("sick", ("s",)),
    ]


def test_the_installed_plugins_offer_their_types():
    plugins = discover()
    assert {"runc", "crun", "runsc", "kata", "shim"} <= plugins.types.keys()
    assert [plugin.problem for plugin in plugins.plugins if plugin.distribution.startswith("noded-")] == [
        ""
    ] * 3


def test_a_late_call_is_abandoned():
    blocked = threading.Event()
    with pytest.raises(api.DeadlineExceeded, match="the call did not return"):
        call_within(0.01, blocked.wait, "the call")
    blocked.set()


# --- hooks


def hooks_of(**modules):
    return Hooks(discover(points=[point(f"dist-{name}", name, module) for name, module in modules.items()]))


def edit_spec(hooks, spec):
    return trio.run(hooks.edit_spec, spec, None, None, {})


def test_edits_of_several_plugins_are_merged():
    hooks = hooks_of(
        a=plugin(noded_spec_edits=lambda spec: [Edit(("annotations", "a"), spec["ociVersion"])]),
        b=plugin(noded_spec_edits=lambda: iter([Edit(("process", "env"), "B=1", append=True)])),
    )
    spec = {"ociVersion": "1.0.2", "process": {"env": ["A=1"]}}
    assert edit_spec(hooks, spec) == {
        "ociVersion": "1.0.2",
        "process": {"env": ["A=1", "B=1"]},
        "annotations": {"a": "1.0.2"},
    }
    assert spec == {"ociVersion": "1.0.2", "process": {"env": ["A=1"]}}


def test_contradicting_plugins_are_both_named():
    hooks = hooks_of(
        a=plugin(noded_spec_edits=lambda: [Edit(("hostname",), "x")]),
        b=plugin(noded_spec_edits=lambda: [Edit(("hostname",), "y")]),
    )
    with pytest.raises(FailedPrecondition, match=r"dist-\w and dist-\w change hostname"):
        edit_spec(hooks, {})


def test_a_plugin_that_changes_the_spec_it_was_given_has_no_effect():
    hooks = hooks_of(a=plugin(noded_spec_edits=lambda spec: spec.clear()))
    assert edit_spec(hooks, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_plugins_are_called_in_the_configured_order_then_by_distribution():
    def seen(name):
        return plugin(noded_spec_edits=lambda: [Edit(("order",), name, append=True)])

    points = [point(f"dist-{name}", name, seen(name)) for name in "abcd"]
    found = discover((), points, ("d", "dist-c", "nobody"))
    spec = trio.run(Hooks(found).edit_spec, {}, None, None, {})
    assert spec["order"] == ["d", "c", "a", "b"]


def test_a_plugin_whose_every_hook_sleeps_for_ever_is_left_behind(monkeypatch):
    for name in ("_EDITS_SECONDS", "_OBSERVE_SECONDS", "_DIAGNOSE_SECONDS"):
        monkeypatch.setattr(plugin_hooks, name, 0.05)
    monkeypatch.setattr(discovery, "_TYPES_SECONDS", 0.05)
    release = threading.Event()
    names = ("noded_runtime_types", "noded_spec_edits", "noded_observe", "noded_diagnose")
    try:
        types_sleep = plugin(**{name: lambda: release.wait() for name in names})
        found = discover((), [point("dist-a", "a", types_sleep), point("dist-b", "b", offering("fine"))])
        assert "noded_runtime_types did not return within 0.05 s" in found.plugins[0].problem
        assert set(found.types) == {"fine"}
        hooks = hooks_of(a=plugin(**{name: lambda: release.wait() for name in names[1:]}))

        async def main():
            with pytest.raises(FailedPrecondition, match=r"dist-a .*did not return"):
                await hooks.edit_spec({}, None, None, {})
            await hooks.observe(Event("k", 0, "s"))
            ((who, finding),) = await hooks.diagnose(None)
            assert (who, finding.ok) == ("dist-a", False)

        trio.run(main)
    finally:
        release.set()


def test_a_failing_edit_fails_the_creation_also_when_muted():
    calls = []
    hooks = hooks_of(a=plugin(noded_spec_edits=lambda: calls.append(1) or raising()))
    for _ in range(5):
        with pytest.raises(FailedPrecondition, match="dist-a failed in noded_spec_edits"):
            edit_spec(hooks, {})
    assert len(calls) == 3
    assert hooks.muted == (("dist-a", "noded_spec_edits"),)


def test_a_raising_observer_is_muted_and_the_others_still_hear():
    heard, calls = [], []
    hooks = hooks_of(
        bad=plugin(noded_observe=lambda event: calls.append(event) or raising()),
        good=plugin(noded_observe=lambda event: heard.append(event.kind)),
    )

    async def main():
        for number in range(5):
            await hooks.observe(Event(f"k{number}", 0, "s"))

    trio.run(main)
    assert heard == ["k0", "k1", "k2", "k3", "k4"]
    assert len(calls) == 3


def test_an_observer_that_never_returns_is_left_behind():
    release = threading.Event()
    hooks = hooks_of(slow=plugin(noded_observe=lambda event: release.wait()))

    async def main():
        for _ in range(4):
            await hooks.observe(Event("k", 0, "s"))

    try:
        with_mock_clock(main)
        assert hooks.muted == (("dist-slow", "noded_observe"),)
    finally:
        release.set()


def with_mock_clock(main):
    """Deadlines pass at once while only foreign threads are busy."""
    clock = trio.testing.MockClock(rate=100.0)
    trio.run(main, clock=clock)


def test_findings_come_with_their_distribution_and_failures_are_findings():
    hooks = hooks_of(
        a=plugin(noded_diagnose=lambda host: [Finding("/dev/kvm", False, "missing")]),
        b=plugin(noded_diagnose=raising),
    )
    findings = trio.run(hooks.diagnose, None)
    assert ("dist-a", Finding("/dev/kvm", False, "missing")) in findings
    assert any(who == "dist-b" and not finding.ok for who, finding in findings)


# --- edits

_PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple)


@given(st.lists(st.tuples(_PATHS, st.integers()), min_size=1, max_size=6))
def test_edits_of_one_plugin_never_conflict_and_the_last_wins(pairs):
    depth = len(pairs[0][0])
    edits = [("p", Edit(path, value)) for path, value in pairs if len(path) == depth]
    result = apply_edits({}, edits)
    for key in edits[-1][1].path:
        result = result[key]
    assert result == edits[-1][1].value


def test_an_edit_inside_what_is_no_object_is_refused():
    with pytest.raises(FailedPrecondition, match=r"plugin p cannot edit the OCI spec: a is not an object"):
        apply_edits({"a": 1}, [("p", Edit(("a", "b"), 1))])
    with pytest.raises(FailedPrecondition, match="a is not a list"):
        apply_edits({"a": 1}, [("p", Edit(("a",), 1, append=True))])


@given(_PATHS, st.integers(), st.integers())
def test_two_plugins_may_agree_but_not_contradict(path, first, second):
    edits = [("p", Edit(path, first)), ("q", Edit(path, second))]
    if first == second:
        assert apply_edits({}, edits) == apply_edits({}, edits[:1])
    else:
        with pytest.raises(FailedPrecondition, match="p and q"):
            apply_edits({}, edits)


def test_removing_what_is_not_there_is_success_and_makes_nothing():
    assert apply_edits({"a": {}}, [("p", Edit(("a", "b", "c"), remove=True))]) == {"a": {}}
    assert apply_edits({"a": {"b": 1}}, [("p", Edit(("a", "b"), remove=True))]) == {"a": {}}


def test_setting_inside_what_another_plugin_replaces_is_a_conflict():
    edits = [("p", Edit(("a",), {})), ("q", Edit(("a", "b"), 1))]
    with pytest.raises(FailedPrecondition, match="differently"):
        apply_edits({}, edits)


def test_every_hook_documents_itself_and_its_arguments():
    import inspect

    names = [name for name in vars(hookspecs) if name.startswith("noded_")]
    assert sorted(names) == ["noded_diagnose", "noded_observe", "noded_runtime_types", "noded_spec_edits"]
    for name in names:
        function = getattr(hookspecs, name)
        for argument in inspect.signature(function).parameters:
            assert f"{argument}:" in function.__doc__
        assert "Deadline:" in function.__doc__


def test_the_public_door_exports_what_it_lists():
    assert sorted(api.__all__) == sorted(set(api.__all__))
    assert all(hasattr(api, name) for name in api.__all__)
