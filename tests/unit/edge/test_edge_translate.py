"""CRI messages to model values and back, through bytes that google.protobuf writes and reads."""

from __future__ import annotations

import signal

import pytest
from edge_fakes import container, image, sandbox
from edge_values import CONTAINER_CONFIGS, POD_CONFIGS, Encoder
from hypothesis import given

from noded.edge.codec import Codec
from noded.edge.cri import encode_container, encode_image, encode_pod, signals
from noded.edge.cri.decode_container import container_config, container_config_of
from noded.edge.cri.decode_pod import pod_config, pod_config_of
from noded.errors import InvalidArgument
from noded.model.container import ContainerUser
from noded.model.image import ImageConfig
from noded.model.pod import ProfileType, SecurityProfile
from noded.proto.runtime import v1

codec = Codec()


@given(config=POD_CONFIGS)
def test_a_pod_config_survives_the_wire(stubs, config):
    request = stubs.cri.RunPodSandboxRequest(config=Encoder(stubs.cri).pod(config), runtime_handler="kata")
    message = codec.decode(request.SerializeToString(), v1.RunPodSandboxRequest)
    assert pod_config(message.config) == config
    assert pod_config_of(bytes(message)) == config


@given(config=CONTAINER_CONFIGS)
def test_a_container_config_survives_the_wire(stubs, config):
    request = stubs.cri.CreateContainerRequest(config=Encoder(stubs.cri).container(config))
    message = codec.decode(request.SerializeToString(), v1.CreateContainerRequest)
    assert container_config(message.config) == config
    assert container_config_of(bytes(message)) == config


@given(config=CONTAINER_CONFIGS)
def test_the_status_of_a_container_shows_its_config(stubs, config):
    view = container(
        config=config,
        resources=config.resources,
        user=ContainerUser(1, 2, (3, 4)),
        started_at_ns=5,
        finished_at_ns=6,
        exit_code=137,
        reason="OOMKilled",
        message="killed",
    )
    message = stubs.cri.ContainerStatus.FromString(
        bytes(encode_container.status(view, lambda ref: f"id:{ref}"))
    )
    encoder = Encoder(stubs.cri)
    sent = encoder.container(config)
    for mount in sent.mounts:
        if mount.HasField("image"):
            mount.image.image_ref = f"id:{mount.image.image}"
    assert list(message.mounts) == list(sent.mounts)
    assert message.stop_signal == sent.stop_signal
    assert message.labels == sent.labels
    assert message.annotations == sent.annotations
    assert message.metadata == sent.metadata
    assert message.HasField("resources") == (config.resources is not None)
    assert message.resources.linux == (
        encoder.resources(config.resources) or stubs.cri.LinuxContainerResources()
    )
    assert message.image.image == (config.user_specified_image or config.image)
    assert message.image_id == message.image_ref == view.image_id
    assert (message.started_at, message.finished_at, message.exit_code) == (5, 6, 137)
    assert (message.reason, message.message, message.log_path) == ("OOMKilled", "killed", view.log_path)
    assert message.user.linux == stubs.cri.LinuxContainerUser(uid=1, gid=2, supplemental_groups=[3, 4])


@given(config=POD_CONFIGS)
def test_the_status_of_a_sandbox_shows_its_config(stubs, config):
    view = sandbox(config=config)
    message = stubs.cri.PodSandboxStatus.FromString(bytes(encode_pod.status(view)))
    sent = Encoder(stubs.cri).pod(config)
    assert message.metadata == sent.metadata
    assert message.labels == sent.labels
    assert message.annotations == sent.annotations
    assert message.linux.namespaces.options == sent.linux.security_context.namespace_options
    assert message.network.ip == "10.0.0.1"
    assert [extra.ip for extra in message.network.additional_ips] == ["fd00::1"]


def test_the_status_of_a_host_network_sandbox_has_no_address(stubs):
    message = stubs.cri.PodSandboxStatus.FromString(bytes(encode_pod.status(sandbox(ips=()))))
    assert message.network.ip == ""


@pytest.mark.parametrize(
    ("user", "uid", "name"),
    [
        ("", None, ""),
        ("0", 0, ""),
        ("1000:1000", 1000, ""),
        ("www-data:adm", None, "www-data"),
        ("4294967296", None, "4294967296"),
        ("٣", None, "٣"),
    ],
)
def test_the_user_of_an_image_is_a_number_or_a_name(user, uid, name):
    message = encode_image.entry(image(config=ImageConfig(user=user)))
    assert (None if message.uid is None else message.uid.value, message.username) == (uid, name)


def valid_pod():
    return v1.PodSandboxConfig(
        metadata=v1.PodSandboxMetadata(name="a"),
        port_mappings=[v1.PortMapping(container_port=80, host_port=8080)],
        linux=v1.LinuxPodSandboxConfig(
            security_context=v1.LinuxSandboxSecurityContext(
                namespace_options=v1.NamespaceOption(userns_options=v1.UserNamespace()),
                run_as_user=v1.Int64Value(value=1),
                seccomp=v1.SecurityProfile(),
            )
        ),
    )


