"""Quenched AR by drafts: some tokens at once, checked in one call (`samplers.SelfSpeculative`).

    settled        a  b  c
    draft                   d  e  f  g            a few calls
    check                   d  e  F  .  .         one call: the AR token of every place
    settled        a  b  c  d  e  F               F is the first that differs

The check feeds the draft as if it had settled. Aligned, a row at full noise stands beside each
token, and sees what is before it; shifted, the row before a token predicts it:

    aligned   context  c  d  e  f  g      window  d' e' f' g' h'
    shifted            c  d  e  f  g      predict  d  e  f  g  h
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..denoiser.cache import Cache
from ..denoiser.head import logits_of, to_cavity
from ..denoiser.protocol import Denoiser
from ..denoiser.visibility import Visibility, ended_before
from ..hyperschedule import Flat, Hyperschedule, StartSteps
from ..noise import Noise, Stream, uniform
from ..process import Process
from ..samplers import Filter, SelfSpeculative, Step
from .state import REPEATS, Denoised, Frame, Sequences, confidence_of, is_end


@dataclass(frozen=True)
class _Shared(Noise):
    """The draws of a draft: which token it is, at each place, is drawn as quenched AR draws it."""

    def uniform(self, stream: Stream, position: Tensor) -> Tensor:
        if stream != Stream.TOKEN:
            return super().uniform(stream, position)
        seed = self.seed.unsqueeze(-1) if isinstance(self.seed, Tensor) else self.seed
        example = self.example.unsqueeze(-1)
        return uniform(seed, example, position * REPEATS, position, stream)


def schedule_of(sampler: SelfSpeculative, settled: int, width: int) -> Hyperschedule:
    """That of a draft of so many tokens behind those that have settled."""
    T = sampler.levels
    return StartSteps(T, (0,) * settled + (T,) * width) if settled else Flat(T)


def speculate(
    chain: Callable[..., Chain],
    noise: Noise,
    ids: Tensor,
    *,
    free: Tensor,
    end: Tensor | None,
    eos: int | Sequence[int] | None,
    on_call: Callable[[Frame], None] | None,
) -> Denoised:
    """Draw sequences, one after the other, by the `chain` of each; as `denoise` does.

    Args:
        free: [B, L] bool, tokens that are to be drawn.
    """
    B, L = ids.shape
    whole, t = ids.clone(), free.double()
    nfe = torch.zeros(B, dtype=torch.int64, device=ids.device)
    nowhere = torch.full(t.shape, torch.nan, device=t.device)
    nobody = torch.zeros(B, dtype=torch.bool, device=ids.device)

    def tell(called: Tensor = nobody, sure: Tensor = nowhere) -> None:
        if on_call is not None:
            on_call(Frame(int(nfe.sum()), whole, t, sure, called))

    lengths = [L] * B if end is None else end.tolist()
    chains = []
    for b, length in enumerate(lengths):
        own = replace(noise, example=noise.example[b : b + 1])
        chains.append(chain(noise=own, given=ids[b : b + 1, :length]))
        whole[b, :length] = chains[b].ids[0]
    tell()
    for b, one in enumerate(chains):
        while one.done < lengths[b] and not one.over:
            one.go_on(eos)
            whole[b, : lengths[b]] = one.ids[0]
            t[b, : one.done] = 0.0
            nfe[b] = one.nfe
            sure = nowhere.clone()
            sure[b, one.place] = one.sure
            tell(torch.arange(B, device=ids.device) == b, sure)
    tell()
    body_rows = sum(one.body_rows for one in chains)
    return Denoised(whole, nfe, body_rows, sum(one.head_rows for one in chains))


@dataclass
class Chain:
    """A sequence that grows by drafts.

    Args:
        loop: what draws a draft: the loop of `engine`.
        given: [1, L] what was asked for, N where a token is to be drawn.
        ids: [1, L] tokens, those that are not settled as quenched AR begins with them.
        done: how many have settled.
        over: whether an end of text was drawn.
        place, sure: [n] where tokens were put last, and their probabilities, if asked for.
        use_cache: whether their rows are kept, in `cache`.
        nfe, body_rows, head_rows: what was spent.
    """

    network: Denoiser
    process: Process
    sampler: SelfSpeculative
    loop: Callable[..., Any]
    noise: Noise
    given: Tensor
    filter: Filter
    use_cache: bool
    confidence: bool
    apart: int | None
    done: int = 0
    over: bool = False
    nfe: int = 0
    body_rows: int = 0
    head_rows: int = 0

    def __post_init__(self) -> None:
        self.place = torch.arange(0, device=self.given.device)
        self.sure = torch.empty(0, device=self.given.device)
        room = self.given.shape[-1] + self.sampler.width + 2
        self.cache = Cache(room) if self.use_cache else None
        N = self.network.num_tokens
        self.free = self.given == N
        prior = self.process.prior(self.given.shape, N, self.noise.at(-1), 1.0)
        self.ids = torch.where(self.free, prior, self.given)

    def go_on(self, eos: int | Sequence[int] | None) -> None:
        """Settle one token or more."""
        waits = self.free[0, self.done :].nonzero()
        if not len(waits):
            self.done = self.ids.shape[-1]
            return
        self.done += int(waits[0])
        width = min(self.sampler.width, self.ids.shape[-1] - 1 - self.done)
        drafted = self._drafted(width) if width else self.ids[:, : self.done]
        drawn = self._checked(drafted, width)
        if eos is not None and self._is_tail:
            ends = is_end(drawn, eos).nonzero()
            if len(ends):
                drawn = drawn[: int(ends[0]) + 1]
                self.over = True
        self.place = torch.arange(self.done, self.done + len(drawn), device=drawn.device)
        self.sure = self.sure[: len(drawn)]
        self.ids[0, self.place] = drawn
        self.done += len(drawn)

    @property
    def _is_tail(self) -> bool:
        """Whether what is drawn is the end of the sequence, so that it may end early."""
        free = self.free[0]
        return bool(free[int(free.long().argmax()) :].all())

    def _drafted(self, width: int) -> Tensor:
        """What has settled and a draft behind it, [1, done + width]."""
        n, N = self.done, self.network.num_tokens
        schedule = schedule_of(self.sampler, n, width)
        draft = self.sampler.draft
        noise = _Shared(**vars(self.noise))
        known = ~self.free[:, : n + width]
        known[:, :n] = True
        begin = draft.stages[0].begin(self.process)
        prior = self.process.prior(known.shape, N, noise.at(-1), begin)
        sequences = Sequences(
            torch.where(known, self.ids[:, : n + width], prior),
            (~known).double() * begin,
            known,
            cache=self.cache if n else None,
        )
        self.loop(
            self.network,
            self.process,
            schedule,
            plan=schedule.plan(n + width, known.device),
            sampler=draft,
            noise=noise,
            filter=self.filter,
            on_call=None,
            confidence=False,
            sequences=sequences,
            apart=self.apart,
        ).run(None)
        self.nfe += int(sequences.nfe)
        self.body_rows += sequences.body_rows
        self.head_rows += sequences.head_rows
        return sequences.ids

    def _checked(self, drafted: Tensor, width: int) -> Tensor:
        """What quenched AR draws behind what has settled, up to the first token that is another
        than the drafted one, [1..width + 1].
        """
        n, N = self.done, self.network.num_tokens
        place = torch.arange(n, n + width + 1, device=drafted.device)
        hidden = self._rows(drafted, place)
        t = self.free[0, place].double()[:, None]
        earlier = torch.arange(self.ids.shape[-1], device=place.device) < place[:, None]
        assumed = pad(drafted, (0, self.ids.shape[-1] - drafted.shape[-1]))
        seed = self.noise.seed
        noise = replace(
            self.noise,
            seed=seed.expand(len(place)) if isinstance(seed, Tensor) else seed,
            example=self.noise.example.expand(len(place)),
            step=place * REPEATS,
            place=place[:, None],
        )
        step = Step(
            self.process,
            self.ids[0, place, None],
            t,
            s=torch.zeros_like(t),
            N=N,
            noise=noise,
            ids=torch.where(earlier, assumed, self.ids),
        )
        rows = self.sampler.rows(step)
        raw = logits_of(self.network, hidden[rows[:, 0]])
        self.nfe += 1
        self.head_rows += len(raw)
        logits = to_cavity(self.network, raw, step.z[rows])
        z = self.sampler.move(step, rows, logits, self.filter)[0]
        drawn = z[:, 0]
        self.sure = torch.full_like(drawn, torch.nan, dtype=torch.float32)
        if self.confidence:
            self.sure = confidence_of(logits, rows, z)[:, 0]
        agree = int((drawn[:width] == drafted[0, n:]).long().cumprod(-1).sum())
        if self.cache is not None:
            rows_that_stay = n + agree + int(self.network.shifted)
            self.cache.commit(rows_that_stay - self.cache.length)
        return drawn[: agree + 1]

    def _rows(self, drafted: Tensor, place: Tensor) -> Tensor:
        """Hidden rows [W, D] that predict the tokens at `place` [W]."""
        stored = 0
        if self.cache is not None:
            # A draft of one token, shifted, has stored the row that predicts it: once more.
            self.cache.commit(min(0, self.done - self.cache.length))
            stored = self.cache.length
        reached = int(place[-1]) + 1
        document = torch.zeros(reached, dtype=torch.int64, device=place.device)
        if self.apart is not None:
            document = ended_before(pad(drafted[0], (0, 1)), self.apart)
        shifted = self.network.shifted
        behind = pad(drafted, (1, 0), value=self.network.bos) if shifted else drafted
        keys = torch.arange(behind.shape[-1], device=place.device)
        fed = keys[stored:]
        sees = (keys <= fed[:, None]) & (document[keys] == document[fed, None])
        ids, positions, window = behind[:, fed], fed, None
        t = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
        if not shifted:
            before = (keys < place[:, None]) & (document[keys] == document[place, None])
            itself = torch.eye(len(place), dtype=torch.bool, device=place.device)
            window = torch.cat([before, itself], -1)[None]
            ids = torch.cat([ids, self.ids[:, place]], -1)
            positions = torch.cat([fed, place])
            t = torch.cat([t, self.free[:, place].double()], -1)
        visibility = Visibility(len(fed), sees[None], window, stored)
        self.body_rows += ids.numel()
        cached: dict[str, Any] = {} if self.cache is None else {"cache": self.cache}
        hidden = self.network.body(ids, positions, t, visibility, **cached)
        return hidden[0, -len(place) :]
