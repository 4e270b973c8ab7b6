"""Verifying OpenPGP signed messages with gpgv(1), which trusts the keys of a file and no others."""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from noded.errors import FailedPrecondition, InvalidArgument

_PROGRAM: Final = "gpgv"
_SECONDS: Final = 30.0
_ARMOR: Final = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[!-~]+: .*\r?\n)*\s*\r?\n"
    rb"(.*?)(?:\r?\n=[A-Za-z0-9+/]{4})?\s*"
    rb"-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_GOOD: Final = b"[GNUPG:] GOODSIG "
_VALID: Final = b"[GNUPG:] VALIDSIG "
# Any of them beside a good signature: expired or revoked keys, expired signatures, several signatures.
_BAD: Final = tuple(
    b"[GNUPG:] " + word for word in (b"BADSIG", b"ERRSIG", b"EXPSIG", b"EXPKEYSIG", b"REVKEYSIG", b"NODATA")
)


def keyring(keys: Sequence[bytes]) -> bytes:
    """Public keys, armored or not, as one binary keyring.

    Raises: InvalidArgument for what is no key.
    """
    rings = []
    for key in keys:
        blocks = _ARMOR.findall(key)
        if not blocks and not key[:1] >= b"\x80":  # an OpenPGP packet begins with its highest bit set
            raise InvalidArgument("a key file of the policy holds no OpenPGP public key")
        try:
            rings += [base64.b64decode(b"".join(block.split()), validate=True) for block in blocks] or [key]
        except binascii.Error:
            raise InvalidArgument("a key file of the policy has a damaged OpenPGP armor") from None
    return b"".join(rings)


async def open_message(message: bytes, ring: bytes) -> bytes | None:
    """The text of a signed message, None when it has no good signature by a key of the ring.

    Cancellation: kills gpgv.
    Raises: FailedPrecondition when gpgv is not installed or does not end.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise FailedPrecondition(f"{_PROGRAM} was not found: install it to check signedBy requirements")
    with tempfile.TemporaryDirectory(prefix="noded-gpgv-") as name:
        directory = Path(name)
        keys, signed, text = (directory / part for part in ("keys", "signed", "text"))
        keys.write_bytes(ring)
        signed.write_bytes(message)
        command = [program, "--homedir", name, "--keyring", str(keys), "--status-fd", "1"]
        with trio.move_on_after(_SECONDS) as scope:
            result = await trio.run_process(
                [*command, "--output", str(text), str(signed)],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                stdin=b"",
                env={"LANG": "C", "PATH": "/usr/bin:/bin"},
            )
        if scope.cancelled_caught:
            raise FailedPrecondition(f"{_PROGRAM} did not end within {_SECONDS:g} s")
        lines = result.stdout.splitlines()
        good = sum(line.startswith(_GOOD) for line in lines) == 1
        valid = sum(line.startswith(_VALID) for line in lines) == 1
        bad = any(line.startswith(_BAD) for line in lines)
        if result.returncode != 0 or not good or not valid or bad or not text.is_file():
            return None
        return text.read_bytes()
