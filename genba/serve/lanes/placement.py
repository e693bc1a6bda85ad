"""What a line shall have in service, as the thread that loads packages hands it over."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from genba.core.rollout import Rollout
from genba.serve.lanes.models import LoadedModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What a line shall have in service, with everything loaded that it needs."""

    line: str
    rollout: Rollout
    models: Mapping[str, LoadedModel]  # by package; whatever is not in here is let go
    failed: Mapping[str, str] = field(default_factory=dict)  # package -> why it is not loaded
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # as they were set
    asleep: frozenset[str] = frozenset()  # packages of the rollout that are not in memory
