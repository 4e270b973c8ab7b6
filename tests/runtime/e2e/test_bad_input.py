"""Bad input gets a status that says what to change; unknown ids are told apart."""

from __future__ import annotations

import grpc
import pytest

pytestmark = [pytest.mark.root, pytest.mark.one_daemon]
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNKNOWN_ID = "0" * 64


def code_of(call, *arguments, **options) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code(), caught.value.details()


def test_unknown_ids_are_not_found_but_stop_and_remove_succeed(cri):
    pb = cri.pb
    assert code_of(cri.pod_status, UNKNOWN_ID)[0] is NOT_FOUND
    assert code_of(cri.status, UNKNOWN_ID)[0] is NOT_FOUND
    assert code_of(cri.start, UNKNOWN_ID)[0] is NOT_FOUND
    assert code_of(cri.exec, UNKNOWN_ID, "true")[0] is NOT_FOUND
    cri.stop(UNKNOWN_ID)
    cri.remove(UNKNOWN_ID)
    cri.remove_pod(UNKNOWN_ID)
    cri.image.RemoveImage(
        pb.RemoveImageRequest(image=pb.ImageSpec(image="registry.example/none:1")), timeout=10
    )


def test_an_unknown_handler_lists_the_known_ones(daemon, cri):
    code, message = code_of(cri.run_pod, daemon.pod_config(cri), "nonesuch")
    assert code is INVALID
    assert "runtime_handler" in message
    assert "crun" in message
    assert "runc" in message


def spoil_metadata(config):
    config.ClearField("metadata")


def spoil_cgroup(config):
    config.linux.cgroup_parent = "../../escape"


def spoil_userns(config):
    options = config.linux.security_context.namespace_options
    options.userns_options.mode = 1  # CONTAINER


def spoil_sysctl(config):
    config.linux.sysctls["kernel.panic"] = "1"


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (spoil_metadata, "metadata"),
        (spoil_cgroup, "cgroup_parent"),
        (spoil_userns, "userns"),
        (spoil_sysctl, "sysctls"),
    ],
)
def test_a_bad_pod_is_refused_by_field(daemon, cri, oracle, spoil, field):
    before = oracle.take()
    config = daemon.pod_config(cri)
    spoil(config)
    code, message = code_of(cri.run_pod, config)
    assert code is INVALID
    assert field in message
    oracle.assert_unchanged(before)


def test_a_bad_container_is_refused_by_field(daemon, cri, busybox, oracle):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    before = oracle.take()
    absolute = cri.container_config("c", busybox, ["true"], log_path="/var/log/x.log")
    assert code_of(cri.create, pod, absolute, config)[0] is INVALID
    assert "log_path" in code_of(cri.create, pod, absolute, config)[1]
    nameless = cri.container_config("", busybox, ["true"])
    assert code_of(cri.create, pod, nameless, config)[0] is INVALID
    lost = cri.container_config("c", busybox, ["true"], pid="TARGET")
    assert code_of(cri.create, pod, lost, config)[0] is INVALID
    absent = cri.container_config("c", "registry.example/none:1", ["true"])
    assert code_of(cri.create, pod, absent, config)[0] is NOT_FOUND
    oracle.assert_unchanged(before)


def test_a_missing_program_is_named_and_leaves_nothing(daemon, cri, busybox, handler, oracle):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, handler)
    before = oracle.take()
    _, message = code_of(cri.create, pod, cri.container_config("c", busybox, ["/no/such/program"]), config)
    assert "/no/such/program" in message
    assert cri.containers() == []
    oracle.assert_unchanged(before)


def test_starting_twice_is_refused(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    container = cri.run_container(pod, cri.container_config("c", busybox, ["sleep", "1000"]), config)
    assert code_of(cri.start, container)[0] is grpc.StatusCode.FAILED_PRECONDITION


def test_every_method_answers(cri):
    """None is missing, and none pretends: what is not there says so."""
    good = {INVALID, NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, None}
    for service, stub in (("RuntimeService", cri.runtime), ("ImageService", cri.image)):
        for method in cri.pb.DESCRIPTOR.services_by_name[service].methods:
            code, message = outcome(stub, method, getattr(cri.pb, method.input_type.name)())
            assert code in good, f"{method.name}: {code} {message}"


def outcome(stub, method, request) -> tuple[grpc.StatusCode | None, str]:
    """Status code and message of one call, None for success."""
    try:
        answer = getattr(stub, method.name)(request, timeout=10)
        if method.name == "GetContainerEvents":  # it ends only with its client
            answer.initial_metadata()
            answer.cancel()
        elif method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return None, ""
