"""A layer that is extracted and waits for its image to be published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from noded.images.artifacts import make_files
from noded.images.content import ContentStore
from noded.images.extraction import fresh_tree
from noded.images.filesystem import TreeSize, tree_size
from noded.images.inherit import inherit_metadata, mark_opaque
from noded.images.layer_record import OWN_BYTES, OWN_INODES, LayerRecord
from noded.images.redirect import Shape, follow_lower_links
from noded.images.unpack.limits import UnpackReport
from noded.model.image import LayerRef
from noded.wire.artifact import ArtifactFile


@dataclass(frozen=True, slots=True)
class StagedLayer:
    """Its future commit record, and what depends on the layers below. All functions here block."""

    record: LayerRecord
    shape: Shape

    def settled(self, tree: Path, lowers: Sequence[Path]) -> StagedLayer:
        """Fit the tree to the layers below it, top first, which are known only now.

        Repeating it changes nothing.
        """
        shape = settle(tree, self.shape, lowers)
        if shape == self.shape:
            return self
        return StagedLayer(_with_size(self.record, tree_size(tree)), shape)

    def encoded(self) -> bytes:
        """The contents of the commit record's file."""
        return json.dumps({**asdict(self.record), "implied": self.shape.implied}).encode()


def extracted(layer: LayerRef, tree: Path, report: UnpackReport) -> StagedLayer:
    """Do what the unpacker left to its caller."""
    mark_opaque(tree, report.opaque)
    record = LayerRecord(
        chain_id=layer.chain_id,
        diff_id=report.diff_id,
        blob_digest=layer.blob_digest,
        entries=report.entries,
        used_bytes=0,
        used_inodes=0,
        opaque_root="" in report.opaque,
    )
    shape = Shape(report.implied, report.opaque)
    size = TreeSize(report.used_bytes, report.used_inodes, report.length_bytes)
    return StagedLayer(_with_size(record, size), shape)


def assembled(
    chain_id: str, tree: Path, wanted: Sequence[ArtifactFile], content: ContentStore
) -> StagedLayer:
    """Make the tree of an artifact of its blobs.

    Raises: NotFound naming a missing blob; by errno.
    """
    fresh_tree(tree)
    used_bytes, inodes = make_files(tree, [(file.path, content.path(file.blob_digest)) for file in wanted])
    record = LayerRecord(
        chain_id=chain_id, diff_id=chain_id, blob_digest="", entries=len(wanted), used_bytes=0, used_inodes=0
    )
    return StagedLayer(_with_size(record, TreeSize(used_bytes, inodes, -1)), Shape((), ()))


def settle(tree: Path, shape: Shape, lowers: Sequence[Path]) -> Shape:
    """Give what a layer only implies the form and metadata that it has in the layers below, top first."""
    shape = follow_lower_links(tree, shape, lowers)
    inherit_metadata(tree, shape.implied, shape.opaque, lowers)
    return shape


def _with_size(record: LayerRecord, size: TreeSize) -> LayerRecord:
    return replace(
        record,
        used_bytes=size.used_bytes + OWN_BYTES,
        used_inodes=size.used_inodes + OWN_INODES,
        length_bytes=size.length_bytes,
    )
