"""How long the answers of a language model take, learned from each."""

from typing import Final

_GAIN: Final = 0.1  # of the newest answer in what is known
_PROMPT: Final = 8.0  # so many tokens are read in the time that writes one


class Pace:
    """What is known of the time that answers take; it learns from each.

    Example:
        >>> pace = Pace()
        >>> pace.wait_s(3, 4, 0)
        0.0
        >>> pace.learn(prompt=80, answer=20, seconds=3.0)
        >>> pace.seconds(100), pace.wait_s(4, 4, 2)
        (3.0, 2.25)
    """

    __slots__ = ("_answer", "_prompt", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0  # of a token that is written; a prompt counts as some of these
        self._answer = 0.0  # tokens
        self._prompt = 0.0

    def learn(self, prompt: int, answer: int, seconds: float) -> None:
        """Take in an answer: tokens of prompt and answer, and how long it took to write."""
        work = answer + prompt / _PROMPT
        if work <= 0:
            return
        if not self._seconds:
            self._seconds, self._answer, self._prompt = seconds / work, answer, prompt
            return
        self._seconds += _GAIN * (seconds / work - self._seconds)
        self._answer += _GAIN * (answer - self._answer)
        self._prompt += _GAIN * (prompt - self._prompt)

    def seconds(self, most: int) -> float:
        """Return how long an answer of at most so many tokens is expected to take."""
        return self._seconds * (min(most, self._answer) + self._prompt / _PROMPT)

    def wait_s(self, running: int, slots: int, waiting: int) -> float:
        """Return how long an answer waits for its turn behind so many others."""
        if running < slots and not waiting:
            return 0.0
        typical_s = self._seconds * (self._answer + self._prompt / _PROMPT)
        return (waiting + 1) * typical_s / max(slots, 1)
