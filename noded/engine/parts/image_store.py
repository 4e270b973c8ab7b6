"""The image side: content, layers, root file systems, pulls."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from noded.engine.parts.ground import Ground
from noded.images.content import ContentStore
from noded.images.decrypt.keys import DecryptionKeys
from noded.images.layers import LayerStore
from noded.images.library import Library
from noded.images.pull import Puller
from noded.images.repair import Repairer
from noded.images.seccomp_artifacts import SeccompArtifacts
from noded.images.snapshots import Snapshots
from noded.images.stores import AdditionalStores, AllLayers
from noded.images.trust.admission import Admission
from noded.images.unpack.client import Unpacker
from noded.images.volumes import ImageVolumes
from noded.store.database import Database
from noded.store.images import ImageRows
from noded.store.seccomp_artifacts import SeccompArtifactRows


@dataclass(frozen=True, slots=True)
class ImageStore:
    """
    Args:
        stores: directories of unpacked images that are only read.
        layers: those of this node and of the additional stores.
        admission: judges images that are here already.
        artifacts: seccomp profiles that registries have.
    """

    content: ContentStore
    stores: AdditionalStores
    layers: AllLayers
    library: Library
    snapshots: Snapshots
    volumes: ImageVolumes
    puller: Puller
    admission: Admission
    artifacts: SeccompArtifacts
    repairer: Repairer


async def open_image_store(ground: Ground, database: Database, unpacker: Unpacker) -> ImageStore:
    """Make the parts and let the additional stores be read; `Library.load` is still to come.

    Raises: FailedPrecondition when the storage driver cannot work here.
    """
    config, layout = ground.config.images, ground.layout
    content = ContentStore(layout.content)
    keys = DecryptionKeys(config.decryption_keys_path)
    own_layers = LayerStore(layout.layers, unpacker, keys=keys)
    library = Library(
        content=content,
        layers=own_layers,
        rows=ImageRows(database),
        layout=layout,
        pinned=config.pinned,
        keep_blobs=config.keep_blobs,
    )
    stores = AdditionalStores(config.additional_stores)
    library.set_stores(stores)
    ground.services.start_soon(stores.begin)
    layers = AllLayers(own_layers, stores)
    snapshots = Snapshots(layout, layers, config.storage_driver, layers.reach)
    await trio.to_thread.run_sync(snapshots.driver.check)
    puller = Puller(config, content, own_layers, library, keys=keys)
    library.set_meanings(puller.names)
    artifacts = SeccompArtifacts(SeccompArtifactRows(database), content, puller, library)
    library.set_kept(artifacts.blobs)
    return ImageStore(
        content=content,
        stores=stores,
        layers=layers,
        library=library,
        snapshots=snapshots,
        volumes=ImageVolumes(layout, layers, snapshots.driver.stack, layers.reach),
        puller=puller,
        admission=puller.admission(layout.root / "verdicts"),
        artifacts=artifacts,
        repairer=Repairer(library, puller.restore),
    )
