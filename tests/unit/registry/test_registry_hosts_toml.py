"""containerd's hosts.toml: what it says, and whom a pull asks by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pull_world import IMAGE, World
from registry_fakes import FakeRegistry, status

from noded.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from noded.images.endpoints import Endpoint, TLSFiles
from noded.images.hosts_toml import endpoints, load, parse
from noded.model.image import Credential
from noded.wire import reference as references

HERE = Path("/etc/certs.d/quay.io")
NAME = references.parse("quay.io/a/b:t")


def read(text: str) -> tuple[Endpoint, ...]:
    return endpoints(parse(text.encode(), HERE), NAME)


def test_an_empty_file_means_the_registry_itself() -> None:
    assert read("") == (Endpoint("quay.io", "a/b", scheme="https"),)


def test_mirrors_come_in_the_order_of_the_file_and_the_server_last() -> None:
    found = read(
        """
        server = "https://upstream.io"
        skip_verify = true
        [host."https://b.io"]
        [host."http://a.io:5000/cache"]
        capabilities = ["pull"]
        [host."localhost:5000"]
        """
    )
    mirror = Endpoint("b.io", "a/b", mirror=True, scheme="https", namespace="quay.io")
    assert found == (
        mirror,
        replace(mirror, host="a.io:5000", scheme="http", base="/cache/v2", resolves=False),
        replace(mirror, host="localhost:5000", scheme="http"),
        replace(mirror, host="upstream.io", mirror=False, insecure=True),
    )


def test_the_path_of_a_host_is_whole_when_it_says_so() -> None:
    first, second, third, _ = read(
        """
        [host."https://a.io/v2/proxy"]
        override_path = true
        [host."https://a.io/x/v2/"]
        [host."https://a.io"]
        override_path = true
        """
    )
    assert [first.base, second.base, third.base] == ["/v2/proxy", "/x/v2", ""]


def test_certificates_are_beside_the_file_and_headers_have_one_value_or_more() -> None:
    first, second, _ = read(
        """
        [host."https://a.io"]
        ca = "ca.crt"
        client = [["c.cert", "c.key"], ["/abs.cert", ""]]
        [host."https://a.io".header]
        x-team = "platform"
        x-many = ["a", "b"]
        [host."https://b.io"]
        ca = ["one.crt", "/two.crt"]
        client = "both.pem"
        """
    )
    abs_cert = Path("/abs.cert")
    assert first.files == TLSFiles(
        (HERE / "ca.crt",), ((HERE / "c.cert", HERE / "c.key"), (abs_cert, abs_cert))
    )
    assert first.headers == (("x-team", "platform"), ("x-many", "a, b"))
    assert second.files == TLSFiles(
        (HERE / "one.crt", Path("/two.crt")), ((HERE / "both.pem", HERE / "both.pem"),)
    )
    assert "platform" not in repr(first)


def test_docker_hub_is_itself_under_the_name_of_its_api() -> None:
    hub = references.parse("docker.io/library/a:t")
    (found,) = endpoints(parse(b'server = "https://registry-1.docker.io"', HERE), hub)
    assert (found.host, found.api_host, found.namespace) == ("docker.io", "registry-1.docker.io", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "is not TOML"),
        ("server = 1", "server must be a string"),
        ('server = "ftp://a.io"', "is not http"),
        ('server = "https://"', "is not http"),
        ('server = "https://a:b@c.io"', "a login does not belong"),
        ('server = "https://a.io:x"', "is no URL"),
        ("skip_verify = true", "name it in `server`"),
        ('[host."https://a.io"]\nskip = 1', "unknown key 'skip'"),
        ('[host."https://a.io"]\ncapabilities = ["fly"]', "'fly' is not one of pull, push, resolve"),
        ('[host."https://a.io"]\nskip_verify = 1', "skip_verify is not true or false"),
        ('[host."https://a.io"]\nca = 1', "ca is not a string"),
        ('[host."https://a.io"]\nclient = [["a"]]', "not a file name or"),
        ('[host."https://a.io"]\nheader = {"a b" = "c"}', "header"),
        ('[host."https://a.io"]\nheader = {a = "x\\ny"}', "not a string of one line"),
        ('host = 1', "tables"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        read(text)
    assert str(caught.value).startswith(f"{HERE}/hosts.toml: ")


@given(st.text(max_size=60), st.sampled_from(["", 'server = "', '[host."']))
def test_whatever_is_in_a_file_gives_endpoints_or_a_reason(text: str, before: str) -> None:
    try:
        found = read(before + text)
    except InvalidArgument:
        return
    assert all(one.scheme in ("http", "https") and one.host for one in found)


def test_directories_are_found_by_port_and_by_default(tmp_path: Path) -> None:
    for name in ("a.io_5000_", "a.io:5000", "b.io:80", "_default"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hosts.toml").write_text(f'server = "https://{name.partition(":")[0]}.x"')

    def server(host: str) -> tuple[str, bool]:
        found = load(tmp_path, host)
        assert found is not None
        assert found[0].server is not None
        return found[0].server.host, found[1]

    assert server("a.io:5000") == ("a.io_5000_.x", True)
    assert server("b.io:80") == ("b.io.x", True)
    assert server("b.io") == ("_default.x", False)
    (tmp_path / "_default" / "hosts.toml").unlink()
    assert load(tmp_path, "b.io") is None


# Pulls


def configured(tmp_path: Path, text: str, host: str = "quay.io") -> World:
    place = tmp_path / "certs.d" / host
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(text)
    return World(tmp_path, config_path=tmp_path / "certs.d")


def test_a_pull_goes_to_the_mirror_with_its_path_headers_and_namespace(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    world = configured(
        tmp_path,
        f'[host."http://{registry.host}/v2/cache"]\noverride_path = true\nheader = {{x-team = "platform"}}',
    )
    registry.push(IMAGE, "cache/x/b", "t")
    assert world.pull("quay.io/x/b:t") == IMAGE.id
    assert registry.requests
    assert {one.headers["x-team"] for one in registry.requests} == {"platform"}
    assert all(one.query == {"ns": ["quay.io"]} for one in registry.requests)
    assert all(one.path.startswith("/v2/cache/x/b/") for one in registry.requests)


def test_headers_do_not_follow_a_redirect_to_another_host(tmp_path: Path, registry: FakeRegistry) -> None:
    with FakeRegistry() as other:
        other.push(IMAGE, "x/b")
        for digest in IMAGE.layer_digests:
            registry.on(f"blobs/{digest}", lambda handler: moved(handler, other.host))
        registry.push(IMAGE, "x/b", "t")
        world = configured(tmp_path, f'server = "http://{registry.host}"\nheader = {{x-key = "secret"}}')
        assert world.pull("quay.io/x/b:t") == IMAGE.id
        assert other.count("blobs") == 2
        assert not [one for one in other.requests if "x-key" in one.headers]
        assert all(one.headers["x-key"] == "secret" for one in registry.requests)


def moved(handler: Any, host: str) -> bool:
    handler.reply(307, Location=f"http://{host}{handler.path}")
    return True


def test_a_cache_that_does_not_resolve_is_asked_for_content_only(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    with FakeRegistry() as cache:
        cache.push(IMAGE, "a/b", "t")
        text = f'server = "http://{registry.host}"\n[host."http://{cache.host}"]\ncapabilities = ["pull"]'
        world = configured(tmp_path, text)
        assert world.pull("quay.io/a/b:t") == IMAGE.id
        assert cache.count("manifests") == 0
        assert cache.count("blobs") == 3
        assert registry.count("blobs") == 0
        assert registry.count("manifests") == 1


def test_a_mirror_that_fails_is_passed_over_and_gets_no_credential(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    registry.content.auth, registry.content.login = "basic", ("me", "right")
    with FakeRegistry() as mirror:
        mirror.on(".*", status(404), times=9)
        world = configured(tmp_path, f'server = "http://{registry.host}"\n[host."http://{mirror.host}"]')
        assert world.pull("quay.io/a/b:t", Credential("me", "right")) == IMAGE.id
        assert set(mirror.authorizations()) == {""}


def test_nobody_to_ask_is_said(tmp_path: Path, registry: FakeRegistry) -> None:
    world = configured(tmp_path, f'server = "http://{registry.host}"\ncapabilities = ["pull"]')
    error = world.fails("quay.io/a/b:t")
    assert isinstance(error, FailedPrecondition)
    assert "'resolve'" in str(error)


def test_a_changed_file_counts_at_the_next_pull(tmp_path: Path, registry: FakeRegistry) -> None:
    world = configured(tmp_path, "server = 1")
    assert isinstance(world.fails("quay.io/a/b:t"), InvalidArgument)
    (tmp_path / "certs.d/quay.io/hosts.toml").write_text(f'server = "http://{registry.host}"')
    assert world.pull("quay.io/a/b:t") == IMAGE.id


def test_the_own_file_of_a_host_goes_before_registries_conf_and_the_default_after_it(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    world = configured(tmp_path, 'server = "http://127.0.0.1:1"', "_default")
    world.conf.write_text(f'[[registry]]\nprefix = "quay.io"\nlocation = "{registry.host}"\ninsecure = true')
    assert world.pull("quay.io/a/b:t") == IMAGE.id
    own = configured(tmp_path / "own", f'server = "http://{registry.host}"')
    own.conf.write_text('[[registry]]\nprefix = "quay.io"\nlocation = "127.0.0.1:1"')
    assert own.pull("quay.io/a/b:t") == IMAGE.id
    own.conf.write_text('[[registry]]\nprefix = "quay.io"\nlocation = "quay.io"\nblocked = true')
    with pytest.raises(PermissionDenied, match="blocked"):
        own.pull("quay.io/a/b:t")
