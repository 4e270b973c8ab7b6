"""The system call filter, run by a small interpreter of its own instruction set."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from noded.images.unpack import confine

ALLOW, ENOSYS, KILL = 0x7FFF0000, 0x00050000 | errno.ENOSYS, 0x80000000
HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}


def verdict(code: bytes, architecture: int, number: int, protection: int = 0) -> int:
    data = struct.pack("=iIQ6Q", number, architecture, 0, 0, 0, protection, 0, 0, 0)
    accumulator, position = 0, 0
    while True:
        operation, jump_true, jump_false, operand = struct.unpack_from("=HBBI", code, position * 8)
        position += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x06:
            return operand
        else:
            taken = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[operation]
            position += jump_true if taken else jump_false


@pytest.mark.parametrize("machine", sorted(confine._ARCHITECTURES))
def test_the_filter_allows_the_listed_calls_and_nothing_else(machine: str) -> None:
    architecture, mmap, column = confine._ARCHITECTURES[machine]
    allowed = [numbers[column] for numbers in confine._SYSTEM_CALLS.values() if numbers[column] >= 0]
    code = confine.program(architecture, mmap, allowed)
    for number in range(600):
        expected = ALLOW if number in {*allowed, mmap} else ENOSYS
        assert verdict(code, architecture, number) == expected, number
    assert verdict(code, architecture, mmap, protection=4) == ENOSYS
    assert verdict(code, architecture, mmap, protection=3) == ALLOW
    assert verdict(code, architecture, 0x40000000) == ENOSYS
    assert verdict(code, architecture ^ 1, allowed[0]) == KILL


@pytest.mark.parametrize(
    "name",
    ["socket", "clone", "fork", "execve", "ptrace", "mount", "chroot", "unshare", "setns", "keyctl", "bpf"],
)
def test_dangerous_calls_are_not_listed(name: str) -> None:
    assert name not in confine._SYSTEM_CALLS


@pytest.mark.parametrize("column", HEADERS)
def test_the_numbers_are_those_of_the_kernel_headers(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip("the kernel headers for this architecture are not installed")
    found = dict(
        re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", HEADERS[column].read_text(), re.MULTILINE)
    )
    found.setdefault("newfstatat", found.get("fstatat"))
    for name, numbers in confine._SYSTEM_CALLS.items():
        if name in found:
            assert numbers[column] == int(found[name]), name
        else:
            assert numbers[column] == -1 or name == "fchmodat2", name  # newer than some headers
