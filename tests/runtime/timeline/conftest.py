"""A daemon, images and a client, as the end-to-end tests have them."""

from __future__ import annotations

from tests.runtime.e2e.conftest import busybox, cri, daemon, pushed

__all__ = ["busybox", "cri", "daemon", "pushed"]
