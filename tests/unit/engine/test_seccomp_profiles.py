"""Profiles of files and registries are parsed once for the same bytes; the built-in one is made once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from noded.engine import seccomp_profiles
from noded.engine.seccomp_profiles import SeccompProfiles
from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig, ContainerSecurity
from noded.model.pod import ProfileType, SecurityProfile
from noded.spec.seccomp import default


def localhost(path) -> SimpleNamespace:
    security = ContainerSecurity(seccomp=SecurityProfile(ProfileType.LOCALHOST, str(path)))
    config = ContainerConfig("web", 0, "image", security=security)
    return SimpleNamespace(
        record=SimpleNamespace(config=config, seccomp_blob=""), sandbox=SimpleNamespace(record=None)
    )


def test_a_localhost_profile_is_parsed_once_for_the_same_bytes(tmp_path, monkeypatch):
    parse, parsed = seccomp_profiles.parse_profile, []

    def parse_profile(*given):
        parsed.append(given)
        return parse(*given)

    monkeypatch.setattr(seccomp_profiles, "parse_profile", parse_profile)
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for path in (one, two):
        path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')

    async def main():
        profiles = SeccompProfiles(None)
        found = [await profiles.of(localhost(path), None, ()) for path in (one, two, one)]
        assert found[0] is found[1] is found[2]
        assert len(parsed) == 1
        one.write_text('{"defaultAction": "SCMP_ACT_ERRNO"}')
        assert (await profiles.of(localhost(one), None, ()))["defaultAction"] == "SCMP_ACT_ERRNO"
        one.write_text('{"defaultAction": "SCMP_ACT_ERRNO", "syscall": []}')
        with pytest.raises(InvalidArgument, match=r'one\.json: syscall: .*did you mean "syscalls"'):
            await profiles.of(localhost(one), None, ())
        with pytest.raises(InvalidArgument, match=r"localhost_ref: cannot read .*absent"):
            await profiles.of(localhost(tmp_path / "absent"), None, ())

    trio.run(main)


def test_no_more_parsed_profiles_are_kept_than_a_node_uses(tmp_path, monkeypatch):
    monkeypatch.setattr(seccomp_profiles, "_MOST_KEPT", 2)

    async def main():
        profiles = SeccompProfiles(None)
        for number in range(5):
            path = tmp_path / f"{number}.json"
            path.write_text(f'{{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": {number}}}')
            await profiles.of(localhost(path), None, ())
        assert len(profiles._parsed) == 2

    trio.run(main)


def test_the_built_in_profile_is_made_once_for_a_machine_and_capabilities():
    default._built.cache_clear()
    for _ in range(3):
        default.default_profile("x86_64", ["CAP_KILL"])
        default.default_profile("x86_64", ["CAP_SYS_ADMIN"])
    assert default._built.cache_info().misses == 2
