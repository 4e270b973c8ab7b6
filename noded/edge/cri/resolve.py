"""Full ids for the shortened ones that people type."""

from __future__ import annotations

from collections.abc import Callable

from noded.edge.cri.core import Identified
from noded.edge.cri.fields import required
from noded.errors import NotFound


def full_id(view: Callable[[str], Identified], given: str, path: str) -> str:
    """The id that `given` abbreviates, or `given` itself when nothing has it.

    Operations decide by themselves what an unknown id means: success for Stop and Remove.

    Raises: InvalidArgument when empty, and what `view` raises for an ambiguous beginning.
    """
    try:
        return view(required(given, path)).id
    except NotFound:
        return given
