"""The safety envelope of an edge package: checks around a model, and who answers instead.

    plan = read_plan(json.loads(safety_json))
    envelope = Envelope(plan, predictor, interface, clock)
    answer = envelope.answer(Sample(tensors=tensors, time_ms=read_at))

Standard library and numpy only. Not a safety-rated function.
"""

from genba.edge.safety.answer import LAYERS, STATEMENT, Action, Answer, Sample, Trip
from genba.edge.safety.envelope import Beside, Envelope
from genba.edge.safety.plan import SafetyPlan, read_plan
from genba.edge.safety.watchdog import Watchdog

__all__ = [
    "LAYERS",
    "STATEMENT",
    "Action",
    "Answer",
    "Beside",
    "Envelope",
    "SafetyPlan",
    "Sample",
    "Trip",
    "Watchdog",
    "read_plan",
]
