"""A trained model: a network with the process, hyperschedule and tokenizer it was trained with; `generate` is its public call."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .generation import denoise
from .hyperschedule import Hyperschedule, same_visibility
from .network.protocol import Denoiser
from .noise import Noise, seed_from
from .prediction import Prediction, require
from .process import Process
from .samplers import Ancestral, Sampler, filters

MASK_TEXT = "[MASK]"


@dataclass(frozen=True)
class Samples:
    """What `Model.generate` returns: one entry per sample, in the order prompt by prompt."""

    ids: list[Tensor]
    texts: list[str]
    nfe: int
    """Network calls of one batch (the largest, if there were several)."""
    seconds: float
    tokens: int
    """Tokens that were drawn, given ones not counted."""

    @property
    def tokens_per_second(self) -> float:
        """Drawn tokens per second."""
        return self.tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Model:
    """A network and all that is needed to score and sample text with it; `textdiff.load` opens one from a folder.

    Args:
        network: the denoiser over N = len(tokenizer) ordinary tokens.
        process: noising process it was trained with.
        hyperschedule: hyperschedule it was trained with.
        tokenizer: its tokenizer; MASK is not one of its tokens.
        length: L of the training sequences.
        prediction: what the logits mean.
        data: the corpus and packing it was trained on, as plain values.
    """

    network: Denoiser
    process: Process
    hyperschedule: Hyperschedule
    tokenizer: PreTrainedTokenizerBase
    length: int
    prediction: Prediction = Prediction.CAVITY
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer, self.network.num_tokens)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.head_parameters()[0].device

    def encode(self, text: str) -> Tensor:
        """Token ids [L] of a text; each `[MASK]` in it becomes one position to draw (id N)."""
        N = self.network.num_tokens
        pieces = [self.tokenizer.encode(piece, add_special_tokens=False) for piece in text.split(MASK_TEXT)]
        ids = pieces[0]
        for piece in pieces[1:]:
            ids = [*ids, N, *piece]
        return torch.tensor(ids, dtype=torch.int64)

    def decode(self, ids: Tensor) -> str:
        """The text of token ids [L]; positions still masked show as `[MASK]`."""
        N, runs = self.network.num_tokens, [[]]
        for token in ids.tolist():
            runs.append([]) if token == N else runs[-1].append(token)
        return MASK_TEXT.join(self.tokenizer.decode(run, skip_special_tokens=True) for run in runs)

    def _given(self, prompt: str, length: int | None) -> Tensor:
        ids, N = self.encode(prompt), self.network.num_tokens
        if length is None:
            length = len(ids) if (ids == N).any() else max(self.length, len(ids) + 1)
        if not max(len(ids), 1) <= length:
            raise ValueError(f"the prompt has {len(ids)} tokens but length is {length}: shorten it or raise length")
        return torch.cat([ids, torch.full((length - len(ids),), N)])

    def generate(
        self,
        prompts: str | Sequence[str] | None = None,
        num_samples: int = 1,
        length: int | None = None,
        hyperschedule: Hyperschedule | None = None,
        sampler: Sampler | None = None,
        temperature: float = 1.0,
        seed: int | torch.Generator = 0,
        batch_size: int = 16,
        first: int = 0,
        on_call: Callable[[int, int, Tensor], None] | None = None,
    ) -> Samples:
        """Draw texts; without given tokens the default draws exactly from the model of the schedule's T-step bound.

        That bound is what `evaluate perplexity` reports, for flat schedules with `--discrete`. Given tokens are clamped: the law is that
        of the text given them where they settle before the rest (AR, whole blocks), else that of the clamped chain.

        Args:
            prompts: beginnings of the texts, or texts with `[MASK]` at positions to fill; given tokens are at t = 0.
            num_samples: samples per prompt.
            length: tokens of a whole sequence, prompt included; by default the training length, or that of a text with `[MASK]`.
            hyperschedule: default: that of training.
            sampler: default: `Ancestral()`.
            temperature: divides the logits of the distribution that is drawn; 1 is the model's own law.
            seed: key of all draws; a sample depends on it, its prompt and its number, not on the batch it sits in.
            batch_size: sequences per network call.
            first: number of the first sample, for a caller that asks for one part after the other.
            on_call: called as (call, calls, tokens so far [B, L]) after every network call.

        Raises:
            ValueError: if a prompt does not fit, or the sampler, schedule and network do not go together.
        """
        if num_samples < 1 or batch_size < 1:
            raise ValueError(f"num_samples and batch_size must be >= 1, got {num_samples} and {batch_size}")
        schedule, sampler = hyperschedule or self.hyperschedule, sampler or Ancestral()
        require(self.prediction, sampler.prediction, sampler)
        texts = [prompts] if isinstance(prompts, str) else list(prompts if prompts is not None else [""])
        given = [self._given(text, length) for text in texts for _ in range(num_samples)]
        for size in {len(row) for row in given}:
            self.warn_if_unseen(schedule, size)
        key, warp, begin = seed_from(seed), filters.temperature(temperature), time.perf_counter()
        ids: list[Tensor] = [torch.empty(0)] * len(given)
        nfe = 0
        for rows in _batches(given, batch_size):
            noise = Noise(key, first + torch.tensor(rows, device=self.device))
            batch = torch.stack([given[row] for row in rows]).to(self.device)
            done = denoise(self.network, self.process, schedule, sampler, noise, batch, warp, on_call)
            nfe = max(nfe, done.nfe)
            for row, sample in zip(rows, done.ids.cpu(), strict=True):
                ids[row] = sample
        drawn = sum(int((row == self.network.num_tokens).sum()) for row in given)
        return Samples(ids, [self.decode(row) for row in ids], nfe, time.perf_counter() - begin, drawn)

    def warn_if_unseen(self, schedule: Hyperschedule, L: int) -> None:
        """Warn if calls under `schedule` see other contexts or windows than those of training."""
        if self.length < L:
            warnings.warn(
                f"{L} tokens are more than the {self.length} of training: later positions were never seen", stacklevel=3
            )
        try:
            same = same_visibility(self.hyperschedule, schedule, L)
        except ValueError:  # start steps given one by one fit one length only
            same = schedule == self.hyperschedule
        if not same:
            warnings.warn(
                f"this model was trained under {self.hyperschedule}; under {schedule} its calls see other contexts and windows "
                "than in training",
                stacklevel=3,
            )


def _batches(given: list[Tensor], batch_size: int) -> list[list[int]]:
    """Rows of equal length together, at most batch_size of them."""
    by_length: dict[int, list[int]] = {}
    for row, tokens in enumerate(given):
        by_length.setdefault(len(tokens), []).append(row)
    return [rows[i : i + batch_size] for rows in by_length.values() for i in range(0, len(rows), batch_size)]


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> None:
    """Raise a ValueError unless the tokenizer has just the network's N ordinary tokens."""
    if len(tokenizer) != num_tokens:
        relation = "larger" if len(tokenizer) > num_tokens else "smaller"
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, {relation} than the model's {num_tokens}: use the tokenizer the model "
            "was trained with"
        )
