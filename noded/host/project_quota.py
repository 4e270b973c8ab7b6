"""Project quotas of xfs and ext4: a limit on what the files of one directory tree take together.

quotactl_fd(2) (Linux 5.14) names the file system by a descriptor, so no block device need be found.
Everything here blocks.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path

from noded.errors import FailedPrecondition
from noded.host import libc

SYS_QUOTACTL_FD = 443
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("=5I8x")  # struct fsxattr: xflags, extsize, nextents, projid, cowextsize
_PROJECT_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT: new files and directories get the project of their parent

_PROJECT = 2  # PRJQUOTA
_SET_LIMIT = (0x5804 << 8) | _PROJECT  # QCMD(Q_XSETQLIM, PRJQUOTA)
_GET_STATE = (0x5805 << 8) | _PROJECT  # QCMD(Q_XGETQSTAT, PRJQUOTA)
_STATE_BYTES = 256  # struct fs_quota_stat has 80
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD
_SOFT, _HARD = 1 << 2, 1 << 3  # FS_DQ_BSOFT, FS_DQ_BHARD
_VERSION, _PROJECT_FLAG = 1, 2  # FS_DQUOT_VERSION, FS_PROJ_QUOTA
_BLOCK_BYTES = 512
# struct fs_disk_quota up to d_blk_softlimit; the rest is not named by the field mask
_LIMIT = struct.Struct("=bbHIQQ88x")
_OFF = (errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP)


def project_of(directory: Path) -> int:
    """The project that a directory belongs to, 0 = none.

    Raises: FailedPrecondition when its file system has no projects.
    """
    fd = _open(directory)
    try:
        return _attributes(fd, directory)[3]
    finally:
        os.close(fd)


def assign(directory: Path, project: int) -> None:
    """Put an empty directory into a project; what is made in it belongs to it, too. Idempotent.

    Args:
        project: not 0, and used for no other tree on the file system.

    Raises: FailedPrecondition when the file system enforces no project quotas, with the cure.
    """
    fd = _open(directory)
    try:
        if not _enforced(fd):
            raise FailedPrecondition(
                f"the file system of {directory} enforces no project quotas: mount it with `-o prjquota` "
                "(ext4 must be made with `-O project,quota`)"
            )
        found = _attributes(fd, directory)
        wanted = (found[0] | _PROJECT_INHERIT, found[1], found[2], project, found[4])
        fcntl.ioctl(fd, _FSSETXATTR, _FSXATTR.pack(*wanted))
    except OSError as error:
        raise libc.os_error(error, f"cannot put {directory} into a project") from None
    finally:
        os.close(fd)


def limit(directory: Path, project: int, max_bytes: int) -> None:
    """Limit what the files of a project take together; 0 = no limit. Repeating it replaces the limit.

    Args:
        directory: any on the file system.

    Raises: FailedPrecondition, PermissionDenied... by errno.
    """
    fd = _open(directory)
    try:
        blocks = -(-max_bytes // _BLOCK_BYTES)
        data = _LIMIT.pack(_VERSION, _PROJECT_FLAG, _SOFT | _HARD, project, blocks, blocks)
        libc.system_call(SYS_QUOTACTL_FD, fd, _SET_LIMIT, project, ctypes.c_char_p(data))
    except OSError as error:
        raise libc.os_error(
            error, f"cannot limit project {project} on the file system of {directory}"
        ) from None
    finally:
        os.close(fd)


def _enforced(fd: int) -> bool:
    state = ctypes.create_string_buffer(_STATE_BYTES)
    try:
        libc.system_call(SYS_QUOTACTL_FD, fd, _GET_STATE, 0, state)
    except OSError as error:
        if error.errno in _OFF:
            return False
        raise
    flags: int = struct.unpack_from("=H", state, 2)[0]
    return bool(flags & _ENFORCED)


def _attributes(fd: int, directory: Path) -> tuple[int, ...]:
    try:
        return _FSXATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_FSXATTR.size)))
    except OSError as error:
        if error.errno in _OFF:
            raise FailedPrecondition(f"the file system of {directory} has no projects") from None
        raise libc.os_error(error, f"cannot read the project of {directory}") from None


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
