"""Search by words: an index in memory by tantivy, BM25 (Robertson and Zaragoza, 2009)."""

import math
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import tantivy
from tantivy import Filter, Occur, Query, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

_HEAP: Final = 15_000_000  # bytes, the least that tantivy takes
_LONGEST: Final = 60  # bytes of a word
_MOST_TERMS: Final = 64  # of a question
_FULL: Final = 2.2  # what BM25 gives for a word at most, in units of its rarity: k1 + 1
_LANGUAGES: Final = {
    "da": "danish",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "sv": "swedish",
}
#: Languages without spaces between words: pairs of characters take the place of words.
_BY_PAIRS: Final = ("ja", "zh")

Floats = npt.NDArray[np.float32]


class Keywords:
    """An index of texts, in memory; may be asked on several threads.

    Args:
        texts: What is searched.
        groups: A number for each text; who may see which numbers is said with each question.
        language: Of the texts, as in ISO 639-1: decides how words are cut down to their stems.

    Example:
        >>> index = Keywords(["Pumps move water.", "A valve stops water."], [0, 0])
        >>> index.coverage("moving pumps", (0,), 2).tolist()[1]
        0.0
    """

    def __init__(self, texts: Sequence[str], groups: Sequence[int], language: str = "en") -> None:
        self._analyzer = _analyzer(language)
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("number", stored=True, indexed=False, fast=True)
        builder.add_unsigned_field("group", stored=False, indexed=True, fast=False)
        builder.add_text_field("text", tokenizer_name="words", index_option="freq")
        self._schema = builder.build()
        index = tantivy.Index(self._schema)
        index.register_tokenizer("words", self._analyzer)
        writer = index.writer(heap_size=_HEAP, num_threads=1)
        for number, (text, group) in enumerate(zip(texts, groups, strict=True)):
            document = tantivy.Document()
            document.add_unsigned("number", number)
            document.add_unsigned("group", group)
            document.add_text("text", text)
            writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._searcher = index.searcher()
        self._count = len(texts)
        self._groups = frozenset(groups)

    def coverage(self, question: str, allowed: Collection[int], most: int) -> Floats:
        """Say how much of a question's words each text has, weighted by how rare they are.

        Args:
            question: Anything; it has no syntax.
            allowed: Groups that may be seen.
            most: Texts that are looked at, those with most of the words.

        Returns:
            float32 [texts], 0..1: BM25 as a share of what a text would have that says nothing but
            these words, again and again; a usual text with all of them, once each, has some 0.45.
        """
        found = np.zeros(self._count, dtype=np.float32)
        rarity = self.rarity(question)
        full = _FULL * sum(rarity.values())
        seen = self._groups & frozenset(allowed)
        if not full or not seen:
            return found
        wanted = [(Occur.Should, self._term("text", word)) for word in rarity]
        query = Query.boolean_query(wanted)
        if seen != self._groups:
            may = Query.term_set_query(self._schema, "group", sorted(seen))
            query = Query.boolean_query(
                [(Occur.Must, query), (Occur.Must, Query.const_score_query(may, 0.0))]
            )
        for score, address in self._searcher.search(query, most).hits:
            number = self._searcher.doc(address)["number"][0]
            found[number] = min(1.0, score / full)
        return found

    def rarity(self, text: str) -> dict[str, float]:
        """Return the stems of a text, each with how rare it is in the index (BM25's idf)."""
        words = list(dict.fromkeys(self._analyzer.analyze(text)))[:_MOST_TERMS]
        return {word: self._idf(self._searcher.doc_freq("text", word)) for word in words}

    def words(self, text: str) -> frozenset[str]:
        """Return the stems of a text."""
        return frozenset(self._analyzer.analyze(text))

    def _idf(self, texts: int) -> float:
        return math.log(1 + (self._count - texts + 0.5) / (texts + 0.5))

    def _term(self, field: str, value: str) -> Query:
        return Query.term_query(self._schema, field, value)


def _analyzer(language: str) -> TextAnalyzer:
    if language in _BY_PAIRS:
        pairs = Tokenizer.ngram(min_gram=1, max_gram=2, prefix_only=False)
        return TextAnalyzerBuilder(pairs).filter(Filter.lowercase()).build()
    builder = TextAnalyzerBuilder(Tokenizer.simple())
    builder = builder.filter(Filter.remove_long(_LONGEST)).filter(Filter.lowercase())
    if language in _LANGUAGES:
        name = _LANGUAGES[language]
        builder = builder.filter(Filter.stopword(name)).filter(Filter.stemmer(name))
    return builder.filter(Filter.ascii_fold()).build()
