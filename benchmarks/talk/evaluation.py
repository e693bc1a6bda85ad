"""An evaluation by others against our server: `lm-eval` on one small task, offline.

`lm-eval` asks the server how likely each answer of a question is (`/v1/completions` with `echo`
and `logprobs`) and for the tokens (`/tokenize`), as with any other server; what it finds must be
what the engine itself says of the same tokens.

    python -m benchmarks.talk.evaluation LM_EVAL [--model package:smollm2-135m] [--engine NAME]

LM_EVAL is the command of an environment of its own: pip install "lm_eval[api]".
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from genba.core.resolve import resolve
from genba.core.values import EngineChoice
from genba.learn.language.bases import base_of
from genba.runs.progress import SilentProgress
from genba.store.home import Store
from genba.testing.serving import place, running_server
from genba.testing.talking import talk_package

#: Question, answers, and which of them is right.
QUESTIONS: Final = (
    ("The capital of France is", ("Paris", "Rome", "a fish", "Tuesday"), 0),
    ("Two plus two is", ("seven", "four", "blue", "Paris"), 1),
    ("The opposite of hot is", ("warm", "wood", "cold", "hot"), 2),
    ("Water freezes into", ("steam", "sand", "oil", "ice"), 3),
    ("A week has", ("seven days", "nine days", "two days", "no days"), 0),
    ("Cats like to chase", ("clouds", "mice", "taxes", "verbs"), 1),
    ("At night the sky is", ("square", "green", "dark", "salty"), 2),
    ("Bread is baked in an", ("apple", "ocean", "idea", "oven"), 3),
)
_TASK: Final = """\
task: house_questions
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: answers
doc_to_target: right
metric_list:
  - metric: acc
"""


def by_engine(engine: Any) -> float:
    """Return the share of questions whose right answer is the likeliest, by the engine alone."""
    right = 0
    for question, answers, wanted in QUESTIONS:
        words = engine.vocabulary
        found = []
        for answer in answers:
            prompt, whole = words.encode(question), words.encode(f"{question} {answer}")
            scored = engine.score(np.array(whole, dtype=np.int64)).log_probability
            found.append(float(scored[len(prompt) :].sum()))
        right += int(np.argmax(found)) == wanted
    return right / len(QUESTIONS)


def by_lm_eval(command: Path, port: int, folder: Path) -> float:
    """Return the same as `lm-eval` finds it."""
    data = folder / "questions.jsonl"
    rows = [{"question": q, "answers": list(a), "right": r} for q, a, r in QUESTIONS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "house_questions.yaml").write_text(_TASK.format(data=data), encoding="utf-8")
    url = f"http://127.0.0.1:{port}/v1/completions"
    arguments = f"model=desk,base_url={url},tokenizer_backend=remote,num_concurrent=4"
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    subprocess.run(
        [
            str(command), "--model", "local-completions", "--model_args", arguments, "--tasks",
            "house_questions", "--include_path", str(folder), "--output_path", str(folder / "out"),
        ],
        env={**os.environ, **offline},
        check=True,
    )  # fmt: skip
    (report,) = (folder / "out").rglob("results_*.json")
    results = json.loads(report.read_text(encoding="utf-8"))["results"]["house_questions"]
    return float(results["acc,none"])


def main() -> int:
    """Compare, and return 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lm_eval", type=Path)
    parser.add_argument("--model", default="package:smollm2-135m")
    parser.add_argument("--engine", default="openvino-talk")
    parser.add_argument("--settings", type=json.loads, default={"weights": "int8", "threads": 2})
    asked = parser.parse_args()
    base = base_of(asked.model, SilentProgress())
    engine = resolve("engine", asked.engine)(base.gguf, asked.settings)
    expected = by_engine(engine)
    engine.close()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with Store.open(home, create=True) as store:
            choice = EngineChoice(name=asked.engine, settings=asked.settings)
            place(store, "desk", "promote", talk_package(store, "desk", base.gguf, engine=choice))
        with running_server(home) as server:
            found = by_lm_eval(asked.lm_eval, server.port, Path(folder))
    print(json.dumps({"engine": expected, "lm_eval": found}))
    return int(found != expected)


if __name__ == "__main__":
    raise SystemExit(main())
