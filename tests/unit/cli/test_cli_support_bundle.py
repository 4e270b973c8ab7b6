"""Secrets do not get into a support bundle."""

from __future__ import annotations

import pytest

from noded.cli.support_bundle import masked


@pytest.mark.parametrize(
    "text",
    [
        'password = "hunter2"',
        '  "registry_token": "hunter2",',
        "AUTH: hunter2",
        "proxy = https://me:hunter2@proxy.example:3128",
        'my-secret-key="hunter2"',
    ],
)
def test_a_value_that_names_a_secret_is_masked(text):
    assert "hunter2" not in masked(f"a = 1\n{text}\nb = 2")
    assert masked(f"a = 1\n{text}\nb = 2").startswith("a = 1\n")
    assert masked(f"a = 1\n{text}\nb = 2").endswith("\nb = 2")


def test_other_text_stays():
    text = 'root = "/var/lib/noded"\nauthor_of_nothing\nhttps://registry.example/v2/\n'
    assert masked(text) == text
