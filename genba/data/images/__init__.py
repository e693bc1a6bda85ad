"""Images: the modality of everything that comes in pictures.

A source of images yields Arrow batches with the columns `image` (binary, a whole file) and `name`
(string), and where it knows them `mask` (binary, a file that is not zero where a defect is),
`label` (string, the name of a class), `split` (string: train, calibrate or test), `entity`,
`group` (string: images that belong together) and `time`. `_reason` and `_detail` say why a file
could not be read. Metadata of the schema may say how the files were laid out (`layout`).
"""

from typing import Any

from genba.core.line import Line
from genba.core.protocols import Modality, Source, View
from genba.core.values import DatasetVersion
from genba.data.images.ingest import ingest
from genba.data.images.leakage import refuse_leakage
from genba.data.images.live import extend
from genba.data.images.parent import ImageParent
from genba.data.view import DatasetView
from genba.store.home import Store


class Images(Modality):
    """Takes in, continues and checks images."""

    @staticmethod
    def ingest(
        source: Source, line: Line, store: Store, progress: Any, **how: Any
    ) -> DatasetVersion:
        """Read a source into a new dataset version; `how` is `parent` and `split_by`."""
        return ingest(source, line, store, progress, **how)

    @staticmethod
    def parent(store: Store, version: DatasetVersion) -> ImageParent:
        """Return what `ingest` needs to know of an earlier version to continue it."""
        return ImageParent.load(store, version)

    @staticmethod
    def extend(
        store: Store, line: Line, version: DatasetVersion, captures: Any, lessons: Any
    ) -> DatasetVersion:
        """Continue a version with captured images and what people said about them."""
        return extend(store, line, version, captures=captures, lessons=lessons)

    @staticmethod
    def refuse_leakage(view: View) -> None:
        """Refuse a version of which images, or near-duplicates, are on two sides.

        Raises:
            Problem: G214.
        """
        assert isinstance(view, DatasetView)
        refuse_leakage(view)
