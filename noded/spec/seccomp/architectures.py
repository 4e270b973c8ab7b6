"""Machine names and the names that libseccomp filters know them by."""

from __future__ import annotations

# uname(2) machine -> native architecture first, then those whose programs it runs too. x32 is left
# out on purpose: no distribution enables it, and its calls share x86-64's numbers with a flag bit
# (CVE-2014-0038). A filter kills a process that calls in an architecture it does not name.
ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "i686": ("SCMP_ARCH_X86",),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "armv7l": ("SCMP_ARCH_ARM",),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
    "riscv64": ("SCMP_ARCH_RISCV64",),
}

KNOWN = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        "NATIVE", "X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL",
        "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC", "PARISC64",
        "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB",
    )
)  # fmt: skip

# Names as Go and image indexes spell them; profiles of Docker's form use these.
_GO = {
    "amd64": "x86_64",
    "386": "i686",
    "x86": "i686",
    "arm64": "aarch64",
    "arm": "armv7l",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


def machine(architecture: str) -> str:
    """The uname(2) form of an architecture's name in either form."""
    return _GO.get(architecture, architecture)


def architectures(architecture: str) -> tuple[str, ...]:
    """Filter architectures of a machine, () for one that is not known: then runtimes use their own."""
    return ARCHITECTURES.get(machine(architecture), ())


def matches(architecture: str, names: tuple[str, ...] | list[str]) -> bool:
    """Whether a machine runs programs of one of the named (Go or uname) architectures."""
    own = set(architectures(architecture))
    return any(architectures(name)[:1] and architectures(name)[0] in own for name in names)
