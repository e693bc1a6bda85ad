"""A lane of a language model: answers are written piece by piece, many at the same time.

It is the sibling of `Lane` for packages whose engine is a `Talks`: there are no batches, since the
engine takes in and lets go of answers whenever it likes. All state belongs to the event loop. What
takes long (rails, a search, tokens of a long prompt) is done on threads of the lane; the engine
writes on threads of its own, and what it says is put into an inbox that the event loop empties.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from genba.core.talk import Piece
from genba.serve.http.responses import Refusal
from genba.serve.lanes import admission
from genba.serve.lanes.asking import MOST, Asker
from genba.serve.lanes.batch import Keeper
from genba.serve.lanes.errands import Back, Errands
from genba.serve.lanes.jobs import Job
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.pool import Pool, Threads
from genba.serve.lanes.speech import Told
from genba.serve.lanes.talkqueue import TalkQueue, tokens_of
from genba.serve.lanes.telling import Telling, as_part
from genba.serve.lanes.voice import Voice
from genba.serve.limits import Limits

_log = logging.getLogger("genba.serve")
_MARGIN: Final = 1.2  # a request is taken if it will be in time even when that takes longer
_AHEAD: Final = 4  # one more answer than slots is asked for, for so many slots


class TalkKeeper(Keeper, Protocol):
    """What a lane of a language model needs besides."""

    def parameters_of(self, job: Job) -> Mapping[str, str]:
        """Return prediction, package and role of a request."""
        ...

    def worked(self, seconds: float) -> None:
        """Take down that the package was at work for so long."""
        ...


class TalkLane:
    """One language model in memory, and the requests that wait for it. Belongs to the event loop.

    Args:
        model: The package; its engine is a `Talks`.
        pool: Has the event loop and the clock; its threads are not used.
        limits: Of the server.
        line: Name of the line, for refusals.
        keeper: Takes what was answered.
        threads: Where errands are run.
    """

    inline: Final = False

    def __init__(
        self,
        model: LoadedModel,
        pool: Pool,
        limits: Limits,
        line: str,
        keeper: TalkKeeper,
        threads: Threads | None = None,
    ) -> None:
        assert model.talks is not None
        self.model = model
        self.parameters: Mapping[str, float] = model.schema.parameters
        self.stuck = False  # nothing is written although something should be
        self.pace = model.pace
        self._pool = pool
        self._limits = limits
        self._line = line
        self._keeper = keeper
        self._talks = model.talks
        self._asker = Asker(model)
        self._most = self._talks.slots + max(1, self._talks.slots // _AHEAD)
        self._errands = Errands(pool.loop, self._most, threads)
        self._queue = TalkQueue(limits)
        self._ready: dict[Telling, deque[Voice]] = {}  # requests take turns
        self._tellings: dict[Job, Telling] = {}
        self._speaking: dict[Voice, Telling] = {}
        self._preparing = 0
        self._inbox: deque[tuple[Voice, Piece]] = deque()
        self._called = False  # the event loop will empty the inbox
        self._heard_s = 0.0  # when something was written last
        self._busy_s = 0.0  # since when it is at work; 0 while it is not
        self._retired = False

    # What a service asks.

    @property
    def waiting_rows(self) -> int:
        """Answers that nobody has begun to write."""
        return self._queue.rows + sum(map(len, self._ready.values()))

    @property
    def idle(self) -> bool:
        """Whether the lane has nothing to do."""
        return not (self._queue.rows or self._tellings or self._preparing)

    @property
    def owes(self) -> bool:
        """Whether somebody waits for an answer."""
        return not self.idle

    def has_room(self, rows: int, size: int) -> bool:
        """Say whether so many answers may still be asked for."""
        return not self.stuck and self._queue.has_room(rows, size, 0)

    def refusal(
        self, rows: int, size: int, deadline: float, *, urgent: bool = True, tokens: int = 0
    ) -> tuple[str, Refusal] | None:
        """Return why a request would be refused now, in a word for counting and as the answer.

        A lane with a free slot takes every request; a stuck one tries one at a time.
        """
        if self.stuck and self._tellings:
            return "stuck", admission.stuck(self._line)
        if not self._queue.has_room(rows, size, tokens, urgent=urgent):
            return "queue", admission.full(self._line)
        wait_s = self.wait_s(urgent=urgent)
        own_s = self.pace.seconds(tokens or int(self.parameters.get(MOST, 0)))
        if wait_s > 0.0 and self._pool.clock() + _MARGIN * (wait_s + own_s) > deadline:
            return "deadline", admission.too_late(self._line, admission.retry_s(wait_s))
        return None

    def wait_s(self, *, urgent: bool = True) -> float:
        """Return the seconds until an answer that is asked for now is expected to be begun."""
        waiting = self.waiting_rows - self._queue.rows + self._queue.ahead(urgent=urgent)
        return self.pace.wait_s(len(self._speaking), self._talks.slots, waiting)

    def submit(self, job: Job) -> None:
        """Queue a request; ask `refusal` first."""
        self._queue.add(job, tokens_of(job, self.parameters.get(MOST, 0.0)))
        self._go_on()

    def expire(self, now: float) -> None:
        """Give up on requests that are past their deadline, or that nobody waits for any more."""
        for job in self._queue.leave(now):
            self._keeper.expired(job, at_fault=False)
        silent = bool(self._speaking) and now - self._heard_s > self._limits.silent_s
        self.stuck = self.stuck or silent
        for job in list(self._tellings):
            gone = job.call is not None and job.call.gone
            if silent or gone or job.deadline <= now:
                self._give_up(job)
                self._keeper.expired(job, at_fault=silent and not gone)
        self._go_on()

    def aside(self, work: Callable[[], Any], back: Back) -> bool:
        """Do something else that needs the package, on a thread; say whether there is room."""
        return self._errands.try_run(work, back, self._limits.pipelined)

    def condemn(self) -> list[Job]:
        """Give back all requests without an answer; what comes of them here is thrown away."""
        jobs = self._queue.clear()
        for job in list(self._tellings):
            # Whoever has heard a part of an answer cannot be given another one.
            job.moved = job.moved or self._tellings[job].spoken
            jobs.append(job)
            self._give_up(job)
        for job in jobs:
            job.given_up = True
        self._close_if_done()
        return jobs

    def retire(self) -> None:
        """Free the package as soon as its last answer is written."""
        self._retired = True
        self._close_if_done()

    def settle(self) -> float:
        """Return the seconds of work since this was asked last."""
        if not self._busy_s:
            return 0.0
        now = self._pool.clock()
        since, self._busy_s = self._busy_s, now
        return now - since

    def describe(self) -> dict[str, Any]:
        """Return what the engine counts, as JSON."""
        return {name: round(value, 6) for name, value in self._talks.stats().items()}

    # From a request to answers that are being written.

    def _go_on(self) -> None:
        """Begin whatever can be begun."""
        while self._ready and len(self._speaking) < self._most:
            self._ask(*self._next())
        while self._queue.rows and self._may_begin:
            job = self._queue.take()
            assert job is not None
            self._begin(job)
        self._close_if_done()

    @property
    def _may_begin(self) -> bool:
        """Whether the next request gets its turn; a large one shares with those behind it."""
        fresh = self._preparing + sum(not telling.begun for telling in self._ready)
        if self._preparing + len(self._ready) > fresh:
            return not fresh
        return fresh < self._most - len(self._speaking)

    def _next(self) -> tuple[Telling, Voice]:
        """Return the next answer to ask for, of one request after the other."""
        telling = next(iter(self._ready))
        voices = self._ready.pop(telling)
        voice = voices.popleft()
        if voices:
            self._ready[telling] = voices
        return telling, voice

    def _begin(self, job: Job) -> None:
        now = self._pool.clock()
        if job.deadline <= now or (job.call is not None and job.call.gone):
            self._keeper.expired(job, at_fault=False)
            return
        telling = self._tellings[job] = Telling(job, now)
        self._preparing += 1
        self._work()
        self._errands.run(
            partial(self._asker.prepare, job, self.parameters), partial(self._prepared, telling)
        )

    def _prepared(self, telling: Telling, found: Any, error: Exception | None) -> None:
        self._preparing -= 1
        if error is not None:
            self._fail(telling, error)
        elif telling.job in self._tellings:
            self._take_up(telling, found)
        self._go_on()

    def _take_up(self, telling: Telling, found: list[Voice | Told]) -> None:
        telling.expect(found)
        for row, one in enumerate(found):
            if isinstance(one, Voice):
                self._ready.setdefault(telling, deque()).append(one)
            else:
                telling.told[row] = one
                telling.hear_whole(row, self._parameters(telling.job))
        self._end_if_told(telling)

    def _ask(self, telling: Telling, voice: Voice) -> None:
        """Ask the engine; it answers on a thread of its own."""
        if telling.job not in self._tellings:
            return  # it was given up meanwhile
        assert voice.ask is not None
        now = self._pool.clock()
        voice.started, telling.begun = now, True
        if not self._speaking:
            self._heard_s = now
        self._speaking[voice] = telling
        try:
            voice.ticket = self._talks.ask(voice.ask, partial(self._said, voice))
        except Exception as error:  # noqa: BLE001  # a runtime may raise anything; it is counted
            self._fail(telling, error)

    def _said(self, voice: Voice, piece: Piece) -> None:
        """Take what an engine says; called on its thread."""
        self._inbox.append((voice, piece))
        if not self._called:
            self._called = True
            with suppress(RuntimeError):  # the event loop has ended, nobody is waiting any more
                self._pool.loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        """Take everything that was said."""
        self._called = False
        said: dict[Voice, list[Piece]] = {}
        while self._inbox:
            voice, piece = self._inbox.popleft()
            said.setdefault(voice, []).append(piece)
        if said:
            self._heard_s, self.stuck = self._pool.clock(), False
        for voice, pieces in said.items():
            telling = self._speaking.get(voice)
            if telling is not None and not voice.finish:
                self._hear(telling, voice, pieces)
        self._go_on()

    def _hear(self, telling: Telling, voice: Voice, pieces: list[Piece]) -> None:
        failed = next((p for p in pieces if p.finish in ("error", "cancelled")), None)
        if failed is not None:
            self._fail(telling, failed.problem or RuntimeError("the engine broke off"))
        elif self._asker.slow:
            telling.pieces.setdefault(voice, []).extend(pieces)
            self._look(telling, voice)
        else:
            try:
                self._speak(telling, voice, voice.take(pieces))
            except Exception as error:  # noqa: BLE001  # what an engine says is not ours
                self._fail(telling, error)

    def _look(self, telling: Telling, voice: Voice) -> None:
        """Have rails look at what was written, on a thread; one look at a time for each answer."""
        if voice in telling.looking or voice not in telling.pieces:
            return
        telling.looking.add(voice)
        pieces = telling.pieces.pop(voice)
        self._errands.run(lambda: voice.take(pieces), partial(self._looked, telling, voice))

    def _looked(self, telling: Telling, voice: Voice, found: Any, error: Exception | None) -> None:
        telling.looking.discard(voice)
        if voice not in self._speaking:
            return
        if error is not None:
            self._fail(telling, error)
            return
        self._speak(telling, voice, found)
        if not voice.finish:
            self._look(telling, voice)

    def _speak(self, telling: Telling, voice: Voice, heard: Any) -> None:
        telling.hear(voice.row, heard, self._pool.clock(), self._parameters(telling.job))
        if not voice.finish:
            return
        voice.cancel()  # there may be more than a stop string or a rail lets through
        if self._asker.slow:
            self._errands.run(voice.end, partial(self._ended, telling, voice))
        else:
            self._ended(telling, voice, voice.end(), None)

    def _ended(self, telling: Telling, voice: Voice, found: Any, error: Exception | None) -> None:
        """Take the whole of one answer."""
        if self._speaking.pop(voice, None) is None:
            return
        if error is not None:
            self._fail(telling, error)
        else:
            rest, told = found
            now = self._pool.clock()
            telling.hear(voice.row, rest, now, self._parameters(telling.job))
            telling.told[voice.row] = told
            prompt, answer = told.counted
            self.pace.learn(prompt, answer, now - voice.started)
            self._end_if_told(telling)
        self._go_on()

    # The end of a request.

    def _end_if_told(self, telling: Telling) -> None:
        if telling.whole and telling.job in self._tellings:
            del self._tellings[telling.job]
            self._finish(telling, None)

    def _fail(self, telling: Telling, error: Exception) -> None:
        """End a request because nothing can be answered; the others go on."""
        if telling.job in self._tellings:
            self._give_up(telling.job)
            telling.job.given_up = False  # it gets its answer: an error
            self._finish(telling, error)

    def _finish(self, telling: Telling, error: Exception | None) -> None:
        part = as_part(telling, self.model, self.parameters, self._pool.clock(), error)
        if part.error is None and part.refusal is None:
            try:
                if telling.listener is not None:
                    telling.listener.ends(telling.told)
                self._keeper.write(part)
            except Exception as mistake:  # noqa: BLE001  # the client must not wait for ever
                _log.exception("an error in the server")
                part.error, part.outputs = mistake, {}
        self._keeper.finished(part)
        self._rest()

    def _give_up(self, job: Job) -> None:
        """Let go of a request; its answers are not written any further."""
        job.given_up = True
        del self._tellings[job]
        for voice in [v for v, telling in self._speaking.items() if telling.job is job]:
            del self._speaking[voice]
            voice.cancel()
        self._ready = {t: voices for t, voices in self._ready.items() if t.job is not job}
        self._rest()

    def _parameters(self, job: Job) -> Callable[[], Mapping[str, str]]:
        return partial(self._keeper.parameters_of, job)

    def _work(self) -> None:
        if not self._busy_s:
            self._busy_s = self._pool.clock()
            self.model.busy(True)

    def _rest(self) -> None:
        """Take note when there is nothing to do."""
        if not self._tellings and self._busy_s:
            self._keeper.worked(self.settle())
            self._busy_s = 0.0
            self.model.busy(False)

    def _close_if_done(self) -> None:
        if self._retired and self.idle:
            self._retired = False
            self._errands.close(self.model.close)
