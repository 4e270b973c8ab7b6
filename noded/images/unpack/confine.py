"""Giving up everything that extracting a layer does not need. All of it is irrevocable.

In order: a private mount namespace whose root is the destination (the rest of the host's mounts is
let go, so that none stays busy through us), resource limits, capabilities, no_new_privs, seccomp.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE, _MS_SLAVE, _MNT_DETACH = 0x4000, 0x40000, 0x80000, 2
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _AT_EMPTY_PATH = 1, 0x1000
_MOVE_MOUNT_F_EMPTY_PATH, _AT_FDCWD = 4, -100
_MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_NOEXEC = 0x2, 0x4, 0x8

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_PR_SET_SECCOMP, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 22, 23, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

# CHOWN DAC_OVERRIDE FOWNER FSETID MKNOD SETFCAP (linux/capability.h)
KEPT_CAPABILITIES = frozenset((0, 1, 3, 4, 27, 31))

_FILE_DESCRIPTORS = 32
_SECCOMP_MODE_FILTER = 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_PROT_EXEC = 4

# What extraction and the interpreter's memory allocator call, with its number on x86-64 and arm64. -1 is a
# call that arm64 never had; the C library uses the newer *at form there.
_SYSTEM_CALLS = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, -1), "fstat": (5, 80), "lstat": (6, -1),
    "statfs": (137, 43), "poll": (7, -1), "ppoll": (271, 73), "lseek": (8, 62), "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24),
    "getpid": (39, 172), "gettid": (186, 178), "exit": (60, 93), "exit_group": (231, 94), "fcntl": (72, 25),
    "ftruncate": (77, 46), "open": (2, -1), "openat": (257, 56), "getdents": (78, -1),
    "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "mkdir": (83, -1),
    "mkdirat": (258, 34), "rmdir": (84, -1), "link": (86, -1), "linkat": (265, 37), "unlink": (87, -1),
    "unlinkat": (263, 35), "symlink": (88, -1), "symlinkat": (266, 36), "readlink": (89, -1),
    "readlinkat": (267, 78), "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54),
    "umask": (95, 166), "mknod": (133, -1), "mknodat": (259, 33), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10),
    "gettimeofday": (96, 169), "time": (201, -1), "clock_gettime": (228, 113), "clock_nanosleep": (230, 115),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "sigaltstack": (131, 132), "futex": (202, 98), "tgkill": (234, 131), "newfstatat": (262, 79),
    "faccessat": (269, 48), "faccessat2": (439, 439), "set_robust_list": (273, 99), "utimensat": (280, 88),
    "fallocate": (285, 47), "sync_file_range": (277, 84), "getrandom": (318, 278), "statx": (332, 291),
    "rseq": (334, 293),
}  # fmt: skip
# machine: (AUDIT_ARCH_*, number of mmap, column of the table)
_ARCHITECTURES = {"x86_64": (0xC000003E, 9, 0), "aarch64": (0xC00000B7, 222, 1)}


def confine(destination: int, memory_bytes: int) -> None:
    """Make `destination` (an open directory) the root and drop all privileges but file ownership.

    Raises: OSError when a step fails. Machines other than x86-64 and arm64 get no seccomp filter;
    the capabilities and the new root are what confines, seccomp narrows the kernel's surface.
    """
    _enter(destination)
    _limit_resources(memory_bytes)
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    filter_system_calls()


def die_with_parent(parent: int, number: int = 9) -> None:
    """Have the kernel send this process a signal, SIGKILL, when `parent`, a single-threaded process, ends."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def set_name(name: bytes) -> None:
    """The name that ps shows (15 bytes)."""
    _libc.prctl(_PR_SET_NAME, name, 0, 0, 0)


def _enter(destination: int) -> None:
    """Leave the host's mount tree for one that has the destination only."""
    try:
        # Before unshare: afterwards the descriptor belongs to a mount that is not ours.
        tree = _syscall(_SYS_OPEN_TREE, destination, b"", _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH)
        _restrict_mount(tree)
        _call("unshare", _CLONE_NEWNS)
        # Slave, not private: an unmount on the host must reach us until the old root is gone.
        _call("mount", None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None)
        old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, b"/", _MOVE_MOUNT_F_EMPTY_PATH)
        os.fchdir(tree)
        os.close(tree)
        # A copy of a shared mount is shared, too, and nothing can be pivoted into one.
        _call("mount", None, b".", None, ctypes.c_ulong(_MS_PRIVATE), None)
        _call("pivot_root", b".", b".")
        os.fchdir(old_root)
        os.close(old_root)
        _call("umount2", b".", _MNT_DETACH)
        os.chdir("/")
    except OSError as error:
        # pivot_root cannot leave an initramfs (EINVAL); kernels before 5.2 have no open_tree (ENOSYS).
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        os.fchdir(destination)
        os.chroot(".")
    os.close(destination)


def _restrict_mount(tree: int) -> None:
    attributes = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | _MOUNT_ATTR_NOEXEC
    argument = struct.pack("=QQQQ", attributes, 0, 0, 0)
    try:
        _syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, argument, len(argument))
    except OSError as error:
        if error.errno != errno.ENOSYS:  # before Linux 5.12
            raise


def _limit_resources(memory_bytes: int) -> None:
    for kind, wanted in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, _FILE_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (limit, limit))


def _drop_capabilities() -> None:
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # EINVAL before Linux 4.3
    number = 0
    while (bounded := _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        if bounded and number not in KEPT_CAPABILITIES:
            _prctl(_PR_CAPBSET_DROP, number)
        number += 1
    kept = sum(1 << capability for capability in KEPT_CAPABILITIES) & _permitted()
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    _call("capset", header, struct.pack("=6I", low, low, 0, high, high, 0))


def _permitted() -> int:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    _call("capget", header, data)
    values = struct.unpack("=6I", data.raw[:24])
    return int(values[1]) | int(values[4]) << 32


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def filter_system_calls() -> bool:
    """Install the seccomp filter; the process must have no_new_privs. False: none for this machine."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    architecture, mmap, column = known
    allowed = [numbers[column] for numbers in _SYSTEM_CALLS.values() if numbers[column] >= 0]
    code = program(architecture, mmap, allowed)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(code) // 8, code)))
    return True


def program(architecture: int, mmap: int, allowed: list[int]) -> bytes:
    """The BPF program: listed calls pass, mmap passes unless executable, all others get ENOSYS.

    ENOSYS, not EPERM: the C library falls back to an older call where it probes for a newer one.
    """
    load, equal, at_least, bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse = _ERRNO | errno.ENOSYS
    count = len(allowed)
    code = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 1, 0, architecture),
        (give, 0, 0, _KILL),
        (load, 0, 0, 0),  # seccomp_data.nr
        (at_least, 5 + count, 0, 0x40000000),  # the x32 calls share the architecture
        (equal, 0, 4, mmap),
        (load, 0, 0, 32),  # low half of args[2], the protection
        (bits, 1, 0, _PROT_EXEC),
        (give, 0, 0, _ALLOW),
        (give, 0, 0, refuse),
    ]
    code += [(equal, count - index, 0, number) for index, number in enumerate(allowed)]
    code += [(give, 0, 0, refuse), (give, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _prctl(option: int, *arguments: object) -> None:
    wide = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    wide += [ctypes.c_ulong(0)] * (4 - len(wide))
    _check(_libc.prctl(option, *wide), "prctl")


def _call(function: str, *arguments: object) -> int:
    return _check(getattr(_libc, function)(*arguments), function)


def _syscall(number: int, *arguments: object) -> int:
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *wide), f"system call {number}")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
