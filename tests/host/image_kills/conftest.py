"""A daemon whose work on images is killed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from kill_node import KEY, Node

from tests.support.daemon import NodedDaemon
from tests.support.registry import Registry


@pytest.fixture(scope="package")
def node(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("kill")
    keys = directory / "keys"
    keys.mkdir()
    (keys / "node.pem").write_bytes(
        KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    daemon = NodedDaemon(
        directory, insecure=[registry.host], settings={"images": {"decryption_keys_path": keys}}
    )
    daemon.prepare()
    try:
        node = Node(daemon, registry)
        node.start()
        with daemon.client() as cri:
            node.learn(cri, random.Random(1))
        yield node
    finally:
        daemon.close()
