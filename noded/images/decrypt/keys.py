"""The node's private keys for encrypted images: files in a directory, read anew for each layer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.image import LayerRef
from noded.wire.ocicrypt import LayerKey, is_encrypted, layer_key, wrapped_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

log = structlog.get_logger(__name__)

MAX_KEY_BYTES: Final = 64 * 1024


class DecryptionKeys:
    """Finds the key of a layer.

    Args:
        directory: with private keys in PEM or DER, one in each file; None = no encrypted images.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def check(self, layers: Sequence[LayerRef]) -> None:
        """Find out, before anything is downloaded, whether all encrypted layers can be read. Blocks.

        Raises: as `unlock`.
        """
        for layer in layers:
            if is_encrypted(layer.media_type):
                self.unlock(layer)

    def unlock(self, layer: LayerRef) -> LayerKey:
        """The key of an encrypted layer. Blocks.

        Raises: FailedPrecondition when the node has none that fits; InvalidArgument for annotations
            that ocicrypt would not write.
        """
        what = f"layer {layer.blob_digest} is encrypted"
        if self._directory is None:
            raise FailedPrecondition(
                f"{what}, and this node has no keys: set decryption_keys_path in [images]"
            )
        if not layer.wrapped_keys:
            raise FailedPrecondition(
                f"{what}, but not for a JWE key: encrypt it with `jwe:` and a public key"
            )
        from noded.images.decrypt.unwrap import open_jwe  # `cryptography` only where it is needed
        from noded.wire.jwe import parse_jwe

        try:
            jwes = [parse_jwe(part) for part in wrapped_keys(layer.wrapped_keys)]
            tried = 0
            for key in self._keys(self._directory):
                tried += 1
                for jwe in jwes:
                    if (private := open_jwe(jwe, key)) is not None:
                        return layer_key(layer.cipher_options, private)
        except InvalidArgument as error:
            raise InvalidArgument(f"{what} in a way that cannot be read: {error}") from None
        raise FailedPrecondition(
            f"{what}, and none of the {tried} keys in {self._directory} opens it: "
            "put the private key of one of its recipients there"
        )

    def _keys(self, directory: Path) -> Iterator[PrivateKeyTypes]:
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            return
        except OSError as error:
            raise FailedPrecondition(f"decryption_keys_path cannot be read: {error}") from None
        for name in names:
            path = directory / name
            if name.startswith(".") or not path.is_file():  # `..data` of a mounted Secret, an editor's copy
                continue
            try:
                yield _load(path)
            except (OSError, ValueError, TypeError) as error:
                log.warning("decryption key not used", path=str(path), error=str(error))


def _load(path: Path) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    with path.open("rb") as file:
        data = file.read(MAX_KEY_BYTES + 1)
    if len(data) > MAX_KEY_BYTES:
        raise ValueError(f"it is longer than {MAX_KEY_BYTES} bytes")
    load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    try:
        return load(data, None)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
