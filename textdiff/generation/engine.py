"""The generation loop, written once: every sampler, every hyperschedule, prompts and infilling.

A call feeds the window and what has settled since the last one; settled tokens live in the cache,
worthless positions are never fed, and the head runs only where a token may change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..denoiser.cache import Cache
from ..denoiser.generation_rows import check_cache, generation_call
from ..denoiser.head import logits_of, to_cavity
from ..denoiser.prediction import Prediction
from ..denoiser.protocol import Denoiser
from ..hyperschedule import Flat, Hyperschedule
from ..hyperschedule.plan import Plan
from ..noise import Noise
from ..process import Process
from ..samplers import Filter, Sampler, SelfSpeculative, Step
from ..samplers.filters import identity
from .speculative import Chain, speculate
from .state import REPEATS, Denoised, Frame, Sequences, confidence_of


def check_sampler(sampler: Sampler, process: Process, schedule: Hyperschedule, L: int) -> None:
    """Raise a ValueError unless the sampler is defined for this process and hyperschedule."""
    for stage in sampler.stages:
        stage.check(process)
    if not sampler.stages[-1].predicts:
        raise ValueError(
            f"{sampler} corrects tokens but draws none: "
            f"use PredictorCorrector(corrector={sampler.stages[-1]})"
        )
    if isinstance(sampler, SelfSpeculative):
        if not schedule.plan(L).one_by_one:
            raise ValueError(
                f"{sampler} draws what quenched AR draws, not what {schedule} does: "
                "use hyperschedule QuenchedAR"
            )
        check_sampler(sampler.draft, process, Flat(sampler.levels), L)
    if sampler.own_times and not schedule.plan(L).apart:
        raise ValueError(
            f"{sampler} chooses its own times and needs windows that do not overlap, not "
            f"{schedule}: use a flat or block hyperschedule, or Ancestral"
        )


@torch.no_grad()
def denoise(
    network: Denoiser,
    process: Process,
    schedule: Hyperschedule,
    sampler: Sampler,
    noise: Noise,
    ids: Tensor,
    *,
    filter: Filter = identity,
    on_call: Callable[[Frame], None] | None = None,
    use_cache: bool = False,
    end: Tensor | None = None,
    eos: int | Sequence[int] | None = None,
    confidence: bool = False,
    apart: int | None = None,
) -> Denoised:
    """Draw sequences from noise to data under any hyperschedule.

    Known tokens are at t = 0 from the start: they are context, never change and cost no call of
    their own.

    Args:
        network: the denoiser.
        process: the noising process it was trained with.
        schedule: the hyperschedule; call k takes position i from τ_k(i) to τ_{k+1}(i).
        sampler: how a token takes that step.
        noise: names the draws of each row.
        ids: [B, L] token ids, N where a token is to be drawn.
        filter: on the logits of the distribution that is drawn.
        on_call: called with the noise at the beginning, after every network call, and at the end,
            when the last tokens may have settled without one.
        use_cache: keep the keys and values of settled tokens; same law, fewer rows.
        end: [B] lengths where sequences differ; what lies behind is known, and never seen.
        eos: a sequence whose drawn tokens are its tail is finished when one of these was drawn and
            all before it is settled; what follows is left as it is.
        confidence: whether `on_call` wants probabilities.
        apart: the token that ends a document, for a network that was trained with documents apart:
            a call sees of what has settled only what stands behind the last of them; None: all.

    Raises:
        ValueError: if the sampler is not defined for the process and schedule, or network and
            schedule do not go together.
    """
    L, N = ids.shape[-1], network.num_tokens
    check_sampler(sampler, process, schedule, L)
    plan = schedule.plan(L, ids.device)
    if end is not None and not plan.left_to_right:
        raise ValueError(
            f"sequences of different lengths need a hyperschedule from left to right, not "
            f"{schedule}: draw them apart"
        )
    use_cache = use_cache and not plan.flat  # a flat window has no context
    if use_cache:
        check_cache(network, schedule, L)
    known = ids < N
    alike: dict[str, Any] = {"filter": filter, "confidence": confidence, "apart": apart}
    if isinstance(sampler, SelfSpeculative):
        chain = partial(Chain, network, process, sampler, _Loop, use_cache=use_cache, **alike)
        return speculate(chain, noise, ids, free=~known, end=end, eos=eos, on_call=on_call)
    begin = sampler.stages[0].begin(process)
    drawn = torch.where(known, ids, process.prior(ids.shape, N, noise.at(-1), begin))
    cache = Cache(L + 1) if use_cache else None
    sequences = Sequences(drawn, (~known).double() * begin, known, end=end, cache=cache)
    loop = _Loop(
        network,
        process,
        schedule,
        plan=plan,
        sampler=sampler,
        noise=noise,
        on_call=on_call,
        sequences=sequences,
        **alike,
    )
    loop.run(eos)
    return Denoised(sequences.ids, sequences.nfe, sequences.body_rows, sequences.head_rows)


@dataclass(frozen=True)
class _Loop:
    """What stays the same while a batch is drawn; `sequences` holds what changes."""

    network: Denoiser
    process: Process
    schedule: Hyperschedule
    plan: Plan
    sampler: Sampler
    noise: Noise
    filter: Filter
    on_call: Callable[[Frame], None] | None
    confidence: bool
    sequences: Sequences
    apart: int | None = None

    def run(self, eos: int | Sequence[int] | None) -> None:
        """Call after call, from all noise until every sequence is settled or has ended."""
        plan, own_times = self.plan, self.sampler.own_times
        L = len(plan.starts)
        wanted = (~self.sequences.known).any(0)[plan.position].tolist()
        self.tell()
        k, visit = plan.starts[0], 0
        while k < plan.calls and self.sequences.left:
            settled, reached = plan.settled(k), plan.reached(k)
            place = plan.position[settled:reached]
            if any(wanted[settled:reached]) and not self.visit(k, visit, place):
                visit += 1
                continue
            visit = 0
            if not own_times:
                k += 1
            else:  # the window is settled: on to the call in which the next one starts
                k = plan.starts[reached] if reached < L else plan.calls
            if eos is not None and plan.settled(k) > settled:
                self.sequences.drop_finished(eos)
        self.tell()

    def visit(self, k: int, visit: int, place: Tensor) -> bool:
        """Take the window of call k, the positions `place` [W], through every stage once; whether
        it has got to where call k ends, so that no other visit is due.
        """
        stages, own_times = self.sampler.stages, self.sampler.own_times
        goal = None if own_times else self.plan.times(k)
        for stage_number, stage in enumerate(stages):
            number = (k * REPEATS + visit) * len(stages) + stage_number
            self.advance(stage, k, self.step(number, place, goal), place)
        if not own_times:
            return True
        return not bool((self.sequences.of(self.sequences.t)[:, place] > 0).any())

    def step(self, number: int, place: Tensor, goal: Tensor | None) -> Step:
        """The step of the positions `place` [W] to the times `goal` [W] (None: the sampler's own),
        whose draws have this number.
        """
        sequences, N = self.sequences, self.network.num_tokens
        ids, t = sequences.of(sequences.ids), sequences.of(sequences.t)[:, place]
        s = torch.zeros_like(t) if goal is None else torch.minimum(t, goal.to(t))
        example = sequences.of(self.noise.example)
        noise = replace(self.noise, example=example, step=number, place=place)
        return Step(self.process, ids[:, place], t, s=s, N=N, noise=noise, ids=ids)

    def advance(self, stage: Sampler, k: int, step: Step, place: Tensor) -> None:
        """Take a step of the positions `place` [W] in call k of the schedule, and tell of it if it
        took a network call.
        """
        sequences = self.sequences
        rows = stage.rows(step)
        called = bool(rows.any())
        logits = torch.empty(0, step.N, device=step.z.device)
        if called:
            logits = self.logits(k, step, rows)
        z, t = stage.move(step, rows, logits, self.filter)
        sequences.put(sequences.ids, place, z)
        sequences.put(sequences.t, place, t)
        if called:
            reads = self.confidence and stage.prediction == Prediction.CAVITY
            self.tell(rows, confidence_of(logits, rows, z) if reads else None, place)

    def logits(self, k: int, step: Step, rows: Tensor) -> Tensor:
        """Cavity logits or log-scores [R, N] of the rows [b, W]: one network call."""
        sequences, needed = self.sequences, rows.any(-1)
        raw = logits_of(self.network, self.hidden(k, needed)[rows])
        sequences.calls += 1
        sequences.head_rows += len(raw)
        sequences.nfe += sequences.needing(needed)
        return to_cavity(self.network, raw, step.z[rows])

    def hidden(self, k: int, needed: Tensor) -> Tensor:
        """Hidden rows [b, W, D] of call k; zeros for sequences [b] that need none and go unfed."""
        sequences, once = self.sequences, self.once
        z, t, end = sequences.of(sequences.ids), sequences.of(sequences.t), sequences.end
        end = None if end is None else sequences.of(end)
        cache = sequences.cache
        feeds_all = self.feeds_all(k, needed)
        if not feeds_all:
            z, t = z[needed], t[needed]
            end = None if end is None else end[needed]
            cache = None if cache is None else cache.some(needed)
        call, _ = generation_call(
            self.network,
            self.schedule,
            k,
            z,
            t,
            cache=cache,
            end=end,
            once=once,
            eos=self.apart,
        )
        fed = call.hidden(self.network, cache)
        sequences.body_rows += call.ids.numel()
        if feeds_all:
            return fed
        hidden = fed.new_zeros(len(needed), *fed.shape[1:])
        hidden[needed] = fed
        return hidden

    @property
    def once(self) -> bool:
        """Whether a window gets a single call at each k."""
        return len(self.sampler.stages) == 1 and not self.sampler.own_times

    def feeds_all(self, k: int, needed: Tensor) -> bool:
        """Whether call k is fed all sequences, though only those `needed` [b] ask for logits."""
        cache = self.sequences.cache
        if bool(needed.all()):
            return True
        if cache is None:
            return False
        # The cache holds the same positions of all sequences, so all take part in a call that
        # writes to it.
        writes = self.plan.settled(k) > cache.length or self.plan.T == 1
        # Picking sequences from the cache copies it: as dear as feeding the windows of the others.
        most = 2 * int(needed.sum()) > len(needed)
        return writes or most

    def tell(
        self,
        rows: Tensor | None = None,
        confidence: Tensor | None = None,
        place: Tensor | None = None,
    ) -> None:
        """Tell how things stand: after a call for the rows [b, W] with these confidences [b, W] at
        the positions `place` [W], or after none.
        """
        if self.on_call is None:
            return
        sequences, z = self.sequences, self.sequences.ids
        everywhere = torch.full(z.shape, torch.nan, device=z.device)
        called = torch.zeros(len(z), dtype=torch.bool, device=z.device)
        if rows is not None:
            called = sequences.needing(rows.any(-1))
        if confidence is not None and place is not None:
            sequences.put(everywhere, place, confidence)
        self.on_call(Frame(sequences.calls, z, sequences.t, everywhere, called))
