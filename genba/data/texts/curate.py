"""Which texts are kept, and what is done to them before; every rejection has its reason.

What `data.checks` of the line may say of texts: `language` (allowed: codes such as "en"),
`personal` (allowed: kinds that stay as they are; max = 0: a text with any is rejected; otherwise
they are masked), and `question`, `answer`, `text` (min and max characters; required). Where the
line is silent, texts that are empty, broken, endless or repeat themselves are rejected, and plain
texts have the rules of `quality`.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from genba.core.codec import nearest
from genba.core.line import Check, Line
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data.formats.batch import DETAIL, REASON
from genba.data.formats.texts import as_json, conversation
from genba.data.texts import quality
from genba.edge.personal import KINDS, find, masked

EMPTY: Final = "nothing in it"
BROKEN: Final = "broken characters"
ECHO: Final = "the answer repeats the question"
REPEATS: Final = "repeats itself"
PERSONAL: Final = "personal data"
LANGUAGE: Final = "another language"
#: What checks may be about, and the columns they look at.
CHECKS: Final = ("language", "personal", "question", "answer", "text")
_LONGEST: Final = {"question": 100_000, "answer": 100_000, "text": 50_000_000}  # characters
_BROKEN_SHARE: Final = 0.01  # of characters
_PACKED: Final = 12.0  # times that a text of an answer shrinks: what people write shrinks by 2 to 5
_PACKED_LEAST: Final = 600  # characters; shorter texts shrink too little to tell
_CONTROLS: Final = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u{200b}\u{feff}]"
#: What every kind of personal data has in it: looked for in a whole batch at once.
_SUSPECT: Final = (
    r"(?i)[@＠]|[\[({]\s*at\s*[\])}]|[0-9０-９][^\n0-9０-９]{0,3}[0-9０-９][^\n0-9０-９]{0,3}[0-9０-９]"
    r"[^\n0-9０-９]{0,3}[0-9０-９][^\n0-9０-９]{0,3}[0-9０-９]|[0-9a-f]::?[0-9a-f]|[_\-]key|secret|token"
    r"|passw|pwd|bearer|[ps]k[_\-]|gh[opsur]_|xox|akia|asia|aiza|eyj|npm_|glpat|hf_|private key"
    r"|パスワード"
)


class Curator:
    """Looks at texts, a batch at a time.

    Args:
        line: Says what is wanted.
        said: These are words of people who corrected an answer: they may be short and unanswered.

    Attributes:
        personal: How many of each kind of personal data were masked.
        languages: How many texts of each language there were, where that is looked at.
    """

    def __init__(self, line: Line, *, said: bool = False) -> None:
        self.personal: dict[str, int] = {}
        self.languages: dict[str, int] = {}
        self._checks = _checked(line.data.checks)
        self._said = said
        personal = self._checks.get("personal") or Check()
        self._kinds = tuple(k for k in KINDS if k not in (personal.allowed or ()))
        self._refuses = personal.max is not None and personal.max < 1
        language = self._checks.get("language")
        self._wanted = tuple(language.allowed or ()) if language else ()
        self._detector: Any = resolve("detector", "fasttext")() if self._wanted else None

    def curate(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows with what was changed, and the reason of those that are not kept.

        Args:
            frame: `messages`, `text`, `answer`, `rejected`, `label`, and `REASON` and `DETAIL` of
                what could not be read.
        """
        frame = _clean(frame).with_columns(pl.col(DETAIL).fill_null(""))
        frame = self._sized(frame)
        written = (pl.col("messages") == "[]") & pl.col(REASON).is_null()
        frame = _told(frame, self._poor(frame, written))
        frame = _told(frame, _packed(frame))
        if self._detector is not None:
            frame = _told(frame, self._foreign(frame))
        return self._private(frame)

    def _sized(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Reject what is empty, broken, too short or too long."""
        question, answer = pl.col("text").str.strip_chars(), pl.col("answer").str.strip_chars()
        spoken = pl.col("messages") != "[]"
        whole = pl.concat_str("text", "answer")  # what was rejected may be as broken as it was
        broken = whole.str.count_matches("\ufffd") > whole.str.len_chars() * _BROKEN_SHARE
        rules = [
            (EMPTY, (question == "") & ((answer == "") | spoken)),
            (BROKEN, broken),
            (ECHO, spoken & (answer != "") & (question == answer) & (answer.str.len_chars() > 1)),
        ]
        for name, text, holds in (
            ("question", question, spoken),
            ("answer", answer, spoken),
            ("text", answer, ~spoken),
        ):
            rules += self._limits(name, text, holds)
        reason = pl.coalesce(REASON, *(pl.when(fails).then(pl.lit(why)) for why, fails in rules))
        return frame.with_columns(reason.alias(REASON))

    def _limits(self, name: str, text: pl.Expr, holds: pl.Expr) -> list[tuple[str, pl.Expr]]:
        check, size = self._checks.get(name) or Check(), text.str.len_chars()
        most = _LONGEST[name] if check.max is None else int(check.max)
        found = [(f"{name} is longer than {most:,} characters", holds & (size > most))]
        if self._said:
            return found
        if check.required:
            found.append((f"{name} is missing", holds & (size == 0)))
        if check.min is not None:
            short = f"{name} is shorter than {check.min:g} characters"
            found.append((short, holds & (size > 0) & (size < check.min)))
        return found

    def _poor(self, frame: pl.DataFrame, written: pl.Expr) -> dict[int, tuple[str, str]]:
        """Find plain texts that are not worth reading."""
        chosen = frame.select(written.alias("written"))["written"]
        return quality.reasons(frame["answer"], chosen, english=self._wanted == ("en",))

    def _foreign(self, frame: pl.DataFrame) -> dict[int, tuple[str, str]]:
        found = {}
        rows = frame.with_row_index("at").filter(pl.col(REASON).is_null())
        for at, asked, said in rows.select("at", "text", "answer").iter_rows():
            language = self._detector.language(f"{asked} {said}")
            self.languages[language] = self.languages.get(language, 0) + 1
            if language and language not in self._wanted:
                found[at] = (LANGUAGE, language)
        return found

    def _private(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Mask what is personal, or reject who has it."""
        names = ("messages", "answer", "rejected")
        suspect = pl.any_horizontal(pl.col(name).str.contains(_SUSPECT) for name in names)
        rows = frame.with_row_index("at").filter(pl.col(REASON).is_null() & suspect)
        changed: dict[int, dict[str, str]] = {}
        for row in rows.select("at", "text", *names).iter_rows(named=True):
            kept = {name: self._masked(row[name]) for name in ("answer", "rejected")}
            said = conversation(row["messages"])
            hidden = [{**m, "content": self._masked(m["content"])} for m in said]
            kept["messages"] = as_json(hidden) if hidden != said else row["messages"]
            if any(kept[name] != row[name] for name in names):
                kept["text"] = hidden[-1]["content"] if hidden else row["text"]
                changed[row["at"]] = kept
        if not changed:
            return frame
        if self._refuses:
            return _told(frame, dict.fromkeys(changed, (PERSONAL, "")))
        columns = []
        for name in (*names, "text"):
            values = frame[name].to_list()
            for at, kept in changed.items():
                values[at] = kept[name]
            columns.append(pl.Series(name, values, dtype=pl.String))
        return frame.with_columns(columns)

    def _masked(self, text: str) -> str:
        spans = [span for span in find(text) if span.kind in self._kinds]
        for span in spans:
            self.personal[span.kind] = self.personal.get(span.kind, 0) + 1
        return masked(text, spans) if spans else text


def _checked(checks: Mapping[str, Check]) -> Mapping[str, Check]:
    """Refuse checks that say nothing about texts.

    Raises:
        Problem: G251.
    """
    known = {"personal": KINDS}
    for name, check in checks.items():
        if name not in CHECKS:
            near = nearest(name, CHECKS) or CHECKS[0]
            raise Problem(
                "G251",
                f"Texts cannot be checked for {name!r}; did you mean {near!r}?",
                where=f"data.checks.{name}",
                why=f"Known: {', '.join(CHECKS)}.",
                tries=["checks.answer = { min = 20 }", 'checks.language = { allowed = ["en"] }'],
            )
        strange = [value for value in check.allowed or () if value not in known.get(name, (value,))]
        if strange:
            near = nearest(strange[0], KINDS) or KINDS[0]
            raise Problem(
                "G251",
                f"There is no kind of personal data {strange[0]!r}; did you mean {near!r}?",
                where="data.checks.personal.allowed",
                why=f"Known: {', '.join(KINDS)}.",
                tries=[f'checks.personal = {{ allowed = ["{near}"] }}'],
            )
    return checks


def _clean(frame: pl.DataFrame) -> pl.DataFrame:
    """Return texts composed (NFC), with plain line ends and without control characters."""
    names = ("messages", "text", "answer", "rejected")
    escaped = r"\\u00(?:0[0-8bcBCefEF]|1[0-9a-fA-F]|7[fF])"  # as JSON writes them
    return frame.with_columns(
        pl.col(name)
        .cast(pl.String)
        .str.normalize("NFC")
        .str.replace_all("\r\n", "\n", literal=True)
        .str.replace_all(
            r"\r\n" if name == "messages" else "\r",
            r"\n" if name == "messages" else "\n",
            literal=True,
        )
        .str.replace_all(escaped if name == "messages" else _CONTROLS, "")
        for name in names
    )


def _packed(frame: pl.DataFrame) -> dict[int, tuple[str, str]]:
    """Find long answers that say the same over and over: they shrink to almost nothing."""
    size = pl.col("answer").str.len_bytes()
    rows = frame.with_row_index("at").filter(
        pl.col(REASON).is_null() & (size >= _PACKED_LEAST) & (pl.col("messages") != "[]")
    )
    found = {}
    for at, answer in rows.select("at", "answer").iter_rows():
        data = answer.encode()
        times = len(data) / len(zlib.compress(data, 1))
        if times > _PACKED:
            found[at] = (REPEATS, f"it shrinks {times:.0f} times")
    return found


def _told(frame: pl.DataFrame, found: Mapping[int, tuple[str, str]]) -> pl.DataFrame:
    """Return the rows with reasons and details for those that have none yet."""
    if not found:
        return frame
    reasons, details = frame[REASON].to_list(), frame[DETAIL].to_list()
    for at, (why, detail) in found.items():
        if reasons[at] is None:
            reasons[at], details[at] = why, detail
    return frame.with_columns(
        pl.Series(REASON, reasons, dtype=pl.String), pl.Series(DETAIL, details, dtype=pl.String)
    )
