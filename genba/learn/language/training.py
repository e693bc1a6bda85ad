"""The loop of training: steps, evaluations, checkpoints, an end."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import torch

from genba.core.digest import digest_bytes, digest_json
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.learn.language.bases import Base
from genba.learn.language.examples import Example, Pair, Tuned, Tuning
from genba.learn.language.memory import kept_memory
from genba.learn.language.network import Network
from genba.learn.language.objectives import Likelihood, Objective, Preference
from genba.learn.language.optimiser import Optimiser
from genba.learn.language.parameters import (
    Parameters,
    adapter_slots,
    new_adapter,
    weight_slots,
)
from genba.learn.language.speed import Work, chosen_precision, peak_flops
from genba.learn.language.spread import Spread
from genba.runs.effort import Effort
from genba.runs.stop import Cancelled

_TIMED: Final = 4  # steps after which the length of the training is fitted to the budget
_SHARE: Final = 0.95  # of the budget that is planned with
_SAVING: Final = 0.05  # most of the time that goes into checkpoints


@dataclass(slots=True)
class State:
    """How far training is; with the vectors, all that a resumed one needs."""

    total: int  # steps that are planned
    step: int = 0
    planned: bool = False  # whether `total` was fitted to the budget
    best: float = math.inf  # loss of the validation set
    best_step: int = 0
    worse: int = 0  # evaluations in a row that were not better
    loss: float = 0.0  # summed since the last evaluation
    weight: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    work: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lesson:
    """What is to be learned from what."""

    base: Base
    examples: Sequence[Example | Pair]
    validation: Sequence[Example | Pair]
    start: Mapping[str, Array]  # an adapter, or weights, to go on from; may be empty


def train(lesson: Lesson, tuning: Tuning, effort: Effort, spread: Spread | None = None) -> Tuned:
    """Tune a base model; see `genba.learn.language.tune.tune`."""
    with _threads(tuning.threads), kept_memory():
        return Trainer(lesson, tuning, effort, spread or Spread()).run()


class Trainer:
    """One training, from the beginning or from a checkpoint."""

    def __init__(self, lesson: Lesson, tuning: Tuning, effort: Effort, spread: Spread) -> None:
        self._base, self._tuning, self._effort, self._spread = lesson.base, tuning, effort, spread
        shape = lesson.base.shape
        self._objective = _objective(lesson, tuning)
        self._fingerprint = _fingerprint(lesson, tuning, effort.seed)
        saved = effort.checkpoint.load()
        meta, arrays = saved if saved and saved[0].get("of") == self._fingerprint else ({}, {})
        wanted = meta.get("precision", tuning.precision)
        # Processes may measure differently; all must do the same.
        fast = spread.least(int(chosen_precision(wanted, shape) == "bf16"))
        self._precision, kind = ("bf16", torch.bfloat16) if fast else ("fp32", torch.float32)
        weights = lesson.base.arrays()
        self._network = Network(shape, weights, kind)
        self._parameters = _parameters(lesson, tuning, effort.seed, weights, self._network)
        self._optimiser = Optimiser(self._parameters, tuning.clip, tuning.weight_decay)
        self._best = self._parameters.values.clone()
        total = max(1, math.ceil(tuning.epochs * self._objective.items / tuning.batch))
        self._state = State(total=total)
        self._work = Work()
        self._saved_s, self._save_took_s = time.monotonic(), 0.0
        if meta:
            self._restore(meta, arrays)

    def run(self) -> Tuned:
        """Train until the plan is done, the budget is, or it does not get better."""
        state = self._state
        try:
            if not state.curve:
                self._kept = self._objective.prepare(
                    self._network, self._tuning.micro_tokens, self._effort.check
                )
            while not self._over():
                self._step()
                self._plan()
                self._save_now_and_then()
        except Cancelled:
            self._save()
            raise
        if not state.finished:
            state.finished = True
            self._save()
        return self._result()

    def _over(self) -> bool:
        """Evaluate where it is time to, and return whether this was the last step."""
        state, tuning = self._state, self._tuning
        if state.finished:
            return True
        every = max(1, math.ceil(state.total / tuning.evaluations))
        spent = self._spread.any(self._effort.expired)
        done = state.step >= state.total or spent
        evaluated = bool(state.curve) and state.curve[-1]["step"] == state.step
        if not evaluated and (done or state.step % every == 0):
            self._evaluate()
        return done or bool(tuning.patience and state.worse >= tuning.patience)

    def _step(self) -> None:
        """Learn from one batch: as many parts as memory wants, one move."""
        state, spread = self._state, self._spread
        batch = self._batch(state.step)
        mine = batch[spread.rank :: spread.size]
        total = self._objective.weight(batch)
        start, cpu_start = time.perf_counter(), time.process_time()
        self._parameters.gradient.zero_()
        loss = weight = 0.0
        for part in self._objective.parts(mine, self._tuning.micro_tokens):
            self._effort.check()
            found = self._objective.learn(self._network, part, total, self._tuning.recompute)
            loss, weight = loss + found.loss, weight + found.weight
            self._work.read += found.read
            self._work.run += found.run
            self._work.learned += found.learned
        spread.add_up(self._parameters.gradient)
        loss, weight = spread.sums(loss, weight)
        if not math.isfinite(loss):
            raise _diverged(state.step, self._tuning)
        self._optimiser.move(self._rate(state.step), state.step)
        self._network.refresh()
        state.step += 1
        state.loss, state.weight = state.loss + loss, state.weight + weight
        self._work.wall_s += time.perf_counter() - start
        self._work.cpu_s += time.process_time() - cpu_start
        speed = self._work.read / max(self._work.wall_s, 1e-9)
        text = f"tuning: loss {loss / weight:.3f}, {speed:,.0f} tokens/s"
        self._effort.progress.step(text, state.step, state.total)

    def _batch(self, step: int) -> list[int]:
        """Return the items of a step: each epoch is a shuffle of its own, one follows the other."""
        count, found = self._objective.items, []
        for place in range(step * self._tuning.batch, (step + 1) * self._tuning.batch):
            epoch, at = divmod(place, count)
            found.append(int(self._order(epoch)[at]))
        return found

    def _order(self, epoch: int) -> Array:
        random = np.random.default_rng([self._effort.seed, epoch])
        return random.permutation(self._objective.items)

    def _rate(self, step: int) -> float:
        """Return the learning rate: up in some steps, then straight to zero.

        Source: Bergsma et al. 2025, https://arxiv.org/abs/2502.15938.
        """
        up = (step + 1) / (self._tuning.warmup + 1)
        down = (self._state.total - step) / max(1, self._state.total - self._tuning.warmup)
        return self._tuning.learning_rate * min(1.0, up, down)

    def _plan(self) -> None:
        """Fit the number of steps to the budget, once it is known how long one takes."""
        state = self._state
        if state.planned or state.step < _TIMED:
            return
        state.planned = True
        evaluation_s = state.curve[0]["seconds"]
        each_s = self._work.wall_s / state.step + evaluation_s * (
            self._tuning.evaluations / state.total
        )
        left_s = _SHARE * self._effort.budget.minutes * 60 - self._effort.elapsed_s - evaluation_s
        fits = self._spread.least(state.step + max(0, int(left_s / max(each_s, 1e-9))))
        if fits < state.total:
            state.total = max(fits, state.step)
            # Another attempt would measure other times: from here on the plan is this one.
            self._save()

    def _evaluate(self) -> None:
        state, start = self._state, time.monotonic()
        self._effort.check()
        self._effort.progress.step("measuring the held-out loss", state.step, state.total)
        found = self._objective.judge(self._network, self._tuning.micro_tokens)
        entry = {"step": float(state.step), "seconds": time.monotonic() - start, **found}
        if state.weight:
            entry["loss"] = state.loss / state.weight
        entry["tokens"] = float(self._work.read)
        state.curve.append(entry)
        state.loss = state.weight = 0.0
        # Without a validation set the last one is the best one.
        loss = found.get("validation", -float(state.step))
        if not math.isfinite(loss):
            raise _diverged(state.step, self._tuning)
        if loss < state.best:
            state.best, state.best_step, state.worse = loss, state.step, 0
            self._best.copy_(self._parameters.values)
        else:
            state.worse += 1

    def _save_now_and_then(self) -> None:
        pause_s = max(self._tuning.save_s, self._save_took_s / _SAVING)
        if self._spread.rank == 0 and time.monotonic() - self._saved_s >= pause_s:
            self._save()

    def _save(self) -> None:
        """Save what another attempt needs to go on as this one would have."""
        if self._spread.rank:
            return
        start = time.monotonic()
        meta = {"of": self._fingerprint, "precision": self._precision}
        state = {**asdict(self._state), "work": asdict(self._work)}
        state["best"] = None if math.isinf(self._state.best) else self._state.best
        arrays = {"values": self._parameters.values, "best": self._best}
        arrays |= self._optimiser.moments
        plain = {name: vector.numpy() for name, vector in arrays.items()}
        plain |= {f"before.{name}": array for name, array in self._kept.items()}
        self._effort.checkpoint.save({**meta, "state": state}, plain)
        self._saved_s = time.monotonic()
        self._save_took_s = self._saved_s - start

    def _restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        held = dict(meta["state"])
        held["best"] = math.inf if held["best"] is None else held["best"]
        self._state, self._work = State(**held), Work(**held["work"])
        self._parameters.values.copy_(torch.from_numpy(arrays["values"]))
        self._best.copy_(torch.from_numpy(arrays["best"]))
        self._optimiser.restore(arrays)
        self._network.refresh()
        before = {
            n.removeprefix("before."): a for n, a in arrays.items() if n.startswith("before.")
        }
        self._kept = before
        self._objective.restore(before)
        self._effort.progress.note(f"Training goes on at step {self._state.step}.")

    _kept: dict[str, Array] = {}

    def _result(self) -> Tuned:
        state, full = self._state, self._tuning.kind == "full"
        peak = peak_flops(self._network.kind, self._base.shape)
        measures = self._work.measures(self._base.shape, peak, full=full)
        first = state.curve[0]
        measures |= {"steps": float(state.step), "best_step": float(state.best_step)}
        if "validation" in first:
            measures |= {"base_loss": first["validation"], "loss": state.best}
        return Tuned(
            arrays=self._parameters.arrays(self._best),
            curve=tuple(state.curve),
            measures=measures,
            settings={
                **self._tuning.to_json(),
                "precision": self._precision,
                "threads": torch.get_num_threads(),
                "steps": state.total,
                "processes": self._spread.size,
            },
        )


def _objective(lesson: Lesson, tuning: Tuning) -> Objective:
    examples: Any = lesson.examples
    validation: Any = lesson.validation
    if tuning.kind == "dpo":
        return Preference(examples, validation, tuning.beta)
    return Likelihood(examples, validation)


def _parameters(
    lesson: Lesson, tuning: Tuning, seed: int, weights: Mapping[str, Array], network: Network
) -> Parameters:
    if tuning.kind == "full":
        parameters = Parameters(weight_slots(lesson.base.shape))
        parameters.set({**weights, **lesson.start})
        network.learn_all(parameters)
        return parameters
    parameters = Parameters(adapter_slots(lesson.base.shape, tuning.rank))
    new_adapter(parameters, seed)
    parameters.set(lesson.start)
    network.learn_adapter(parameters, tuning.alpha / tuning.rank)
    return parameters


def _fingerprint(lesson: Lesson, tuning: Tuning, seed: int) -> str:
    """Return a digest of everything the result depends on, so that no other is gone on with."""
    digests = []
    for item in [*lesson.examples, *lesson.validation]:
        parts = (item,) if isinstance(item, Example) else (item.chosen, item.rejected)
        for part in parts:
            data = part.tokens.astype("<i4").tobytes() + part.answer.astype("u1").tobytes()
            digests.append([digest_bytes(data), part.weight, item.weight])
    start = {name: digest_bytes(array.tobytes()) for name, array in lesson.start.items()}
    settings = {k: v for k, v in tuning.to_json().items() if k != "save_s"}
    kept = [len(lesson.examples), digests, start]
    return digest_json([lesson.base.digest, settings, seed, kept])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _diverged(step: int, tuning: Tuning) -> Problem:
    return Problem(
        "G563",
        f"Training got lost: the loss is no number after {step} steps.",
        why=f"The learning rate {tuning.learning_rate:g} may be too high for this model and data.",
        tries=[f"learning_rate = {tuning.learning_rate / 4:g}", "genba explain G563"],
    )
