"""`genba distil`: a larger model answers, and its answers become data to learn from."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from genba.core import io
from genba.core.line import Budget
from genba.core.problem import Problem
from genba.edge.texts import messages_of
from genba.learn.language.distil import Sampling, Taught, distil_all, json_lines
from genba.learn.language.teachers import Endpoint
from genba.runs.effort import Effort, FileCheckpoint
from genba.runs.progress import ConsoleProgress
from genba.runs.stop import StopSign
from genba.ui.cli.answer import Answer, facts, heading
from genba.ui.cli.options import DEFAULT, Options

_NO: Final = 1
_ASSISTANT: Final = "assistant"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How the teacher is asked."""

    samples: int = 1
    """Answers of each question."""

    max_tokens: int = 256
    """Tokens of an answer; one that is cut short is dropped."""

    temperature: float = 0.0
    """0 says the likeliest words, 1 varies them."""

    at_once: int = 4
    """Questions that are asked at the same time."""

    seed: int = 0
    """Of the teacher's chance; the next sample has the next seed."""

    minutes: float = 60.0
    """Time after which what is there is written."""

    def sampling(self) -> Sampling:
        """Return what the teacher is told."""
        return Sampling(
            samples=self.samples,
            most=self.max_tokens,
            temperature=self.temperature,
            at_once=self.at_once,
        )


AS_USUAL: Final = How()


def distil(
    questions: Path,
    /,
    *,
    teacher: str,
    to: Path,
    model: Annotated[str, Parameter(name="--model")] = "default",
    how: How = AS_USUAL,
    options: Options = DEFAULT,
) -> Answer:
    """Let a larger model answer, and write data to learn from.

    Typed again after an interruption, it goes on where it was. A key for the server is taken from
    the variable GENBA_TEACHER_KEY.

    Args:
        questions: A question on each line, or JSON Lines with `messages` or `prompt`.
        teacher: Address of a server with OpenAI's API, such as http://127.0.0.1:8000/v1.
        to: The file to be written, JSON Lines: source = "files:FILE" of a line reads it.
        model: Name of the model there.
        how: How the teacher is asked.
        options: Common options.
    """
    del options
    asked = read_questions(questions)
    # Beside the file, so that the same command finds what was answered before.
    checkpoint = FileCheckpoint(to.parent / f".{to.name}.work", attempt=1)
    progress = ConsoleProgress()
    effort = Effort(
        seed=how.seed,
        budget=Budget(minutes=how.minutes),
        checkpoint=checkpoint,
        progress=progress,
        stop=StopSign(),
    )
    try:
        found = distil_all(asked, Endpoint(teacher, model), how.sampling(), effort)
    finally:
        progress.close()
    lines = list(json_lines(found))
    io.write_durable(to, "".join(f"{line}\n" for line in lines).encode())
    whole = len(found) == len(asked) * how.samples
    if whole:
        checkpoint.clear()
    return _answer(asked, found, to, whole=whole)


def read_questions(path: Path) -> list[list[dict[str, Any]]]:
    """Return the conversations of a file, up to where an answer begins.

    Raises:
        Problem: G562 when there is no such file, or nothing in it.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise _nothing(path, str(error)) from error
    found = [question for line in lines if (question := _question(line))]
    if not found:
        raise _nothing(path, "No line of it is a question.")
    return found


def _question(line: str) -> list[dict[str, Any]]:
    try:
        said = json.loads(line)
    except ValueError:
        said = line
    if isinstance(said, dict):
        said = said.get("messages") or said.get("prompt") or ""
    messages = messages_of(json.dumps(said) if isinstance(said, list) else str(said))
    while messages and messages[-1].get("role") == _ASSISTANT:  # the answer is the teacher's
        messages = messages[:-1]
    return messages if messages and messages[-1].get("content") else []


def _answer(asked: Sequence[Any], found: Sequence[Taught], to: Path, *, whole: bool) -> Answer:
    dropped = Counter(taught.dropped for taught in found if taught.dropped)
    written = len(found) - dropped.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    rows = [
        ("questions", f"{len(asked)}"),
        ("answers", f"{written} in {to}, each with teacher, model, seed and digests"),
        ("dropped", reasons or "none"),
    ]
    if not whole:
        rows.append(("unasked", "the minutes are used up; the same command goes on"))
    return Answer(
        data={
            "questions": len(asked),
            "answers": written,
            "dropped": dict(dropped),
            "whole": whole,
            "to": str(to),
        },
        blocks=[heading("A teacher has answered", mark="yes" if written else "no"), facts(rows)],
        next=(f"genba new NAME {to}",) if written else (),
        exit_code=0 if written else _NO,
    )


def _nothing(path: Path, why: str) -> Problem:
    return Problem(
        "G562",
        f"There is no question in {path}.",
        where=str(path),
        why=why,
        tries=["a text file with a question on each line", "genba explain G562"],
    )