def pod_security(config):
    return config.linux.security_context


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda c: setattr(c, "metadata", None), "config.metadata"),
        (lambda c: setattr(c.metadata, "name", ""), "config.metadata.name"),
        (lambda c: setattr(c.port_mappings[0], "host_port", -1), "config.port_mappings[0].host_port"),
        (
            lambda c: setattr(c.port_mappings[0], "container_port", 65536),
            "config.port_mappings[0].container_port",
        ),
        (
            lambda c: setattr(c.port_mappings[0], "protocol", v1.Protocol(9)),
            "config.port_mappings[0].protocol",
        ),
        (
            lambda c: setattr(pod_security(c).namespace_options, "pid", v1.NamespaceMode(7)),
            "config.linux.security_context.namespace_options.pid",
        ),
        (
            lambda c: setattr(pod_security(c).namespace_options.userns_options, "mode", v1.NamespaceMode(7)),
            "config.linux.security_context.namespace_options.userns_options.mode",
        ),
        (
            lambda c: setattr(pod_security(c).run_as_user, "value", -5),
            "config.linux.security_context.run_as_user.value",
        ),
        (
            lambda c: setattr(pod_security(c), "supplemental_groups", [1, -1]),
            "config.linux.security_context.supplemental_groups[1]",
        ),
        (
            lambda c: setattr(pod_security(c).seccomp, "profile_type", v1.SecurityProfileProfileType(5)),
            "config.linux.security_context.seccomp.profile_type",
        ),
    ],
)
def test_a_bad_pod_field_is_named_by_its_path(change, path):
    config = valid_pod()
    pod_config(config)
    change(config)
    with pytest.raises(InvalidArgument) as caught:
        pod_config(config)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_config_is_named():
    with pytest.raises(InvalidArgument, match=r"^config: "):
        pod_config(None)
    with pytest.raises(InvalidArgument, match=r"^config: "):
        container_config(None)


def valid_container():
    return v1.ContainerConfig(
        metadata=v1.ContainerMetadata(name="a"),
        image=v1.ImageSpec(image="busybox"),
        envs=[v1.KeyValue(key="A", value=b"b")],
        mounts=[v1.Mount(container_path="/a", host_path="/b")],
    )


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda c: setattr(c, "metadata", None), "config.metadata"),
        (lambda c: setattr(c.metadata, "name", ""), "config.metadata.name"),
        (lambda c: setattr(c, "image", None), "config.image"),
        (lambda c: setattr(c.image, "image", ""), "config.image.image"),
        (lambda c: setattr(c.envs[0], "value", b"ab\xff"), "config.envs[0].value"),
        (
            lambda c: setattr(c.mounts[0], "propagation", v1.MountPropagation(3)),
            "config.mounts[0].propagation",
        ),
        (lambda c: setattr(c, "stop_signal", v1.Signal(99)), "config.stop_signal"),
    ],
)
def test_a_bad_container_field_is_named_by_its_path(change, path):
    config = valid_container()
    container_config(config)
    change(config)
    with pytest.raises(InvalidArgument) as caught:
        container_config(config)
    assert str(caught.value).startswith(f"{path}: ")


def security_of(**fields):
    """Decode a container with these security fields, set the way a parser sets them."""
    context = v1.LinuxContainerSecurityContext()
    for name, value in fields.items():
        setattr(context, name, value)
    config = valid_container()
    config.linux = v1.LinuxContainerConfig(security_context=context)
    return container_config(config).security


@pytest.mark.parametrize("field", ["seccomp", "apparmor"])
@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("", None),
        ("runtime/default", SecurityProfile(ProfileType.RUNTIME_DEFAULT)),
        ("docker/default", SecurityProfile(ProfileType.RUNTIME_DEFAULT)),
        ("unconfined", SecurityProfile(ProfileType.UNCONFINED)),
        ("localhost/a/b.json", SecurityProfile(ProfileType.LOCALHOST, "a/b.json")),
    ],
)
def test_a_deprecated_profile_string_is_understood_and_loses_to_the_new_field(field, text, profile):
    deprecated = {"seccomp": "seccomp_profile_path", "apparmor": "apparmor_profile"}[field]
    assert getattr(security_of(**{deprecated: text}), field) == profile
    newer = v1.SecurityProfile(profile_type=v1.SecurityProfileProfileType.Localhost, localhost_ref="x")
    assert getattr(security_of(**{deprecated: text, field: newer}), field) == SecurityProfile(
        ProfileType.LOCALHOST, "x"
    )
    # An empty message is "RuntimeDefault", not "absent".
    assert getattr(security_of(**{deprecated: text, field: v1.SecurityProfile()}), field) == SecurityProfile()


@pytest.mark.parametrize("text", ["localhost/", "localhost", "default", "Unconfined"])
def test_a_profile_string_that_means_nothing_is_refused(text):
    with pytest.raises(InvalidArgument, match=r"security_context\.seccomp_profile_path"):
        security_of(seccomp_profile_path=text)


def test_absent_is_not_zero():
    assert security_of().run_as_user is None
    assert security_of(run_as_user=v1.Int64Value(value=0)).run_as_user == 0


def test_every_signal_has_a_name_that_leads_back_to_it():
    for member in v1.Signal:
        assert signals.member_of(signals.name_of(member, "")) is member


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("SIGTERM", v1.Signal.SIGTERM),
        ("term", v1.Signal.SIGTERM),
        ("15", v1.Signal.SIGTERM),
        (str(int(signal.SIGABRT)), v1.Signal.SIGABRT),
        ("SIGRTMIN+3", v1.Signal.SIGRTMINPLUS3),
        ("37", v1.Signal.SIGRTMINPLUS3),
        ("rtmax-1", v1.Signal.SIGRTMAXMINUS1),
        ("nonsense", v1.Signal.RUNTIME_DEFAULT),
        ("", v1.Signal.RUNTIME_DEFAULT),
        ("999", v1.Signal.RUNTIME_DEFAULT),
    ],
)
def test_signals_are_understood_as_images_write_them(text, member):
    assert signals.member_of(text) is member
