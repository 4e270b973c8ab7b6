"""How small a limit of a container's log may be."""

from typing import Final

LEAST_LOG_BYTES: Final = 16384  # a piece of output must fit: conmon writes 8 KiB at a time
