"""Rules that never waste a try: what is known to lose, or cannot be, before anything runs.

Each gives its reason. They rest on what the hardware has (instructions, cores, memory), and on
measurements of our own (docs/codesign/search.md); where neither is clear there is no rule, and the
point is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from genba.codesign.values import AS_EXPORTED, Point, Trial
from genba.core.line import Limits

_X86: Final = frozenset({"x86_64", "amd64", "i686"})
#: Instructions that multiply in a precision; without one of them it is emulated in float32.
_FLOAT16: Final = frozenset({"avx512_fp16", "amx_fp16", "asimdhp", "fphp"})
_BFLOAT16: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16", "avx_ne_convert"})
_INT8: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "sve"})
_SIGNED_INT8: Final = frozenset({"avx_vnni_int8", "amx_int8", "asimddp", "i8mm"})
_SIGNED: Final = "s8s8"
_DYNAMIC: Final = "dynamic"
_MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of target and graph before anything is tried.

    Args of note: `convolves` says whether most arithmetic of the graph is in convolutions, `row`
    how many bytes go in and out for one row.
    """

    architecture: str = ""
    instructions: frozenset[str] = frozenset()
    cores: int = 1
    memory_mib: float = 0.0  # of the target; 0 where unknown
    convolves: bool = False
    graph_bytes: int = 0
    row_bytes: int = 0
    limits: Limits = Limits()


Rule = Callable[[Point, Facts], str]


def _cores(point: Point, facts: Facts) -> str:
    wanted = point.threads * point.streams
    if wanted <= facts.cores:
        return ""
    return f"It asks for {wanted} cores; the target has {facts.cores}."


def _float16(point: Point, facts: Facts) -> str:
    if point.precision != "float16" or facts.architecture not in _X86:
        return ""
    if facts.instructions & _FLOAT16:
        return ""
    return (
        "This x86 processor has no arithmetic in float16: it converts and computes in float32, "
        "slower than float32 itself."
    )


def _bfloat16(point: Point, facts: Facts) -> str:
    if point.precision != "bfloat16" or facts.instructions & _BFLOAT16:
        return ""
    return "The processor has no instruction for bfloat16; it would be emulated."


def _integers(point: Point, facts: Facts) -> str:
    if not point.form.startswith("int8") or facts.instructions & _INT8:
        return ""
    return (
        "The processor has no dot product of 8-bit integers: sums would overflow 16 bits or cost "
        "what float32 does."
    )


def _signed(point: Point, facts: Facts) -> str:
    signed = _SIGNED in point.form and point.engine == "onnxruntime"
    if not signed or facts.architecture not in _X86 or facts.instructions & _SIGNED_INT8:
        return ""
    return (
        "ONNX Runtime multiplies signed by signed 8-bit integers through 16 bits on this x86 "
        "processor, as slowly as float32; unsigned activations are tried."
    )


def _dynamic(point: Point, facts: Facts) -> str:
    if _DYNAMIC not in point.form or not facts.convolves:
        return ""
    return (
        "Activations of convolutions would be measured and converted at every call: slower than "
        "float32 on every convolutional network it was tried on."
    )


def _size(point: Point, facts: Facts) -> str:
    most = facts.limits.size_mib
    size = facts.graph_bytes / _MIB
    if most is None or point.form != AS_EXPORTED or point.variant or size <= most:
        return ""
    return f"size_mib is {size:.4g} MiB; {most:g} MiB are allowed."


def _memory(point: Point, facts: Facts) -> str:
    allowed = [m for m in (facts.limits.memory_mib, facts.memory_mib or None) if m is not None]
    if not allowed or point.variant or point.form != AS_EXPORTED:
        return ""
    least = (facts.graph_bytes + point.batch * point.streams * facts.row_bytes) / _MIB
    if least <= min(allowed):
        return ""
    return f"Weights and one batch alone take {least:.4g} MiB; {min(allowed):g} MiB are allowed."


#: What makes no sense on the hardware.
HARDWARE: Final[tuple[Rule, ...]] = (_cores, _float16, _bfloat16, _integers, _signed, _dynamic)
#: What cannot hold a limit. The simplest point is measured all the same: without it nobody could
#: say what would have to be relaxed.
LIMITS: Final[tuple[Rule, ...]] = (_size, _memory)


def ruled_out(point: Point, facts: Facts, rules: Sequence[Rule] = (*HARDWARE, *LIMITS)) -> str:
    """Return why a point is not worth a try; "" where no rule speaks against it.

    Example:
        >>> here = Facts(architecture="x86_64", cores=2)
        >>> ruled_out(Point(engine="a", settings={"threads": 4}), here)
        'It asks for 4 cores; the target has 2.'
        >>> ruled_out(Point(engine="a", settings={"threads": 2}), here)
        ''
    """
    return next((reason for rule in rules if (reason := rule(point, facts))), "")


def apply(trials: Sequence[Trial], facts: Facts) -> list[Trial]:
    """Rule out what is not worth a try, and return the rest."""
    left: list[Trial] = []
    for trial in trials:
        # The first exact one that makes sense here is what anybody would take without a search.
        baseline = trial.point.exact and not any(t.point.exact for t in left)
        rules = HARDWARE if baseline else (*HARDWARE, *LIMITS)
        reason = ruled_out(trial.point, facts, rules)
        if reason:
            trial.rule_out(reason)
        else:
            left.append(trial)
    return left
