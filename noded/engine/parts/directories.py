"""The directories that everything else expects."""

from __future__ import annotations

from noded.host import mounts
from noded.model.paths import Layout


def make_directories(layout: Layout) -> None:
    """Make what is missing, and set all modes. Blocks. Raises: OSError."""
    for directory, mode in (
        (layout.root, 0o700),  # layers hold set-id programs that the host's users must not reach
        (layout.image_root, 0o700),
        (layout.root / "containers", 0o711),
        (layout.checkpoints, 0o700),
        (layout.layers, 0o711),
        (layout.state, 0o711),
        (layout.state / "pods", 0o711),
        (layout.state / "containers", 0o711),
        (layout.exits, 0o700),
        (layout.state / "runtimes", 0o700),
        (layout.netns_dir, 0o755),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    mounts.ensure_shared_mountpoint(layout.netns_dir)
