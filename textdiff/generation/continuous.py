"""An engine in which every sequence has its own clock: requests come and go while it steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import count

import torch
from torch import Tensor

from ..denoiser.call import check_documents, check_layout
from ..denoiser.generation_rows import check_cache
from ..denoiser.head import logits_of, to_cavity
from ..denoiser.prediction import Prediction
from ..denoiser.protocol import Denoiser
from ..noise import Noise
from ..process import Process
from .calls import Calls
from .cohort import Cohort, cohorts
from .engine import check_sampler
from .events import Committed, Event, Finished, Provisional
from .sequence import Request, Sequence
from .state import confidence_of

AHEAD = 64  # stages without a network call that a sequence takes in one step of the engine


class Engine:
    """Draws sequences that come and go, each with its own clock.

        >>> from textdiff.generation import Engine, Request
        >>> from textdiff.hyperschedule import Block
        >>> from textdiff.network import TransformerConfig, TransformerDenoiser
        >>> from textdiff.process import Absorbing
        >>> from textdiff.samplers import Ancestral
        >>> config = TransformerConfig(num_tokens=3, width=8, layers=1, heads=2)
        >>> network = TransformerDenoiser(config)
        >>> engine = Engine(network, Absorbing(), max_sequences=16, max_length=512)
        >>> ids = torch.tensor([0, 2, 3, 3])  # 3: MASK
        >>> handle = engine.submit(Request(ids, Block(width=2, levels=1), Ancestral(), seed=1))
        >>> events = []
        >>> while engine.busy:
        ...     events += engine.step()
        >>> [type(event).__name__ for event in events]
        ['Committed', 'Finished']
        >>> events[0].position
        (2, 3)

    `step` takes each sequence one stage further. Network calls are shared by sequences of like row
    counts, whatever their samplers and schedules; a sequence without a row to draw runs ahead
    without one; a finished one leaves at once and a waiting one enters. Law: each sequence gets
    the ids that it gets alone (`denoise`), whoever shares its calls.

    Args:
        network: the denoiser.
        process: the noising process it was trained with.
        max_sequences: how many are drawn at a time; others wait.
        max_length: the most tokens of one, given ones too.
        use_cache: keep the keys and values of settled tokens; None: if the network can.
        apart: the token that ends a document, for a network that was trained with documents apart.
        prefill_chunk: settled rows of one sequence that are fed in one call, at most: a long prompt
            is fed in pieces, beside sequences that are drawing.

    Raises:
        ValueError: if a number is below 1, or the network cannot be cached but is to be.
    """

    def __init__(
        self,
        network: Denoiser,
        process: Process,
        *,
        max_sequences: int,
        max_length: int,
        use_cache: bool | None = None,
        apart: int | None = None,
        prefill_chunk: int = 512,
    ):
        sizes = {"max_sequences": max_sequences, "max_length": max_length}
        for name, value in (sizes | {"prefill_chunk": prefill_chunk}).items():
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if use_cache and not network.cacheable:
            raise ValueError(
                "this network conditions all rows on one time, so the keys of settled rows change "
                "in every call and cannot be cached: pass use_cache=False"
            )
        self.network = network
        self.process = process
        self.max_length = max_length
        self.use_cache = network.cacheable if use_cache is None else use_cache
        self.apart = apart
        self.prefill_chunk = prefill_chunk
        self.device = network.head_parameters()[0].device
        self.calls = Calls(network, max_sequences, max_length, apart)
        self.ids = torch.zeros(max_sequences, max_length, dtype=torch.int64, device=self.device)
        self.t = torch.zeros(max_sequences, max_length, dtype=torch.float64, device=self.device)
        self.sure = torch.full_like(self.t, torch.nan)
        self._handles = count()
        self._free = list(reversed(range(max_sequences)))
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def waiting(self) -> int:
        """How many sequences wait for a place."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many have one."""
        return len(self._running)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting or self._running)

    def submit(self, request: Request) -> int:
        """Queue a request; it enters as soon as a place is free.

        Returns:
            Its handle, which every event of it names.

        Raises:
            ValueError: if it does not fit, or sampler, schedule, process and network do not go
                together.
        """
        L, N = len(request.ids), self.network.num_tokens
        if not 1 <= L <= self.max_length:
            raise ValueError(
                f"the sequence has {L} tokens, but this engine takes 1 to {self.max_length}: "
                "shorten it, or raise max_length"
            )
        if bool(((request.ids < 0) | (request.ids > N)).any()):
            raise ValueError(f"ids must lie in 0..{N} (MASK)")
        check_sampler(request.sampler, self.process, request.schedule, L)
        if request.sampler.alone:
            raise ValueError(
                f"{request.sampler} draws one sequence at a time, in `generate`: here use Ancestral"
            )
        check_layout(self.network, request.schedule, L)
        plan = request.schedule.plan(L, self.device)
        cached = self.use_cache and not plan.flat  # a flat window has no context
        if cached:
            check_cache(self.network, request.schedule, L)
        if self.apart is not None and not plan.flat:
            check_documents(plan, request.schedule)
        handle = next(self._handles)
        self._waiting.append(Sequence(request, handle, plan, mask=N, cached=cached))
        return handle

    def cancel(self, handle: int) -> bool:
        """Drop a sequence, of which no event follows; whether there was one of this handle."""
        for one in self._running:
            if one.handle == handle:
                self._leave(one)
                return True
        kept = deque(one for one in self._waiting if one.handle != handle)
        dropped = len(kept) < len(self._waiting)
        self._waiting = kept
        return dropped

    @torch.no_grad()
    def step(self) -> list[Event]:
        """Take every sequence one stage further, with at most one network call each.

        Returns:
            What has happened, in order.
        """
        events: list[Event] = []
        self._enter()
        asking: list[Sequence] = []
        ready: list[Cohort] = []
        quiet = [one for one in self._running if not self._ends(one, None, events)]
        for _ in range(AHEAD):
            moved: list[Sequence] = []
            for group in cohorts(quiet):
                cohort = self._cohort(group)
                asks = cohort.rows.any(-1).tolist()
                if all(asks):
                    ready.append(cohort)
                    continue
                asking += [one for one, asked in zip(group, asks, strict=True) if asked]
                still = [one for one, asked in zip(group, asks, strict=True) if not asked]
                idle = cohort if len(still) == len(group) else self._cohort(still)
                moved += self._move(idle, None, events)
            quiet = moved
            if not quiet:
                break
        ready += [self._cohort(group) for group in cohorts(asking)]
        self._call(ready, events)
        return events

    def _cohort(self, group: list[Sequence]) -> Cohort:
        return Cohort.of(group, self.ids, self.t, self.process, N=self.network.num_tokens)

    def _call(self, ready: Iterable[Cohort], events: list[Event]) -> None:
        """Feed what the cohorts ask for, and move those of which not only a piece was fed."""
        ready = list(ready)
        turns = [(one, one.turn(self.prefill_chunk)) for c in ready for one in c.sequences]
        hidden = self.calls.hidden(turns, self.ids, self.t)
        pieces = {one.handle for one, turn in turns if turn.piece is not None}
        for cohort in ready:
            drawing = [one for one in cohort.sequences if one.handle not in pieces]
            if not drawing:
                continue
            if len(drawing) < len(cohort.sequences):
                cohort = self._cohort(drawing)
            fed = [hidden[one.handle] for one in drawing]
            rows = cohort.rows.split(1)
            some = [h[row[0, : len(h)]] for h, row in zip(fed, rows, strict=True)]
            raw = logits_of(self.network, torch.cat(some))
            self.calls.head_rows += len(raw)
            self._move(cohort, to_cavity(self.network, raw, cohort.step.z[cohort.rows]), events)

    def _move(self, cohort: Cohort, logits: Tensor | None, events: list[Event]) -> list[Sequence]:
        """Take the step of a cohort, with the logits of its rows, or without any; who goes on."""
        step, rows, called = cohort.step, cohort.rows, logits is not None
        if logits is None:
            logits = torch.empty(0, step.N, device=step.z.device)
        z, t = cohort.sampler.move(step, rows, logits, cohort.filter)
        there = cohort.there
        slot_of = torch.tensor([[one.place] for one in cohort.sequences], device=z.device)
        slot = slot_of.expand_as(there)[there]
        self.ids[slot, cohort.place[there]] = z[there]
        self.t[slot, cohort.place[there]] = t[there]
        asked = called and any(one.request.confidence for one in cohort.sequences)
        if asked and cohort.sampler.prediction == Prediction.CAVITY:
            put = there & rows & (z < step.N)
            slots = slot_of.expand_as(there)[put]
            self.sure[slots, cohort.place[put]] = confidence_of(logits, rows, z)[put].double()
        unsettled = ((t > 0) & there).any(-1).tolist()
        going = []
        for b, one in enumerate(cohort.sequences):
            one.nfe += called
            window = one.window() if called and one.request.provisional else []
            settled = one.advance(unsettled[b])
            if window:
                ids = tuple(z[b, : len(window)].tolist())
                sure = tuple(self.sure[one.place, window].tolist())
                events.append(Provisional(one.handle, tuple(window), ids, sure, one.nfe))
            if not self._ends(one, settled, events):
                going.append(one)
        return going

    def _ends(self, one: Sequence, settled: range | None, events: list[Event]) -> bool:
        """Tell of the ranks that have settled, and of the end if this is it."""
        L = len(one.plan.starts)
        ids, length = self.ids[one.place, :L], None
        if settled:
            length = one.ended(ids, self.t[one.place, :L])
            position = one.plan.position[settled.start : settled.stop].tolist()
            drawn = zip(position, one.wanted[settled.start : settled.stop], strict=True)
            end = L if length is None else length
            told = [p for p, wanted in drawn if wanted and p < end]
            if told:
                tokens = tuple(ids[told].tolist())
                sure = tuple(self.sure[one.place, told].tolist())
                events.append(Committed(one.handle, tuple(told), tokens, one.nfe, sure))
        if length is None and not one.done:
            return False
        whole = ids[: L if length is None else length].cpu().clone()
        reason = "length" if length is None else "eos"
        events.append(Finished(one.handle, whole, one.nfe, reason))  # type: ignore[arg-type]
        self._leave(one)
        return True

    def _enter(self) -> None:
        """Give waiting sequences the free places."""
        while self._waiting and self._free:
            one = self._waiting.popleft()
            one.place = self._free.pop()
            ids = one.request.ids.to(self.device)[None]
            known = ids < one.mask
            begin = one.request.sampler.stages[0].begin(self.process)
            example = torch.tensor([one.request.example], device=self.device)
            noise = Noise(one.request.seed, example).at(-1)
            drawn = self.process.prior(ids.shape, one.mask, noise, begin)
            L = ids.shape[-1]
            self.ids[one.place] = one.mask  # behind its end: no token stands there
            self.sure[one.place] = torch.nan
            self.ids[one.place, :L] = torch.where(known, ids, drawn)[0]
            self.t[one.place] = 0.0
            self.t[one.place, :L] = (~known).double()[0] * begin
            self._running.append(one)

    def _leave(self, one: Sequence) -> None:
        self._running.remove(one)
        self._free.append(one.place)
