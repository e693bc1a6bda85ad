"""The people of the farm: they answer alarms from their books, late and sometimes wrongly."""

import random
from collections.abc import Sequence

from genba.serve.client import Client
from genba.ui.demo.replay import Alarm


class Operator:
    """Answers alarms with what the availability and curtailment records say.

    The records are of the whole farm, so they are wrong for a turbine that ran while another
    stood still; on top of that, some answers are mistakes.

    Args:
        client: Connected to the server.
        line: Name of the line.
        name: Who signs the feedback.
        wrong: Share of answers that say the opposite.
        seed: Of the mistakes.
    """

    def __init__(self, client: Client, line: str, *, name: str, wrong: float, seed: int) -> None:
        self._client = client
        self._line = line
        self.name = name
        self._wrong = wrong
        self._chance = random.Random(seed)  # noqa: S311  mistakes need no secrecy
        self._next = 0
        self.outcomes: dict[str, int] = {}
        self.sent = 0
        self.mistaken = 0

    def skip_to(self, alarms: Sequence[Alarm]) -> None:
        """Leave earlier alarms to somebody else."""
        self._next = len(alarms)

    def answer(self, alarms: Sequence[Alarm], until_ms: int) -> None:
        """Send feedback on every alarm raised until a moment, recorded ms since 1970 UTC."""
        rows = []
        while self._next < len(alarms) and alarms[self._next].time_ms <= until_ms:
            rows.append(self._row(alarms[self._next]))
            self._next += 1
        if not rows:
            return
        report = self._client.feedback(self._line, rows)
        self.sent += len(rows)
        for outcome, count in report.items():
            if isinstance(count, int):
                self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count

    def _row(self, alarm: Alarm) -> dict[str, object]:
        mistaken = self._chance.random() < self._wrong
        self.mistaken += mistaken
        anomaly = alarm.loss != mistaken
        return {
            "prediction": alarm.prediction,
            "kind": "label",
            "value": "anomaly" if anomaly else "normal",
            "author": self.name,
            "comment": "from the availability and curtailment records",
        }
