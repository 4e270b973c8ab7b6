"""Every field of the CRI's CreateContainerRequest is in a golden case, and acts or has a reason not to.

The list of fields is that of the protocol's descriptors: a field that a newer CRI brings fails here until a
request of `cri_cases` has it. NODED_REGENERATE=1 rewrites the golden specs: then read the diff.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cri_cases import NODE, REQUESTS, case_of, infra_case_of, leaves, message, message_of, specs
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from spec_cases import FEATURES

from noded.edge.cri.decode_container import container_config
from noded.edge.cri.decode_pod import pod_config
from noded.errors import NodedError
from noded.proto.runtime import v1
from noded.spec.explain.case import build
from noded.spec.explain.explain import explained
from noded.spec.explain.fields import fields
from noded.spec.validate import validate_container, validate_pod

HERE = Path(__file__).parent
GOLDEN = HERE / "golden_cri"
SCHEMA = jsonschema.Draft202012Validator(json.loads((HERE / "schema.json").read_text()))
pytestmark = pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
REGENERATE = os.environ.get("NODED_REGENERATE", "") not in ("", "0")

# Fields that change no spec -> who acts on them, or why nobody does. The longest beginning counts.
_IMAGE = "the field `image` of the same message is what kubelet got from PullImage: it names the image"
_KEY = "part of the key of the container: a retry of the same one is the same operation"
_LISTS = "kept, shown in lists and statuses, and selected by"
_POD_DECIDES = "namespaces belong to the pod: those of sandbox_config count"
_INIT = "a pod's init has less than any container may ask for: no user of the node, no capability, no file"
_OVERHEAD = "a RuntimeClass has an overhead of CPU and memory only"
_WINDOWS = "Linux only"
ELSEWHERE = {
    "config.metadata.attempt": _KEY,
    "config.image.annotations": _IMAGE,
    "config.image.runtime_handler": "the pod's handler counts",
    "config.image.image_ref": _IMAGE,
    "config.mounts.selinux_relabel": "the files are labelled: noded.engine.selinux",
    "config.mounts.image.annotations": _IMAGE,
    "config.mounts.image.user_specified_image": _IMAGE,
    "config.mounts.image.runtime_handler": "the pod's handler counts",
    "config.mounts.image.image_ref": _IMAGE,
    "config.labels": _LISTS,
    "config.linux.security_context.namespace_options.network": _POD_DECIDES,
    "config.linux.security_context.namespace_options.userns_options": _POD_DECIDES,
    "config.windows": _WINDOWS,
    "sandbox_config.dns_config": "the pod's resolv.conf: noded.engine.pod_files",
    "sandbox_config.port_mappings": "CNI: noded.network",
    "sandbox_config.labels": _LISTS,
    "sandbox_config.linux.security_context.namespace_options.target_id": "of containers only",
    "sandbox_config.linux.security_context.run_as_user": _INIT,
    "sandbox_config.linux.security_context.run_as_group": _INIT,
    "sandbox_config.linux.security_context.readonly_rootfs": _INIT,
    "sandbox_config.linux.security_context.supplemental_groups": _INIT,
    "sandbox_config.linux.security_context.seccomp": _INIT,
    "sandbox_config.linux.security_context.apparmor": _INIT,
    "sandbox_config.linux.overhead.hugepage_limits": _OVERHEAD,
    "sandbox_config.linux.overhead.unified": _OVERHEAD,
    "sandbox_config.linux.sysctls": "written in the pod's namespaces: noded.engine.sandbox_ladder",
    "sandbox_config.windows": _WINDOWS,
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_gives_its_golden_spec(name):
    text, path = json.dumps(specs(message(name))["container"], indent=1) + "\n", GOLDEN / f"{name}.json"
    if REGENERATE:
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", REQUESTS)
def test_the_specs_of_a_request_are_valid_and_explained(name):
    request = message(name)
    for spec in specs(request).values():
        found = [
            f"{error.json_path}: {error.message}"
            for error in SCHEMA.iter_errors(json.loads(json.dumps(spec)))
        ]
        assert found == []
    for case in (case_of(request), infra_case_of(request), infra_case_of(request, needed=True)):
        found = explained(case)
        assert {one.name: one.value for one in found} == fields(build(case))
        assert [one.name for one in found if not (one.origin.name or one.origin.note)] == []


def test_there_is_no_golden_spec_without_a_request():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(REQUESTS)


@pytest.mark.parametrize("path", list(leaves()), ids=".".join)
def test_every_field_is_set_in_a_request_and_acted_on(path):
    name = ".".join(path)
    reason = next(
        (ELSEWHERE[prefix] for prefix in sorted(ELSEWHERE, reverse=True) if name.startswith(prefix)), ""
    )
    if reason is _WINDOWS:
        return
    holding = [one for one in REQUESTS if _is_set(message(one), path)]
    assert holding, f"no request of cri_cases sets {name}"
    changes = any(_changes(one, path) for one in holding)
    if reason:
        assert not changes, f"{name} changes the spec: it is not to be in ELSEWHERE"
    else:
        assert changes, (
            f"no value of {name} changes the spec: do something with it, or say in ELSEWHERE who does"
        )


def _is_set(request: v1.CreateContainerRequest, path: tuple[str, ...]) -> bool:
    holder = _holder(request, path)
    if holder is None:
        return False
    value = getattr(holder, path[-1])
    if bool(value):
        return True
    # 0 and the first member of an enumeration are values too, where something else of the message is set.
    return isinstance(value, int) and not isinstance(value, bool) and bytes(holder) != b""


def _holder(request: v1.CreateContainerRequest, path: tuple[str, ...]) -> Any:
    """The message that has the last field of a path: of lists, the last entry that has it."""
    holders: list[Any] = [request]
    for part in path[:-1]:
        inner = [getattr(holder, part) for holder in holders]
        holders = [
            one
            for value in inner
            for one in (value if isinstance(value, list) else [value])
            if one is not None
        ]
    return next(
        (one for one in reversed(holders) if getattr(one, path[-1])), holders[-1] if holders else None
    )


def _changes(name: str, path: tuple[str, ...]) -> bool:
    """Whether another value of the field gives other specs."""
    before = specs(message(name))
    for value in _others(getattr(_holder(message(name), path), path[-1])):
        request = message(name)
        setattr(_holder(request, path), path[-1], value)
        try:
            if specs(request) != before:
                return True
        except NodedError:
            continue
    return False


def _others(value: Any) -> Iterator[Any]:
    kind = type(value)
    if hasattr(kind, "__members__"):
        yield from (one for one in kind if one != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, bytes):
        yield value + b"x"
    elif isinstance(value, str):
        yield from (f"{value}x", "")
    elif isinstance(value, int):
        yield from (value + 1, 0)
    elif isinstance(value, dict):
        yield {}
        yield {key: f"{one}x" for key, one in value.items()}
    else:
        yield []
        yield copy.copy(value)[:-1]


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of a request by their place; a list is one value."""
    if isinstance(value, dict) and value and path[-1:] not in (("unified",), ("labels",), ("annotations",)):
        for key, inner in value.items():
            yield from _flat(inner, (*path, key))
    else:
        yield path, value


