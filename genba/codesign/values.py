"""The words of the search: a point is a choice that can be made, a trial what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.problem import Problem
from genba.core.protocols import JsonObject
from genba.core.task import Parity
from genba.core.values import Measure

AS_EXPORTED: Final = ""  # the form of a graph that no lowering has touched
AS_TRAINED: Final = ""  # the variant of the model that the line asks for

#: How far a trial came; each step needs the one before.
Stand = Literal["offered", "ruled out", "modelled", "refused", "measured", "verified"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One choice: a runtime with settings, the form of the graph, the variant of the model.

    Example:
        >>> point = Point(engine="openvino", settings={"precision": "bfloat16", "threads": 2})
        >>> point.label, point.threads, point.streams
        ('openvino (bfloat16, threads 2)', 2, 1)
    """

    engine: str
    settings: JsonObject
    form: str = AS_EXPORTED  # "" or the name of a lowering
    batch: int = 1  # rows of one call
    variant: str = AS_TRAINED  # "" or the name of another size of the model

    @property
    def precision(self) -> str:
        """In what the floating-point part is computed; "" where the engine does not say."""
        return str(self.settings.get("precision", ""))

    @property
    def threads(self) -> int:
        """Threads of one call."""
        return int(self.settings.get("threads") or 1)

    @property
    def streams(self) -> int:
        """Calls that the runtime computes at the same time."""
        return int(self.settings.get("streams") or 1)

    @property
    def exact(self) -> bool:
        """Whether it computes as the model was trained: what is sure to answer as it does."""
        return self.form == AS_EXPORTED and self.precision in ("", "float32")

    @property
    def family(self) -> tuple[str, str, str, str]:
        """What decides the numbers: everything but how the work is spread and batched."""
        return (self.variant, self.engine, self.form, self.precision)

    @property
    def label(self) -> str:
        """The point as people write it."""
        words = [v if isinstance(v, str) else f"{k} {v}" for k, v in self.settings.items()]
        if self.form not in (AS_EXPORTED, self.precision):
            words.insert(0, self.form)
        words += [f"batch {self.batch}"] if self.batch > 1 else []
        words += [self.variant] if self.variant else []
        return f"{self.engine} ({', '.join(words)})"

    @property
    def id(self) -> str:
        """A short name that is the same for equal points."""
        return digest_json(encode(self))[:12]


@dataclass(slots=True)
class Trial:
    """A point and everything that is known of it."""

    point: Point
    stand: Stand = "offered"
    work: float = 1.0  # arithmetic of one row, beside the model of the line
    expected: Mapping[str, Measure] = field(default_factory=dict)  # modelled
    measures: Mapping[str, Measure] = field(default_factory=dict)
    parity: Parity | None = None  # against the reference
    classes: Mapping[str, JsonObject] = field(default_factory=dict)  # misses by class
    refused: tuple[str, ...] = ()  # why it cannot be chosen
    why: str = ""  # what the runtime itself said, when it refused
    code: str = ""  # of the problem, when the runtime refused
    notes: tuple[str, ...] = ()  # what a reader of its numbers must know

    @property
    def label(self) -> str:
        """The point as people write it."""
        return self.point.label

    @property
    def known(self) -> Mapping[str, Measure]:
        """What is measured, and modelled where nothing is measured."""
        return {**self.expected, **self.measures}

    @property
    def feasible(self) -> bool:
        """Whether it was measured and nothing speaks against it."""
        return not self.refused and self.stand in ("measured", "verified")

    def refuse(self, problem: Problem) -> None:
        """Leave it out for a reason of the runtime."""
        self.refused, self.why, self.code = (problem.what,), problem.why, problem.code
        self.stand = "refused"

    def rule_out(self, reason: str) -> None:
        """Leave it out without a try."""
        self.refused, self.stand = (reason,), "ruled out"

    def to_json(self) -> dict[str, Any]:
        """Return what the ledger keeps."""
        point = self.point
        return {
            "id": point.id,
            "engine": point.engine,
            "settings": dict(point.settings),
            "form": point.form,
            "batch": point.batch,
            "variant": point.variant,
            "stand": self.stand,
            "measures": encode(self.measures),
            "expected": encode(self.expected),
            "parity": encode(self.parity) if self.parity else None,
            "classes": {name: dict(found) for name, found in self.classes.items()},
            "refused": list(self.refused),
            "why": self.why,
            "notes": list(self.notes),
        }
