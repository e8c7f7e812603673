"""The thread that owns the engine: jobs come in, events go out, and a failing one fails alone."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from ..generation.config import GenerationConfig
from ..model.model import Model
from ..model.requests import Request
from ..model.streaming import Committed, Event, Finished, TextEngine
from .errors import Refused
from .limits import Limits
from .metrics import Metrics

LOG = logging.getLogger("textdiff.serving")
IDLE = 0.1  # seconds between looks at the deadlines while nothing is drawn


@dataclass(frozen=True)
class Ask:
    """A sequence to draw.

    Args:
        request: its tokens.
        config: how to draw.
        number: of the sample, which names its draws.
        provisional: whether its window is told.
    """

    request: Request
    config: GenerationConfig
    number: int
    provisional: bool = False


@dataclass(frozen=True)
class Accepted:
    """The first event of a job that the engine takes."""


@dataclass(frozen=True)
class Failed:
    """The last event of a job that gets no answer."""

    reason: Refused


Told = Event | Accepted | Failed


@dataclass(eq=False)
class Job:
    """The sequences that one request asks for.

    Args:
        asks: which.
        tell: called by the worker with an event, and the number of its sequence in `asks`.
        until: time (monotonic) at which it is given up.
        begun: time at which it came.
        handles: its sequences in the engine, and their numbers.
        seen, told: events of each sequence in this run of it, and in all runs.
        settling: the sequences of which a token has settled.
        done: those that have ended.
        over: whether all have, or it was given up.
    """

    asks: Sequence[Ask]
    tell: Callable[[int, Told], None]
    until: float
    begun: float = field(default_factory=time.monotonic)
    handles: dict[int, int] = field(default_factory=dict)
    seen: Counter[int] = field(default_factory=Counter)
    told: Counter[int] = field(default_factory=Counter)
    settling: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    over: bool = False


class Worker(Thread):
    """Draws jobs in one engine.

    A step that raises loses the engine. Answers are pure functions of their requests, so every
    running job is drawn again, alone, and told only what it was not told before; one that raises
    again fails, the others do not notice.

    Args:
        model: what draws.
        limits: how many sequences are held, how long, until when.
        metrics: where work is counted.
    """

    def __init__(self, model: Model, limits: Limits, metrics: Metrics):
        super().__init__(name="textdiff-worker", daemon=True)
        self.model = model
        self.limits = limits
        self.metrics = metrics
        self.engine = self._fresh()
        self._inbox: SimpleQueue[tuple[str, Job | None]] = SimpleQueue()
        self._lock = Lock()
        self._held = 0
        self._stopping = False
        self._ended = False
        self._jobs: dict[int, Job] = {}
        self._later: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        metrics.watch(lambda: self._held - self.engine.running, lambda: self.engine.running)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            Refused: 429 if there is no room in the queue, 503 while the server stops.
        """
        most = self.limits.sequences + self.limits.queue
        with self._lock:
            if self._stopping:
                raise Refused(503, "the server is stopping")
            if self._held + len(job.asks) > most:
                message = f"all {most} places, waiting ones too, are taken: try again later"
                raise Refused(429, message, headers={"Retry-After": "1"})
            self._held += len(job.asks)
        self._inbox.put(("submit", job))

    def cancel(self, job: Job) -> None:
        """Give a job up, within one step."""
        self._inbox.put(("cancel", job))

    def stop(self) -> None:
        """End the thread; what is running is given up."""
        with self._lock:
            self._stopping = True
        self._inbox.put(("stop", None))
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Step after step, until `stop`."""
        while self._read(wait=not (self.engine.busy or self._later or self._suspects)):
            if self._suspects:
                self._redo(self._suspects.popleft())
                continue
            while self._later:
                self._admit(self._later.popleft())
            try:
                self._advance()
            except Exception:  # whatever it is, and whosever: the others go on
                LOG.exception("a step failed: what was running is drawn again, each alone")
                self._suspects.extend(dict.fromkeys(self._jobs.values()))
                self._renew()

    def _read(self, wait: bool) -> bool:
        """Take what has come in; whether to go on."""
        try:
            while not self._ended:
                what, job = self._inbox.get(timeout=IDLE) if wait else self._inbox.get_nowait()
                wait = False
                if job is None:
                    self._ended = True
                elif what == "submit":
                    self._later.append(job)
                else:
                    self._leave(job)
        except Empty:
            pass
        now = time.monotonic()
        for job in {*self._jobs.values(), *self._later, *self._suspects}:
            if self._ended:
                self._fail(job, Refused(503, "the server is stopping"))
            elif now > job.until:
                self._fail(job, Refused(504, f"not done in {self.limits.deadline:g} s: give it up"))
        return not self._ended

    def _admit(self, job: Job) -> None:
        """Put a job's sequences into the engine."""
        if job.over:
            return
        try:
            self._enter(job)
        except ValueError as error:
            self._fail(job, Refused(400, str(error)))
        else:
            job.tell(0, Accepted())

    def _redo(self, job: Job) -> None:
        """Draw one job to its end with nobody else."""
        if job.over:
            return
        try:
            self._enter(job)
            while not job.over and self._read(wait=False):
                self._advance()
        except Exception:  # as above, and now it is known whose
            LOG.exception("a request failed")
            self._renew()
            self._fail(job, Refused(500, "this request failed; the log of the server says why"))

    def _enter(self, job: Job) -> None:
        job.handles.clear()
        job.seen.clear()
        for number, ask in enumerate(job.asks):
            if number in job.done:
                continue
            handle = self.engine.put(
                ask.request, ask.config, number=ask.number, provisional=ask.provisional
            )
            job.handles[handle] = number
            self._jobs[handle] = job

    def _advance(self) -> None:
        """One step of the engine."""
        calls = self.engine.core.calls
        before = (calls.count, calls.body_rows, calls.head_rows)
        events = self.engine.step()
        after = (calls.count, calls.body_rows, calls.head_rows)
        self.metrics.worked(*(b - a for a, b in zip(before, after, strict=True)))
        for event in events:
            if event.handle in self._jobs:
                self._deliver(self._jobs[event.handle], event)

    def _deliver(self, job: Job, event: Event) -> None:
        """Tell a job of an event, unless it was told when it was drawn before."""
        number = job.handles[event.handle]
        job.seen[number] += 1
        if isinstance(event, Finished):
            del self._jobs[event.handle]
            job.done.add(number)
        if job.seen[number] <= job.told[number]:
            return
        job.told[number] += 1
        is_first = isinstance(event, Committed) and number not in job.settling
        if is_first:
            job.settling.add(number)
        self.metrics.told(event, time.monotonic() - job.begun, is_first)
        job.tell(number, event)
        if len(job.done) == len(job.asks):
            self._over(job)

    def _fail(self, job: Job, reason: Refused) -> None:
        if not job.over:
            self._leave(job)
            job.tell(0, Failed(reason))

    def _leave(self, job: Job) -> None:
        """Draw no more of a job."""
        if job.over:
            return
        for handle in job.handles:
            self.engine.cancel(handle)
            self._jobs.pop(handle, None)
        self._over(job)

    def _over(self, job: Job) -> None:
        job.over = True
        with self._lock:
            self._held -= len(job.asks)

    def _renew(self) -> None:
        """Begin with an engine in which nothing runs."""
        for job in self._jobs.values():
            job.handles.clear()  # a fresh engine counts from 0
        self._jobs.clear()
        self.engine = self._fresh()

    def _fresh(self) -> TextEngine:
        return self.model.engine(max_sequences=self.limits.sequences, max_length=self.limits.length)
