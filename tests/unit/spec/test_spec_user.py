"""Who a container runs as, from the request and the image's own databases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.model.container import ContainerSecurity
from noded.model.pod import GroupsPolicy
from noded.spec.user import resolve_user

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
web:x:1000:1000::/home/web:/bin/sh
+nis
broken:x:one:two
nobody:x:65534:65534:nobody:/:/sbin/nologin
1001:x:2001:3001:a name of digits:/:
"""
GROUP = """\
root:x:0:
web:x:1000:
logs:x:50000:web,nobody
media:x:50001: web , root
short:x
"""


def resolve(image_user="", passwd=PASSWD, group=GROUP, **security):
    user = resolve_user(passwd, group, image_user, ContainerSecurity(**security))
    return user.uid, user.gid, user.additional_gids, user.username


@pytest.mark.parametrize(
    ("image_user", "expected"),
    [
        ("", (0, 0, (0, 50001), "root")),
        ("web", (1000, 1000, (1000, 50000, 50001), "web")),
        ("1000", (1000, 1000, (1000, 50000, 50001), "web")),
        ("web:logs", (1000, 50000, (50000, 50001), "web")),
        ("web:77", (1000, 77, (77, 50000, 50001), "web")),
        ("4711", (4711, 0, (0,), "")),
        ("4711:1000", (4711, 1000, (1000,), "")),
        (":logs", (0, 50000, (50000, 50001), "root")),
        ("web:", (1000, 1000, (1000, 50000, 50001), "web")),
        ("1001", (2001, 3001, (3001,), "1001")),
    ],
)
def test_the_images_user_is_read_as_its_files_say(image_user, expected):
    assert resolve(image_user) == expected


def test_the_clients_user_wins_over_the_images():
    assert resolve("web", run_as_user=65534) == (65534, 65534, (50000, 65534), "nobody")
    assert resolve("nobody", run_as_username="web")[0] == 1000
    assert resolve("nobody", run_as_username="1000")[3] == "web"


def test_a_number_is_never_taken_for_a_name():
    assert resolve(run_as_user=1001) == (1001, 0, (0,), "")


def test_the_clients_group_replaces_the_primary_one_and_members_groups_stay():
    assert resolve(run_as_user=1000, run_as_group=2000) == (1000, 2000, (2000, 50000, 50001), "web")


def test_strict_groups_are_those_of_the_client_only():
    user = resolve(
        run_as_user=1000, supplemental_groups=(1234,), supplemental_groups_policy=GroupsPolicy.STRICT
    )
    assert user == (1000, 1000, (1000, 1234), "web")


def test_merged_groups_are_those_of_client_and_image():
    assert resolve(run_as_user=1000, supplemental_groups=(1234, 50000))[2] == (1000, 1234, 50000, 50001)


def test_an_image_without_databases_has_numbers_only():
    assert resolve("", passwd="", group="") == (0, 0, (0,), "")
    assert resolve("12:13", passwd="", group="") == (12, 13, (13,), "")


@pytest.mark.parametrize(
    ("image_user", "security", "message"),
    [
        ("ghost", {}, "the image's User: the image has no user 'ghost' in its /etc/passwd"),
        ("web:ghosts", {}, "the image has no group 'ghosts' in its /etc/group"),
        ("4294967295", {}, "4294967295 is not between 0 and"),
        ("", {"run_as_username": "ghost"}, "run_as_username: the image has no user 'ghost'"),
        ("", {"run_as_group": 5}, "run_as_group: needs run_as_user or run_as_username"),
        ("", {"run_as_user": 1, "run_as_username": "web"}, "only one of run_as_user and run_as_username"),
        ("", {"run_as_user": -1}, "run_as_user: -1 is not between"),
        ("", {"run_as_user": 1, "run_as_group": 2**32}, "run_as_group: 4294967296 is not between"),
        ("", {"supplemental_groups": (-5,)}, "supplemental_groups: -5 is not between"),
    ],
)
def test_what_cannot_be_is_named(image_user, security, message):
    with pytest.raises(InvalidArgument, match=message.replace("(", "\\(")):
        resolve(image_user, **security)


@given(st.text(), st.text(), st.text())
def test_any_image_gives_a_user_or_a_clear_refusal(passwd, group, image_user):
    try:
        user = resolve_user(passwd, group, image_user, ContainerSecurity())
    except InvalidArgument:
        return
    assert user.gid in user.additional_gids
    assert list(user.additional_gids) == sorted(set(user.additional_gids))
    assert all(0 <= number < 2**32 - 1 for number in (user.uid, *user.additional_gids))
