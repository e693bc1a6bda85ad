"""The contract of an engine of language models: what it writes, and that it ignores nothing."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject
from genba.core.resolve import resolve
from genba.core.talk import Ask, Piece, Talks
from genba.engines.talking import Collected, ask_and_wait
from genba.testing.checks import CheckResult, Checks, require, require_problem, run_checks
from genba.testing.tiny_reference import tiny_reference
from genba.testing.tiny_talk import CONTEXT, tiny_talk

_CORES: Final = 2
_PATIENCE_S: Final = 60.0
_MOST: Final = 24
#: Largest difference of a logarithm of a probability, by the number format of the weights.
_TOLERANCE: Final = {"f16": 0.1, "int8": 0.5, "q8_0": 0.5, "int4": 2.0}  # with the cache in 8 bits
_EXACT: Final = 0.02
_MANY: Final = 12
_TEXTS: Final = ("Hello", "Close the valve", "The pump stands still, why?", "フィルター 🙂")
_SCHEMA: Final = {
    "type": "object",
    "properties": {"part": {"enum": ["pump", "valve"]}, "open": {"type": "boolean"}},
    "required": ["part", "open"],
    "additionalProperties": False,
}


def check_talks(name: str, settings: Sequence[JsonObject] | None = None) -> tuple[CheckResult, ...]:
    """Run an engine of language models through the contract.

    Args:
        name: Name in the catalog.
        settings: What to try instead of what the engine itself offers; the first is used for most
            checks.
    """
    return run_checks(talks_checks(name, settings))


def talks_checks(name: str, settings: Sequence[JsonObject] | None = None) -> Checks:
    """Return the checks of an engine of language models by name."""
    kind = resolve("engine", name)
    tried = settings if settings is not None else kind.candidates(_CORES)
    checks: dict[str, Callable[[], None]] = {
        "offers settings and says its version": partial(_offers, kind, tried),
        "every setting thinks as numpy": partial(_thinks, kind, tried),
    }
    for sentence, check in _CHECKS.items():
        checks[sentence] = partial(_with_engine, kind, tried[0], check)
    return checks | {
        "two models at once, each its own answers": partial(_two_models, kind, tried[0]),
        "ends what is open when it is closed": partial(_closed, kind, tried[0]),
        "refuses an unknown setting": partial(_unknown_setting, kind, tried[0]),
        "refuses what is no language model": partial(_no_model, kind, tried[0]),
    }


def _with_engine(kind: Any, settings: JsonObject, check: Callable[[Talks], None]) -> None:
    engine = kind(tiny_talk(), settings)
    try:
        check(engine)
    finally:
        engine.close()


def _offers(kind: Any, tried: Sequence[JsonObject]) -> None:
    require(bool(kind.name) and bool(kind.version().strip()), "it has no name or no version")
    require(bool(tried), "it offers no settings")


def _thinks(kind: Any, tried: Sequence[JsonObject]) -> None:
    for settings in tried:
        _with_engine(kind, settings, partial(_as_numpy, _tolerance(settings)))


def _as_numpy(most: float, engine: Talks) -> None:
    for text in _TEXTS:
        tokens = np.array(_prompt(engine, text))
        wanted = tiny_reference(tokens)[np.arange(len(tokens) - 1), tokens[1:]]
        scored = engine.score(tokens, likeliest=2)
        found = scored.log_probability
        require(len(found) == len(tokens), f"{len(found)} numbers for {len(tokens)} tokens")
        require(
            bool(np.isnan(found[0])), "the first token has a probability, but nothing before it"
        )
        worst = float(np.abs(found[1:] - wanted).max())
        require(worst <= most, f"a logarithm of a probability is off by {worst:.2g}")
        pairs = scored.likeliest[1:]
        require(all(len(p) == 2 for p in pairs), "not two alternatives for every token")
        require(all(p[0][1] >= p[1][1] for p in pairs), "alternatives are not in order")


def _since(engine: Talks) -> None:
    tokens = np.array(_prompt(engine, _TEXTS[2]))
    whole, part = engine.score(tokens), engine.score(tokens, since=9)
    found = part.log_probability
    require(bool(np.isnan(found[:9]).all()), "there are numbers before what was asked for")
    require(bool(np.isfinite(found[9:]).all()), "numbers are missing of what was asked for")
    worst = float(np.abs(found[9:] - whole.log_probability[9:]).max())
    require(worst <= _tolerance(_settings(engine)), f"asked in part, it is off by {worst:.2g}")


def _greedy(engine: Talks) -> None:
    for text in _TEXTS:
        found = _answer(engine, text)
        require(found.finish == "length", f"it finished with {found.finish!r}, not with length")
        known = np.array(found.log_probability)
        require(bool((known[np.isfinite(known)] <= 0).all()), "a probability is above 1")
        if np.isfinite(known).all():  # an engine may lose what is no whole character
            require(len(found.tokens) == _MOST, f"{len(found.tokens)} tokens, not {_MOST}")
            prompt = _prompt(engine, text)
            tokens = np.array([*prompt, *found.tokens])
            thought = tiny_reference(tokens)[len(prompt) - 1 : -1]
            behind = thought.max(-1) - thought[np.arange(_MOST), found.tokens]
            most = _tolerance(_settings(engine))
            require(float(behind.max()) <= 2 * most, "it wrote what is not the likeliest")


def _ends(engine: Talks) -> None:
    plain = _answer(engine, _TEXTS[0])
    told = [t for t, p in zip(plain.tokens, plain.log_probability, strict=True) if np.isfinite(p)]
    end = told[2]
    first = plain.tokens.index(end)
    ended = _answer(engine, _TEXTS[0], end=(end,))
    require(ended.finish == "end", f"at an end it finished with {ended.finish!r}")
    require(ended.tokens == plain.tokens[: first + 1], "it did not end with the end")
    on = _answer(engine, _TEXTS[0], end=(end,), ignore_end=True)
    require(on.finish == "length", "it ended where it was told not to")


def _chance(engine: Talks) -> None:
    def drawn(seed: int | None) -> list[int]:
        return _answer(engine, _TEXTS[1], temperature=1.0, seed=seed).tokens

    require(drawn(1) == drawn(1), "one seed gives two answers")
    require(len({tuple(drawn(seed)) for seed in range(4)}) > 1, "four seeds give one answer")
    require(len({tuple(drawn(None)) for _ in range(4)}) > 1, "without a seed it is always the same")
    narrow = _answer(engine, _TEXTS[1], temperature=1.0, top_p=1e-6, seed=3)
    require(narrow.tokens == _answer(engine, _TEXTS[1]).tokens, "top_p is ignored")


def _likeliest(engine: Talks) -> None:
    found = _answer(engine, _TEXTS[0], likeliest=3)
    told = [(t, p, a) for t, p, a in zip(found.tokens, found.log_probability, found.likeliest,
                                         strict=True) if np.isfinite(p)]  # fmt: skip
    require(bool(told), "nothing is told of any token")
    for token, log_probability, alternatives in told:
        require(len(alternatives) == 3, f"{len(alternatives)} alternatives, not 3")
        require(alternatives[0][0] == token, "the likeliest is not what was written")
        require(abs(alternatives[0][1] - log_probability) < _EXACT, "two numbers for one token")


def _together(engine: Talks) -> None:
    alone = {text: _answer(engine, text).tokens for text in _TEXTS}
    several = [(text, Collected()) for text in _TEXTS * (_MANY // len(_TEXTS))]
    for text, collected in several:
        engine.ask(_ask(engine, text), collected.said)
    for text, collected in several:
        found = collected.wait(_PATIENCE_S).tokens
        if _tolerance(_settings(engine)) == _EXACT:
            require(found == alone[text], f"{text!r} is answered another way beside others")
        require(len(found) == len(alone[text]), "an answer beside others has another length")
    until = time.monotonic() + _PATIENCE_S
    while (stats := engine.stats())["running"] + stats["waiting"] and time.monotonic() < until:
        time.sleep(0.01)  # the last piece is said before the books are closed
    require(stats["running"] == 0 and stats["waiting"] == 0, f"not all is over: {stats}")


def _cancelled(engine: Talks) -> None:
    begun, other = _Begun(), Collected()
    ticket = engine.ask(_ask(engine, _TEXTS[0], most=CONTEXT // 2), begun.said)
    engine.ask(_ask(engine, _TEXTS[1]), other.said)
    begun.first.wait(_PATIENCE_S)
    ticket.cancel()
    ticket.cancel()
    finish = begun.wait(_PATIENCE_S).finish
    require(finish == "cancelled", f"what was cancelled finished with {finish!r}")
    require(len(begun.tokens) < CONTEXT // 2, "it wrote all in spite of being cancelled")
    other.wait(_PATIENCE_S)
    require(other.finish == "length", f"another question finished with {other.finish!r}")


def _schema(engine: Talks) -> None:
    for seed in range(3):
        schema = json.dumps(_SCHEMA)
        found = _answer(engine, _TEXTS[2], schema=schema, most=80, temperature=1.0, seed=seed)
        require(found.finish == "end", f"with a schema it finished with {found.finish!r}")
        body = json.loads(engine.vocabulary.decode(found.tokens))
        good = body["part"] in {"pump", "valve"} and isinstance(body["open"], bool)
        require(good and len(body) == 2, f"{body} does not follow the schema")


def _ignores_nothing(engine: Talks) -> None:
    plain = _answer(engine, _TEXTS[0])
    end = plain.tokens[0]
    try:
        longer = _answer(engine, _TEXTS[0], end=(end,), least=5)
    except Problem as problem:
        require(problem.code == "G641", f"`least` is refused with {problem.code}")
    else:
        require(len(longer.tokens) >= 5, "`least` is ignored")
    for schema in ("{", '{"type": "object", "unevaluatedProperties": {"$ref": "#/nowhere"}}'):
        ask = _ask(engine, _TEXTS[0], schema=schema)
        require_problem(partial(_tried, engine, ask), ("G641",), f"for the schema {schema}")


def _wrong_asks(engine: Talks) -> None:
    good = _ask(engine, _TEXTS[0])
    wrong = {
        "for a prompt that is too long": (replace(good, tokens=np.zeros(CONTEXT)), "G602"),
        "for tokens that do not fit": (
            replace(good, tokens=np.full(CONTEXT, 9, dtype=np.int64)), "G640"
        ),
        "for an answer that does not fit": (replace(good, most=CONTEXT), "G640"),
        "for no token at all": (replace(good, tokens=good.tokens[:0]), "G602"),
        "for what is no token": (replace(good, tokens=np.array([1, 1 << 30])), "G602"),
        "for a temperature below 0": (replace(good, temperature=-1.0), "G602"),
        "for top_p 0": (replace(good, top_p=0.0), "G602"),
    }  # fmt: skip
    for when, (ask, code) in wrong.items():
        require_problem(partial(_tried, engine, ask), (code,), when)
    require_problem(partial(engine.score, np.array([1 << 30])), ("G602",), "for no token to score")


def _texts(engine: Talks) -> None:
    messages = [{"role": "user", "content": _TEXTS[0]}]
    both = _objects([json.dumps(messages).encode(), _TEXTS[0].encode()])
    most = np.full(2, 6, dtype=np.float32)
    written = engine.run({"messages": both, "max_tokens": most})
    require(written["answer"][0] == written["answer"][1], "a text is not a message of the user")
    require(written["tokens"].dtype == np.int32, "tokens are not INT32")
    require(written["log_probability"].dtype == np.float32, "log_probability is not FP32")
    given = _objects([b"the valve", b""])
    scored = engine.run({"messages": both, "given": given, "max_tokens": most})
    require(scored["answer"][0] == b"the valve", "a given answer was changed")
    same = abs(float(scored["log_probability"][1] - written["log_probability"][1]))
    require(same <= _tolerance(_settings(engine)), "a given answer changes the next row")
    tokens = np.array([*_prompt(engine, _TEXTS[0]), *engine.vocabulary.encode("the valve"),
                       engine.vocabulary.end[0]])  # fmt: skip
    thought = tiny_reference(tokens)[np.arange(len(tokens) - 1), tokens[1:]]
    wanted = thought[scored["tokens"][0, 0] - 1 :].mean()
    off = abs(float(scored["log_probability"][0]) - float(wanted))
    require(off <= _tolerance(_settings(engine)), f"a given answer is scored off by {off:.2g}")
    require(len(engine.run({"messages": _objects([])})["answer"]) == 0, "no text gave an answer")
    for tensors in ({"text": both}, {"messages": both, "given": given[:1]}, {}):
        require_problem(partial(engine.run, tensors), ("G602",), f"for {sorted(tensors)}")


def _two_models(kind: Any, settings: JsonObject) -> None:
    engines = [kind(tiny_talk(seed), settings) for seed in (0, 1)]
    alone = [[_answer(e, text).tokens for text in _TEXTS] for e in engines]
    require(alone[0] != alone[1], "two models give the same answers")
    several = [(number, at, Collected()) for at in range(len(_TEXTS)) for number in (0, 1)]
    for number, at, collected in several:
        engines[number].ask(_ask(engines[number], _TEXTS[at]), collected.said)
    for number, at, collected in several:
        found = collected.wait(_PATIENCE_S).tokens
        require(found != alone[1 - number][at], "an answer came from the wrong model")
    for engine in engines:
        engine.close()


def _closed(kind: Any, settings: JsonObject) -> None:
    engine = kind(tiny_talk(), settings)
    several = [Collected() for _ in range(3 * engine.slots)]
    for collected in several:
        engine.ask(_ask(engine, _TEXTS[0], most=CONTEXT // 2), collected.said)
    engine.close()
    found = {collected.wait(_PATIENCE_S).finish for collected in several}
    require(found <= {"cancelled", "length"}, f"closed, it finished with {found}")
    late = Collected()
    engine.ask(_ask(engine, _TEXTS[0]), late.said)
    require(late.wait(_PATIENCE_S).finish == "cancelled", "it answers after it was closed")


def _unknown_setting(kind: Any, settings: JsonObject) -> None:
    wrong = {**settings, "threds": 1}
    require_problem(partial(kind, tiny_talk(), wrong), ("G102",), "for an unknown setting")


def _no_model(kind: Any, settings: JsonObject) -> None:
    whole = tiny_talk()
    for data in (b"", b"not a model", whole[:2000], whole[:-40]):
        when = f"for {len(data)} bytes that are no model"
        require_problem(partial(kind, data, settings), ("G642",), when)


class _Begun(Collected):
    """Says when the first piece has come."""

    def __init__(self) -> None:
        super().__init__()
        self.first = threading.Event()

    def said(self, piece: Piece) -> None:
        super().said(piece)
        self.first.set()


def _tried(engine: Talks, ask: Ask) -> None:
    ask_and_wait(engine, ask, _PATIENCE_S)


def _answer(engine: Talks, text: str, **how: Any) -> Collected:
    return ask_and_wait(engine, _ask(engine, text, **how), _PATIENCE_S)


def _ask(engine: Talks, text: str, **how: Any) -> Ask:
    tokens: Array = np.array(_prompt(engine, text), dtype=np.int64)
    return Ask(**{"tokens": tokens, "most": _MOST, **how})


def _prompt(engine: Talks, text: str) -> list[int]:
    return engine.vocabulary.prompt([{"role": "user", "content": text}])


def _objects(texts: Sequence[bytes]) -> Array:
    made = np.empty(len(texts), dtype=object)
    made[:] = texts
    return made


def _settings(engine: Any) -> JsonObject:
    settings: JsonObject = engine.settings
    return settings


def _tolerance(settings: JsonObject) -> float:
    return _TOLERANCE.get(str(settings.get("weights")), _EXACT)


_CHECKS: Final[dict[str, Callable[[Talks], None]]] = {
    "scores a part as the whole": _since,
    "writes what is likeliest, in pieces": _greedy,
    "ends where it is told": _ends,
    "chance by seed, temperature and top_p": _chance,
    "tells the alternatives": _likeliest,
    "many at once answer as alone": _together,
    "stops when nobody reads on": _cancelled,
    "follows a schema": _schema,
    "ignores nothing silently": _ignores_nothing,
    "refuses what cannot be answered": _wrong_asks,
    "texts in, texts out": _texts,
}
