"""Tables of numbers: the modality of everything that comes in rows and columns."""

from typing import Any

from genba.core.line import Line
from genba.core.protocols import Modality, Source, View
from genba.core.values import DatasetVersion
from genba.data.ingest import ingest
from genba.data.leakage import refuse_leakage
from genba.data.live import extend
from genba.data.plan import Parent
from genba.data.view import DatasetView
from genba.store.home import Store


class Tables(Modality):
    """Takes in, continues and checks tables; see `genba.data.ingest` for how."""

    @staticmethod
    def ingest(
        source: Source, line: Line, store: Store, progress: Any, **how: Any
    ) -> DatasetVersion:
        """Read a source into a new dataset version; `how` is `parent` and `split_by`."""
        return ingest(source, line, store, progress, **how)

    @staticmethod
    def parent(store: Store, version: DatasetVersion) -> Parent:
        """Return what `ingest` needs to know of an earlier version to continue it."""
        return Parent.load(store, version)

    @staticmethod
    def extend(
        store: Store, line: Line, version: DatasetVersion, captures: Any, lessons: Any
    ) -> DatasetVersion:
        """Continue a version with captured rows and what people said about them."""
        return extend(store, line, version, captures=captures, lessons=lessons)

    @staticmethod
    def refuse_leakage(view: View) -> None:
        """Refuse a version whose splits share rows, moments or entities.

        Raises:
            Problem: G214.
        """
        assert isinstance(view, DatasetView)
        refuse_leakage(view)
