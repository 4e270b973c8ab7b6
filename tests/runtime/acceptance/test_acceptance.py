"""The acceptance suite over noded's own handlers."""

from __future__ import annotations

from noded.testing.acceptance import *  # noqa: F403 - every test of it
