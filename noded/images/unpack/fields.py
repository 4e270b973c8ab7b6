"""Numbers and times in tar headers, as octal or decimal text or in base 256. Pure."""

from __future__ import annotations

import zlib
from functools import lru_cache

from noded.images.unpack.faults import corrupt, refused

NS = 1_000_000_000
_ADLER_MODULUS = 65521
_MAX_ID = 0xFFFFFFFE  # (uid_t)-1 means "leave it" to chown(2)
_MAX_SECONDS = 1 << 40  # 36,812 years: file systems clamp long before


def check_sum(header: bytes) -> None:
    """Compare a header with its checksum, the sum of its bytes with the checksum field as spaces.

    adler32's low half is that sum + 1, modulo 65521, in C. Ancient tars summed signed bytes: they
    are accepted too, as every reader does.
    """
    field = header[148:156]
    stored = number(field)
    correction = 8 * 0x20 - sum(field)
    unsigned = (zlib.adler32(header) & 0xFFFF) - 1 + correction
    if (stored - unsigned) % _ADLER_MODULUS:
        high = sum(1 for byte in header if byte > 127)
        if stored != sum(header) + correction - 256 * high:
            raise corrupt("a header has a wrong checksum")


def number(field: bytes) -> int:
    """A numeric header field: octal text, or base 256 when the first bit is set (GNU, star)."""
    text = field.rstrip(b" \0")
    if not text.isdigit():  # int() alone would take signs, underscores and 0o
        if field[0] & 0x80:
            bits = 8 * len(field) - 1
            value = int.from_bytes(field, "big") & ((1 << bits) - 1)
            return value - (1 << bits) if value >> (bits - 1) else value
        text = field.partition(b"\0")[0].strip(b" ") or field.strip(b" \0")
        if not text:
            return 0
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            pass
    raise corrupt(f"a header has {text!r} where an octal number belongs")


@lru_cache(maxsize=256)  # most objects of a layer have one of a few
def mode_and_owner(fields: bytes) -> tuple[int, int, int]:
    """The first three numbers after the name, of 8 bytes each: mode, user and group id."""
    return (
        number(fields[:8]) & 0o7777,
        user_or_group(number(fields[8:16])),
        user_or_group(number(fields[16:])),
    )


def user_or_group(value: int) -> int:
    """Refuse what is no id."""
    if not 0 <= value <= _MAX_ID:
        raise refused(f"its owner {value} is not a valid id")
    return value


def decimal(text: bytes) -> int:
    """An unsigned decimal number of an extension header."""
    if not text.isdigit() or len(text) > 20:
        raise corrupt(f"an extension header has {text[:40]!r} where a decimal number belongs")
    return int(text)


def seconds(value: int) -> int:
    """A time of a header in ns."""
    return max(-_MAX_SECONDS, min(value, _MAX_SECONDS)) * NS


def parse_time(text: bytes) -> int:
    """pax(1) time, seconds with a fraction of any length, in ns; cut towards minus infinity."""
    negative = text.startswith(b"-")
    whole, _, fraction = text[negative:].partition(b".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()):
        raise corrupt(f"an extension header has {text[:40]!r} where a time belongs")
    total = seconds(int(whole[:20])) + int(fraction[:9].ljust(9, b"0"))
    return -total if negative else total
