"""The generation loop, written once: every sampler, every hyperschedule, prompts and infilling.

A call feeds the window and what has settled since the last one; settled tokens live in the cache,
worthless positions are never fed, and the head runs only where a token may change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..denoiser.cache import Cache
from ..denoiser.generation_rows import check_cache, generation_call
from ..denoiser.head import logits_of, to_cavity
from ..denoiser.prediction import Prediction
from ..denoiser.protocol import Denoiser
from ..hyperschedule import Hyperschedule
from ..noise import Noise
from ..process import Process
from ..samplers import Filter, Sampler, Step
from ..samplers.filters import identity
from .state import Denoised, State, _Batch, _confidence

REPEATS = 1 << 20  # names a step's draws: more calls of one kind than any window takes


def check_sampler(sampler: Sampler, process: Process, schedule: Hyperschedule, L: int) -> None:
    """Raise a ValueError unless the sampler is defined for this process and hyperschedule."""
    for stage in sampler.stages:
        stage.check(process)
    if not sampler.stages[-1].predicts:
        raise ValueError(
            f"{sampler} corrects tokens but draws none: use PredictorCorrector(corrector={sampler.stages[-1]})"
        )
    if sampler.own_times and not schedule.plan(L).apart:
        raise ValueError(
            f"{sampler} chooses its own times and needs windows that do not overlap, not {schedule}: use a flat or block hyperschedule, "
            "or Ancestral"
        )


@dataclass
class _Loop:
    """What stays the same while a batch is drawn."""

    network: Denoiser
    process: Process
    schedule: Hyperschedule
    sampler: Sampler
    noise: Noise
    filter: Filter
    confidence: bool
    batch: _Batch

    @property
    def once(self) -> bool:
        """Whether a window gets a single call at each k."""
        return len(self.sampler.stages) == 1 and not self.sampler.own_times

    def hidden(self, k: int, needed: Tensor) -> Tensor:
        """Hidden rows [b, W, D] of call k; sequences [b] that need none are skipped.

        Not so in a call that writes to the cache, which holds the same positions of all sequences.
        """
        batch = self.batch
        z, t, cache, end = batch.of(batch.z), batch.of(batch.t), batch.cache, batch.end
        end = None if end is None else batch.of(end)
        plan = self.schedule.plan(z.shape[-1], z.device)
        all_of_them = bool(needed.all())
        if cache is not None:  # to pick sequences from it costs as much as feeding windows
            all_of_them |= (
                plan.settled(k) > cache.length or plan.T == 1 or 2 * int(needed.sum()) > len(needed)
            )
        if not all_of_them:
            z, t, end = z[needed], t[needed], None if end is None else end[needed]
            cache = None if cache is None else cache.some(needed)
        call, _ = generation_call(
            self.network, self.schedule, k, z, t, cache=cache, end=end, once=self.once
        )
        found = call.hidden(self.network, cache)
        batch.body_rows += call.ids.numel()
        if all_of_them:
            return found
        hidden = found.new_zeros(len(needed), *found.shape[1:])
        hidden[needed] = found
        return hidden

    def advance(
        self, stage: Sampler, k: int, number: int, place: Tensor, goal: Tensor | None
    ) -> State | None:
        """Take the positions `place` [W] to the times `goal` [W] (None: the sampler's own); None if
        that took no network call.
        """
        batch, N = self.batch, self.network.num_tokens
        ids, t = batch.of(batch.z), batch.of(batch.t)[:, place]
        z = ids[:, place]
        s = torch.zeros_like(t) if goal is None else torch.minimum(t, goal.to(t))
        draws = replace(self.noise, example=batch.of(self.noise.example), step=number, place=place)
        step = Step(self.process, z, t, s=s, N=N, noise=draws, ids=ids)
        rows = stage.rows(step)
        logits, called = torch.empty(0, N, device=z.device), bool(rows.any())
        if called:
            logits = to_cavity(
                self.network, logits_of(self.network, self.hidden(k, rows.any(-1))[rows]), z[rows]
            )
            batch.calls, batch.head_rows = batch.calls + 1, batch.head_rows + len(logits)
            batch.nfe[slice(None) if batch.which is None else batch.which] += rows.any(-1)
        z, t = stage.move(step, rows, logits, self.filter)
        batch.put(batch.z, place, z)
        batch.put(batch.t, place, t)
        if not called:
            return None
        state = self.state()
        state.called[slice(None) if batch.which is None else batch.which] = rows.any(-1)
        if self.confidence and stage.prediction == Prediction.CAVITY:
            batch.put(state.confidence, place, _confidence(logits, rows, z))
        return state

    def state(self) -> State:
        """The state of the batch, no sequence called."""
        z = self.batch.z
        nowhere = torch.full(z.shape, torch.nan, device=z.device)
        return State(
            self.batch.calls,
            z,
            self.batch.t,
            nowhere,
            torch.zeros(len(z), dtype=torch.bool, device=z.device),
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
    on_call: Callable[[State], None] | None = None,
    use_cache: bool = False,
    end: Tensor | None = None,
    eos: int | None = None,
    confidence: bool = False,
) -> Denoised:
    """Draw sequences from noise to data under any hyperschedule.

    Given tokens are at t = 0 from the start: they are context, bear no change and cost no call of
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
        end: [B] lengths where sequences differ; what lies behind is given, and never seen.
        eos: a sequence whose drawn tokens are its tail is finished when this token was drawn and
            all before it is settled; what follows is left as it is.
        confidence: whether `on_call` wants probabilities.

    Raises:
        ValueError: if the sampler is not defined for the process and schedule, or network and
            schedule do not go together.
    """
    N, L, device = network.num_tokens, ids.shape[-1], ids.device
    check_sampler(sampler, process, schedule, L)
    plan = schedule.plan(L, device)
    if end is not None and not plan.left_to_right:
        raise ValueError(
            f"sequences of different lengths need a hyperschedule from left to right, not {schedule}: draw them apart"
        )
    free = ids == N
    cache = Cache(L + 1) if use_cache and not plan.flat else None  # a flat window has no context
    if cache is not None:
        check_cache(network, schedule, L)
    z = torch.where(free, process.prior(ids.shape, N, noise.at(-1)), ids)
    batch = _Batch(
        z, free.double(), free, end, cache, torch.zeros(len(z), dtype=torch.int64, device=device)
    )
    loop = _Loop(network, process, schedule, sampler, noise, filter, confidence, batch)
    tell = on_call or (lambda state: None)
    tell(loop.state())
    wanted = free.any(0)[plan.position].tolist()
    k, visit, calls = plan.starts[0], 0, plan.calls
    while k < calls and len(batch.of(z)):
        settled, reached = plan.settled(k), plan.reached(k)
        place = plan.position[settled:reached]
        if any(wanted[settled:reached]):
            goal = None if sampler.own_times else plan.times(k)
            for number, stage in enumerate(sampler.stages):
                state = loop.advance(
                    stage, k, (k * REPEATS + visit) * len(sampler.stages) + number, place, goal
                )
                if state is not None:
                    tell(state)
            if sampler.own_times and bool((batch.of(batch.t)[:, place] > 0).any()):
                visit += 1
                continue
        visit = 0
        k = k + 1 if not sampler.own_times else plan.starts[reached] if reached < L else calls
        if eos is not None and plan.settled(k) > settled:
            batch.drop_finished(eos)
    tell(loop.state())
    return Denoised(batch.z, batch.nfe, batch.body_rows, batch.head_rows)
