"""Documents that an assistant may answer from: read, and cut into passages."""

from genba.data.documents.chunks import Piece, pieces_of
from genba.data.documents.sources import DocumentSource, Found, open_source
from genba.data.documents.values import Section, Text

__all__ = ["DocumentSource", "Found", "Piece", "Section", "Text", "open_source", "pieces_of"]
