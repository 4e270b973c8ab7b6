"""registries.conf: reading, merging, resolving."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument, PermissionDenied
from noded.images.endpoints import Endpoint, candidates, meanings, resolve, tls_files
from noded.images.registries_conf import (
    PullFrom,
    RegistriesConf,
    ShortNameMode,
    load,
    match_length,
    merge,
)
from noded.wire.reference import parse

DIGEST = f"sha256:{'ab' * 32}"


def conf(text: str, base: RegistriesConf | None = None) -> RegistriesConf:
    return merge(base or RegistriesConf(), text.encode(), "test.conf")


def places(configuration: RegistriesConf, name: str) -> list[str]:
    return [f"{one.host}/{one.path}" for one in resolve(configuration, parse(name))]


MIRRORS = """
[[registry]]
prefix = "quay.io/team"
location = "inner.example:5000/quay"
[[registry.mirror]]
location = "one.example/m"
insecure = true
[[registry.mirror]]
location = "two.example/m"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "three.example/m"
pull-from-mirror = "tag-only"
"""


def test_without_configuration_a_reference_is_its_own_endpoint() -> None:
    assert resolve(RegistriesConf(), parse("quay.io/a/b:c")) == (Endpoint("quay.io", "a/b"),)


def test_docker_hub_is_asked_where_its_api_is() -> None:
    (hub,) = resolve(RegistriesConf(), parse("busybox"))
    assert (hub.host, hub.path, hub.api_host) == ("docker.io", "library/busybox", "registry-1.docker.io")


def test_mirrors_come_first_and_serve_what_they_are_for() -> None:
    configuration = conf(MIRRORS)
    own = "inner.example:5000/quay/app"
    assert places(configuration, "quay.io/team/app:1") == ["one.example/m/app", "three.example/m/app", own]
    assert places(configuration, f"quay.io/team/app@{DIGEST}") == [
        "one.example/m/app",
        "two.example/m/app",
        own,
    ]
    first, *_, last = resolve(configuration, parse("quay.io/team/app:1"))
    assert (first.insecure, first.mirror, last.insecure, last.mirror) == (True, True, False, False)


def test_a_prefix_ends_at_a_component() -> None:
    assert places(conf(MIRRORS), "quay.io/teams/app:1") == ["quay.io/teams/app"]


def test_the_longest_prefix_wins() -> None:
    configuration = conf(
        """
        [[registry]]
        location = "quay.io"
        blocked = true
        [[registry]]
        prefix = "quay.io/a/b"
        location = "deep.example/x"
        [[registry]]
        prefix = "quay.io/a"
        location = "quay.io/a"
        """
    )
    assert places(configuration, "quay.io/a/b:t") == ["deep.example/x"]
    assert places(configuration, "quay.io/a/c:t") == ["quay.io/a/c"]
    with pytest.raises(PermissionDenied, match=r"quay.io is blocked in test.conf"):
        resolve(configuration, parse("quay.io/z"))


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("a.example.com/x:t", True),
        ("a.b.example.com:5000/x:t", True),
        ("example.com/x:t", False),
        ("badexample.com/x:t", False),
        ("evil.io/a.example.com/x:t", False),
    ],
)
def test_a_wildcard_covers_sub_domains_only(name: str, matches: bool) -> None:
    assert (match_length(name, "*.example.com") is not None) is matches


def test_a_wildcard_without_location_keeps_the_name_and_takes_the_settings() -> None:
    (endpoint,) = resolve(
        conf('[[registry]]\nprefix = "*.example.com"\ninsecure = true'), parse("a.example.com/x")
    )
    assert endpoint == Endpoint("a.example.com", "x", insecure=True)


def test_a_wildcard_with_location_moves_the_whole_host() -> None:
    configuration = conf('[[registry]]\nprefix = "*.example.com"\nlocation = "all.example/from"')
    assert places(configuration, "a.example.com/x/y:t") == ["all.example/from/x/y"]


def test_a_mirror_of_docker_hub_gets_the_library_path() -> None:
    configuration = conf(
        '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "127.0.0.1:5000"'
    )
    assert places(configuration, "busybox") == ["127.0.0.1:5000/library/busybox", "docker.io/library/busybox"]


def test_a_rewrite_to_nonsense_names_file_and_prefix() -> None:
    with pytest.raises(InvalidArgument, match=r"test.conf: quay.io is rewritten to 'plain/a:latest'"):
        resolve(conf('[[registry]]\nprefix = "quay.io"\nlocation = "plain"'), parse("quay.io/a"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = ", "is not TOML"),
        ("[registries.search]\nregistries = []", "version 1"),
        ('short-name-mode = "maybe"', "short-name-mode is 'maybe'"),
        ('unqualified-search-registries = "a"', "not an array"),
        ('unqualified-search-registries = ["a/b"]', "'a/b'"),
        ("registry = 5", r"\[\[registry\]\]"),
        ("[[registry]]\nblocked = true", "neither prefix nor location"),
        ('[[registry]]\nprefix = "a.io"', "no location"),
        ('[[registry]]\nlocation = "https://a.io"', "host"),
        ('[[registry]]\nlocation = "a.io"\ninsecure = "yes"', "insecure is not true or false"),
        ('[[registry]]\nprefix = "a.*.io"\nlocation = "b.io"', r"not host"),
        ('[[registry]]\nprefix = "*.a.io/x"\nlocation = "b.io"', "hosts only"),
        (
            '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\ninsecure = true',
            r"mirror\[0\] has no location",
        ),
        ('[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\nlocation = "http://b"', "scheme"),
        (
            '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\nlocation = "b.io"\npull-from-mirror = "x"',
            "'x'",
        ),
        (
            '[[registry]]\nlocation = "a.io"\nmirror-by-digest-only = true\n'
            '[[registry.mirror]]\nlocation = "b.io"\npull-from-mirror = "all"',
            "mirror-by-digest-only",
        ),
        ('[[registry]]\nlocation = "a.io"\n[[registry]]\nlocation = "a.io"\nblocked = true', "two different"),
        ('[aliases]\n"quay.io/x" = "a.io/x"', "not a short name"),
        ('[aliases]\nx = "y"', "registry host"),
        ('[aliases]\nx = "a.io/x:t"', "leave the tag"),
        ("[aliases]\nx = 5", "not a string"),
    ],
)
def test_a_bad_file_is_named_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=f"test.conf: .*{reason}"):
        conf(text)


def test_keys_of_newer_tools_are_told_and_ignored() -> None:
    configuration = conf('new-key = 1\n[[registry]]\nlocation = "a.io"\nshiny = true')
    assert configuration.ignored == ("test.conf: new-key", "test.conf: registry[0]: shiny")


def test_mirror_by_digest_only_restricts_all_mirrors() -> None:
    configuration = conf(
        '[[registry]]\nlocation = "a.io"\nmirror-by-digest-only = true\n'
        '[[registry.mirror]]\nlocation = "b.io"'
    )
    assert configuration.registries[0].mirrors[0].pull_from is PullFrom.DIGEST_ONLY


def test_drop_ins_are_merged_in_name_order(tmp_path: Path) -> None:
    main = tmp_path / "registries.conf"
    assert load(main) == RegistriesConf()
    main.write_text(
        'unqualified-search-registries = ["one.io"]\n[[registry]]\nlocation = "a.io"\nblocked = true\n'
        '[aliases]\nx = "a.io/x"\ny = "a.io/y"'
    )
    drop_ins = tmp_path / "registries.conf.d"
    drop_ins.mkdir()
    (drop_ins / "20-b.conf").write_text('[[registry]]\nlocation = "a.io"\n[aliases]\nx = "c.io/x"')
    (drop_ins / "10-a.conf").write_text('short-name-mode = "enforcing"\n[aliases]\nx = "b.io/x"\ny = ""')
    (drop_ins / "readme.txt").write_text("not read")
    merged = load(main)
    assert merged.search == ("one.io",)
    assert merged.short_name_mode is ShortNameMode.ENFORCING
    assert merged.aliases == {"x": "c.io/x"}
    assert [entry.blocked for entry in merged.registries] == [False]
    assert merged.registries[0].source == str(drop_ins / "20-b.conf")


def test_a_bad_drop_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "registries.conf.d").mkdir()
    bad = tmp_path / "registries.conf.d" / "bad.conf"
    bad.write_text("]")
    with pytest.raises(InvalidArgument, match=str(bad)):
        load(tmp_path / "registries.conf")


def names(configuration: RegistriesConf, text: str) -> list[str]:
    return [str(one) for one in candidates(configuration, text)]


def test_a_name_with_a_host_means_itself() -> None:
    configuration = conf('unqualified-search-registries = ["x.io"]\n[aliases]\na = "b.io/a"')
    assert names(configuration, "quay.io/a") == ["quay.io/a:latest"]


def test_a_short_name_means_docker_hub_unless_configured() -> None:
    assert names(RegistriesConf(), "busybox") == ["docker.io/library/busybox:latest"]


def test_an_alias_keeps_tag_and_digest() -> None:
    configuration = conf('unqualified-search-registries = ["x.io", "y.io"]\n[aliases]\n"a/b" = "b.io/c"')
    assert names(configuration, "a/b") == ["b.io/c:latest"]
    assert names(configuration, f"a/b:t@{DIGEST}") == [f"b.io/c:t@{DIGEST}"]


def test_search_registries_are_tried_in_order() -> None:
    configuration = conf('unqualified-search-registries = ["x.io", "docker.io"]')
    assert names(configuration, "a:t") == ["x.io/a:t", "docker.io/library/a:t"]


def test_enforcing_refuses_an_ambiguous_name_only() -> None:
    configuration = conf('unqualified-search-registries = ["x.io"]\nshort-name-mode = "enforcing"')
    assert names(configuration, "a:t") == ["x.io/a:t"]
    with pytest.raises(InvalidArgument, match=r"ambiguous: write its registry \(x.io, y.io\)"):
        candidates(conf('unqualified-search-registries = ["x.io", "y.io"]', configuration), "a:t")


toml_text = st.text(alphabet='[]registymolcan.=*/"\n :#-xd{}1', max_size=120)


@given(toml_text)
def test_any_file_is_read_or_refused(text: str) -> None:
    try:
        conf(text)
    except InvalidArgument:
        return


host = st.sampled_from(["a.io", "b.a.io", "a.io:5000", "localhost"])
path = st.lists(st.sampled_from(["x", "y", "xy"]), min_size=1, max_size=3).map("/".join)


@given(host, path, st.integers(0, 3), host, path)
def test_a_rewrite_replaces_exactly_the_prefix(
    name_host: str, name_path: str, parts: int, to_host: str, to_path: str
) -> None:
    kept = name_path.split("/")[:parts]
    prefix = "/".join([name_host, *kept])
    configuration = conf(f'[[registry]]\nprefix = "{prefix}"\nlocation = "{to_host}/{to_path}"')
    rest = "/".join([to_host, to_path, *name_path.split("/")[parts:]])
    assert places(configuration, f"{name_host}/{name_path}:t") == [rest]


def test_certificates_are_found_per_host(tmp_path: Path) -> None:
    first, second = tmp_path / "containers", tmp_path / "docker"
    place = second / "a.io:5000"
    place.mkdir(parents=True)
    for name in ("ca.crt", "me.cert", "me.key", "note.txt"):
        (place / name).touch()
    found = tls_files("a.io:5000", (first, second))
    assert found.authorities == (place / "ca.crt",)
    assert found.client == ((place / "me.cert", place / "me.key"),)
    assert tls_files("a.io", (first, second)).authorities == ()
    (place / "me.key").unlink()
    with pytest.raises(InvalidArgument, match=r"me.cert has no key: add .*me.key"):
        tls_files("a.io:5000", (first, second))


def test_a_local_image_is_looked_up_under_every_meaning_of_a_short_name() -> None:
    searched = conf('unqualified-search-registries = ["x.io", "y.io"]\nshort-name-mode = "enforcing"')
    assert [str(name) for name in meanings(searched, "a:1")] == ["x.io/a:1", "y.io/a:1"]
    assert [str(name) for name in meanings(searched, "z.io/a")] == ["z.io/a:latest"]
    assert [str(name) for name in meanings(conf('[aliases]\na = "q.io/b"'), "a")] == ["q.io/b:latest"]
    assert [str(name) for name in meanings(conf(""), "a")] == ["docker.io/library/a:latest"]
