"""Who a container runs as: the client's choice, else the image's, by the image's own databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from noded.errors import InvalidArgument
from noded.model.container import ContainerSecurity
from noded.model.pod import GroupsPolicy
from noded.spec.inputs import ResolvedUser

_MAX_ID = 2**32 - 2  # -1 means "leave unchanged" to setresuid(2)
_CONTEXT = "linux.security_context"


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def check_user(security: ContainerSecurity) -> None:
    """Refuse combinations that the CRI forbids, before any image is looked at.

    Raises: InvalidArgument naming the field.
    """
    if security.run_as_user is not None and security.run_as_username:
        raise InvalidArgument(
            f"{_CONTEXT}.run_as_username: only one of run_as_user and run_as_username may be given"
        )
    if security.run_as_group is not None and security.run_as_user is None and not security.run_as_username:
        raise InvalidArgument(f"{_CONTEXT}.run_as_group: needs run_as_user or run_as_username")
    for field, value in (("run_as_user", security.run_as_user), ("run_as_group", security.run_as_group)):
        if value is not None:
            _checked_id(value, f"{_CONTEXT}.{field}")
    for value in security.supplemental_groups:
        _checked_id(value, f"{_CONTEXT}.supplemental_groups")


def resolve_user(passwd: str, group: str, image_user: str, security: ContainerSecurity) -> ResolvedUser:
    """Decide uid, gid and groups of a container's process.

    Args:
        passwd, group: contents of the image's /etc/passwd and /etc/group, "" where it has none.
        image_user: `User` of the image configuration: "", "user", "uid", "user:group"...

    With the Merge policy the groups of which the image says the user is a member are added, with
    Strict they are not (KEP-3619).

    Raises: InvalidArgument naming a user or group that the image does not know.
    """
    check_user(security)
    accounts = list(_accounts(passwd))
    groups = list(_groups(group))
    if security.run_as_user is not None:
        account = _by_uid(accounts, security.run_as_user)
    elif security.run_as_username:
        account = _by_name(accounts, security.run_as_username, f"{_CONTEXT}.run_as_username")
    else:
        account = _image_account(accounts, groups, image_user)
    gid = account.gid if security.run_as_group is None else security.run_as_group
    additional = {gid, *security.supplemental_groups}
    if security.supplemental_groups_policy is GroupsPolicy.MERGE and account.name:
        additional |= {entry.gid for entry in groups if account.name in entry.members}
    return ResolvedUser(account.uid, gid, tuple(sorted(additional)), account.name)


def _image_account(accounts: list[_Account], groups: list[_Group], image_user: str) -> _Account:
    name, _, group = image_user.partition(":")
    account = _by_name(accounts, name, "the image's User") if name else _by_uid(accounts, 0)
    if group:
        return _Account(account.name, account.uid, _gid_of(groups, group))
    return account


def _by_uid(accounts: list[_Account], uid: int) -> _Account:
    """The account of a uid; one that the image does not list has primary group 0, as in Docker."""
    return next((account for account in accounts if account.uid == uid), _Account("", uid, 0))


def _by_name(accounts: list[_Account], name: str, field: str) -> _Account:
    for account in accounts:
        if account.name == name:
            return account
    if name.isdecimal() and name.isascii():
        return _by_uid(accounts, _checked_id(int(name), field))
    raise InvalidArgument(f"{field}: the image has no user {name!r} in its /etc/passwd")


def _gid_of(groups: list[_Group], name: str) -> int:
    for entry in groups:
        if entry.name == name:
            return entry.gid
    if name.isdecimal() and name.isascii():
        return _checked_id(int(name), "the image's User")
    raise InvalidArgument(f"the image's User: the image has no group {name!r} in its /etc/group")


def _checked_id(value: int, field: str) -> int:
    if not 0 <= value <= _MAX_ID:
        raise InvalidArgument(f"{field}: {value} is not between 0 and {_MAX_ID}")
    return value


def _accounts(text: str) -> Iterator[_Account]:
    """Entries of a passwd(5) file; lines that are none (comments, NIS, damage) are skipped."""
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= 4 and fields[0] and (uid := _id(fields[2])) is not None:
            gid = _id(fields[3])
            if gid is not None:
                yield _Account(fields[0], uid, gid)


def _groups(text: str) -> Iterator[_Group]:
    """Entries of a group(5) file."""
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= 3 and fields[0] and (gid := _id(fields[2])) is not None:
            members = fields[3] if len(fields) > 3 else ""
            yield _Group(fields[0], gid, tuple(name.strip() for name in members.split(",") if name.strip()))


def _id(text: str) -> int | None:
    """A decimal id that the kernel can hold. int() of a huge text would be slow: 10 digits do."""
    text = text.strip()
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        return None
    return int(text) if int(text) <= _MAX_ID else None
