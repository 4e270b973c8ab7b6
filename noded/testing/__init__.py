"""What an author of a runtime plugin tests it with: a noded of the test's own and the acceptance suite.

A plugin's tests need two files, and root:

    # tests/conftest.py
    import pytest
    from noded.testing import HandlerCase
    from noded.testing.fixtures import *

    @pytest.fixture(scope="session", params=[HandlerCase("demo", 'type = "demo"')], ids=str)
    def handler(request):
        return request.param

    # tests/test_acceptance.py
    from noded.testing.acceptance import *

The suite of noded's own handlers is this one.
"""

from __future__ import annotations

from noded.testing.cases import Ability, HandlerCase
from noded.testing.node import TestNode

__all__ = ["Ability", "HandlerCase", "TestNode"]
