"""Texts: the modality of questions, answers and documents.

A source of texts yields Arrow batches with the columns `messages` (string: a JSON list of messages
up to the last one of the user, "[]" of plain text), `answer` (string, "" where there is none) and
`name` (string, where it came from), and where it knows them `rejected` (string: an answer that was
not preferred), `weight`, `label` (string, the name of a class), `split` (string: train, calibrate
or test), `entity`, `group` (string: texts that belong together), `time` and `note` (what the source
did to the text). `_reason` and `_detail` say why something could not be read.
"""

from typing import Any

from genba.core.line import Line
from genba.core.protocols import Modality, Source, View
from genba.core.values import DatasetVersion
from genba.data.texts.ingest import ingest
from genba.data.texts.leakage import refuse_leakage
from genba.data.texts.live import extend
from genba.data.texts.parent import TextParent
from genba.data.view import DatasetView
from genba.store.home import Store


class Texts(Modality):
    """Takes in, continues and checks texts."""

    @staticmethod
    def ingest(
        source: Source, line: Line, store: Store, progress: Any, **how: Any
    ) -> DatasetVersion:
        """Read a source into a new dataset version; `how` is `parent` and `split_by`."""
        return ingest(source, line, store, progress, **how)

    @staticmethod
    def parent(store: Store, version: DatasetVersion) -> TextParent:
        """Return what `ingest` needs to know of an earlier version to continue it."""
        return TextParent.load(store, version)

    @staticmethod
    def extend(
        store: Store, line: Line, version: DatasetVersion, captures: Any, lessons: Any
    ) -> DatasetVersion:
        """Continue a version with what was asked and answered, and what people said about it."""
        return extend(store, line, version, captures=captures, lessons=lessons)

    @staticmethod
    def refuse_leakage(view: View) -> None:
        """Refuse a version of which questions, or near-duplicates, are on two sides.

        Raises:
            Problem: G214.
        """
        assert isinstance(view, DatasetView)
        refuse_leakage(view)