_BASE = dict(_flat(REQUESTS["devices"]))
_VALUES = sorted(
    {(path, json.dumps(value)) for request in REQUESTS.values() for path, value in _flat(request)}
)


@st.composite
def mixed_requests(draw) -> v1.CreateContainerRequest:
    """A request with values from all others put together by chance."""
    chosen = dict(_BASE) if draw(st.booleans()) else {}
    chosen |= {path: value for path, value in _flat(REQUESTS["target_namespace"]) if "metadata" in path}
    for path, text in draw(st.lists(st.sampled_from(_VALUES), max_size=15)):
        chosen[path] = json.loads(text)
    whole: dict[str, Any] = {"config": {"image": {"image": "sha256:1"}}, "pod_sandbox_id": "p"}
    for path, value in chosen.items():
        place = whole
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    return message_of(whole)


@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(mixed_requests())
def test_any_request_that_passes_has_valid_specs(request):
    config, pod = container_config(request.config), pod_config(request.sandbox_config, "sandbox_config")
    try:
        validate_pod(pod, FEATURES, NODE)
        validate_container(config, pod, FEATURES, NODE)
        made = specs(request)
    except NodedError:
        assume(False)
    assert json.dumps(made) == json.dumps(specs(request))
    for spec in made.values():
        assert [error.message for error in SCHEMA.iter_errors(json.loads(json.dumps(spec)))] == []


def test_every_reason_is_of_a_field():
    names = [".".join(path) for path in leaves()]
    assert [prefix for prefix in ELSEWHERE if not any(name.startswith(prefix) for name in names)] == []
