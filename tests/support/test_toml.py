from __future__ import annotations

import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.support import toml

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | texts
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = scalars | st.lists(scalars, max_size=3)
keys = texts.filter(bool)
tables = st.recursive(
    st.dictionaries(keys, values, max_size=3),
    lambda inner: st.dictionaries(keys, values | inner, max_size=3),
    max_leaves=5,
)


@given(tables)
def test_what_is_written_is_read_back(table):
    assert tomllib.loads(toml.dumps(table)) == table


def test_paths_are_strings():
    assert tomllib.loads(toml.dumps({"root": Path("/a b")})) == {"root": "/a b"}
