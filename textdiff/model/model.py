"""A trained model: a network with the process, hyperschedule and tokenizer it was trained with;
`generate` is its public call.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..denoiser.prediction import Prediction, require
from ..denoiser.protocol import Denoiser
from ..generation.config import GenerationConfig
from ..generation.engine import denoise
from ..generation.samples import Samples
from ..generation.state import State
from ..generation.watching import Watch
from ..hyperschedule import Hyperschedule, same_visibility
from ..noise import Noise, seed_from
from ..objective import Measured
from ..process import Process
from .measuring import measure_texts
from .requests import MASK_TEXT, _batches, _cut, check_tokenizer

BAR = {"desc": "sampling", "unit": "token", "leave": False}


@dataclass(frozen=True)
class Model:
    """A network and all that is needed to score and sample text with it; `textdiff.load` opens one
    from a folder.

    Args:
        network: the denoiser over N = len(tokenizer) ordinary tokens.
        process: noising process it was trained with.
        hyperschedule: hyperschedule it was trained with.
        tokenizer: its tokenizer; MASK is not one of its tokens.
        length: L of the training sequences.
        prediction: what the logits mean.
        data: the corpus and packing it was trained on, as plain values.
        generation_config: the options of `generate` that this model is best drawn with.
    """

    network: Denoiser
    process: Process
    hyperschedule: Hyperschedule
    tokenizer: PreTrainedTokenizerBase
    length: int
    prediction: Prediction = Prediction.CAVITY
    data: dict[str, Any] = field(default_factory=dict)
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer, self.network.num_tokens)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.head_parameters()[0].device

    def to(self, device: str | torch.device) -> Model:
        """This model, its network moved to a device."""
        self.network.to(device)  # type: ignore[attr-defined]
        return self

    def encode(self, text: str) -> Tensor:
        """Token ids [L] of a text; each `[MASK]` in it becomes one position to draw (id N)."""
        N = self.network.num_tokens
        pieces = [
            self.tokenizer.encode(piece, add_special_tokens=False)
            for piece in text.split(MASK_TEXT)
        ]
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

    def decode_token(self, token: int) -> str:
        """The text of a single token."""
        return MASK_TEXT if token == self.mask_id else self.tokenizer.decode([token])

    @property
    def mask_id(self) -> int:
        """The id N that marks a position to draw."""
        return self.network.num_tokens

    def _ids(self, text: str | Tensor | Sequence[int]) -> Tensor:
        ids = self.encode(text) if isinstance(text, str) else torch.as_tensor(text).cpu()
        if not ids.numel():
            ids = ids.long()
        if isinstance(text, str) and (
            unknown := int((ids == self.tokenizer.unk_token_id).sum())
            if self.tokenizer.unk_token
            else 0
        ):
            warnings.warn(
                f"{unknown} tokens of the prompt {text!r} are unknown to this model's tokenizer",
                stacklevel=4,
            )
        if (
            ids.ndim != 1
            or ids.is_floating_point()
            or (ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= self.mask_id)
        ):
            raise ValueError(
                f"a prompt must be a text or ids [L] in 0..{self.mask_id} (MASK), got {text!r}"
            )
        return ids

    def _given(self, prompt: Tensor, suffix: Tensor, config: GenerationConfig) -> Tensor:
        """The sequence [L] with MASK where a token is to be drawn."""
        given = len(prompt) + len(suffix)
        if config.max_new_tokens is not None:
            new = config.max_new_tokens
        elif config.max_length is not None:
            new = config.max_length - given
        else:  # a text with gaps is as long as it is
            new = 0 if (prompt == self.mask_id).any() else max(self.length - given, 1)
        if new < 0 or given + new < 1:
            raise ValueError(
                f"the prompt and suffix have {given} tokens but max_length is {config.max_length}: shorten them or raise max_length"
            )
        return torch.cat([prompt, torch.full((new,), self.mask_id), suffix])

    def generate(
        self,
        prompts: str | Tensor | Sequence[str | Tensor | Sequence[int]] | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        suffix: str | Sequence[str] = "",
        first: int = 0,
        streamer: Any = None,
        on_call: Callable[[State], None] | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Samples:
        """Draw texts; without given tokens the default draws exactly from the model of the
        schedule's T-step bound.

        That bound is what `evaluate perplexity` reports, for flat schedules with `--discrete`.
        Given tokens are clamped: the law is that of the text given them where they settle before
        the rest (AR, whole blocks), else that of the clamped chain.

        Args:
            prompts: beginnings of the texts, or texts with `[MASK]` at positions to fill, or ids
                with `mask_id` there.
            generation_config: how to draw; default: the model's own.
            suffix: what comes after the drawn tokens, one for all prompts or one each.
            first: number of the first sample, for a caller that asks for one part after the other.
            streamer: a streamer of transformers (`TextStreamer`, `TextDiffusionStreamer`), for a
                single sample.
            on_call: called with the noise at the beginning of a batch and after every network call.
            progress: show a progress bar of tokens on a terminal.
            options: options of `GenerationConfig` that replace those of the config.

        Raises:
            ValueError: if a prompt does not fit, an option does not exist, or sampler, schedule and
                network do not go together.
        """
        config = (generation_config or self.generation_config).but(**options)
        self._check(config)
        schedule, filter = config.schedule(self.hyperschedule), config.filter()
        given = [
            row
            for row in self._requests(prompts, suffix, config)
            for _ in range(config.num_return_sequences)
        ]
        for size in {len(row) for row in given}:
            self.warn_if_unseen(schedule, size)
        if streamer is not None and len(given) != 1:
            raise ValueError(
                f"a streamer takes a single sample, not {len(given)}: ask for one, or use on_call"
            )
        key, begin = seed_from(config.seed), time.perf_counter()
        ids, nfe, paths = [torch.empty(0)] * len(given), [0] * len(given), [None] * len(given)
        body_rows = head_rows = 0
        with tqdm(
            total=sum(int((row == self.mask_id).sum()) for row in given),
            disable=None if progress else True,
            **BAR,
        ) as bar:
            for rows in _batches(given, config.batch_size, schedule):
                batch, end = (
                    pad_sequence([given[row] for row in rows], batch_first=True),
                    [len(given[row]) for row in rows],
                )
                watch = Watch(batch, self.mask_id, config, bar, streamer, on_call)
                done = denoise(
                    self.network,
                    self.process,
                    schedule,
                    config.sampler,
                    Noise(key, first + torch.tensor(rows, device=self.device)),
                    ids=batch.to(self.device),
                    filter=filter,
                    on_call=watch,
                    use_cache=config.use_cache,
                    end=torch.tensor(end, device=self.device) if len(set(end)) > 1 else None,
                    eos=config.eos_token_id,
                    confidence=config.output_trajectory,
                )
                body_rows, head_rows = body_rows + done.body_rows, head_rows + done.head_rows
                for place, row in enumerate(rows):
                    ids[row] = _cut(
                        done.ids[place, : end[place]].cpu(),
                        given[row] == self.mask_id,
                        config.eos_token_id,
                    )
                    nfe[row], paths[row] = (
                        int(done.nfe[place]),
                        watch.trajectory(place, len(ids[row])),
                    )
        drawn = sum(
            int((row[: len(found)] == self.mask_id).sum())
            for row, found in zip(given, ids, strict=True)
        )
        texts, seconds = [self.decode(row) for row in ids], time.perf_counter() - begin
        return Samples(
            ids,
            texts,
            nfe,
            seconds,
            drawn,
            body_rows,
            head_rows,
            paths if config.output_trajectory else None,
        )

    def measure(self, texts: str | Sequence[str], **options: Any) -> list[Measured]:
        """Every bound on -log p of some texts that can be stated, nats per token.

        Args:
            texts: a document or several; put into rows as in training.
            options: those of `textdiff.model.measuring.measure_texts`.

        Raises:
            ValueError: if there is no text, or an option is out of range.
        """
        return measure_texts(self, texts, **options)

    def _check(self, config: GenerationConfig) -> None:
        for stage in config.sampler.stages:
            require(self.prediction, stage.prediction, stage)
        if config.eos_token_id is not None and not 0 <= config.eos_token_id < self.mask_id:
            raise ValueError(
                f"eos_token_id must lie in 0..{self.mask_id - 1}, got {config.eos_token_id}"
            )

    def _requests(
        self, prompts: Any, suffix: str | Sequence[str], config: GenerationConfig
    ) -> list[Tensor]:
        """One sequence with MASK where a token is to be drawn for each prompt."""
        if prompts is None or isinstance(prompts, str):
            prompts = [prompts or ""]
        elif isinstance(prompts, Tensor) and prompts.ndim == 1:
            prompts = [prompts]
        suffixes = [suffix] * len(prompts) if isinstance(suffix, str) else list(suffix)
        if len(suffixes) != len(prompts):
            raise ValueError(
                f"there are {len(prompts)} prompts but {len(suffixes)} suffixes: give one for all, or one each"
            )
        return [
            self._given(self._ids(p), self._ids(s), config)
            for p, s in zip(prompts, suffixes, strict=True)
        ]

    def warn_if_unseen(self, schedule: Hyperschedule, L: int) -> None:
        """Warn if calls under `schedule` see other contexts or windows than those of training."""
        if self.length < L:
            warnings.warn(
                f"{L} tokens are more than the {self.length} of training: later positions were never seen",
                stacklevel=3,
            )
        same = schedule == self.hyperschedule
        if not same and schedule.fits(L) and self.hyperschedule.fits(L):
            same = same_visibility(self.hyperschedule, schedule, L)
        if not same:
            warnings.warn(
                f"this model was trained under {self.hyperschedule}; under {schedule} its calls see other contexts and windows "
                "than in training",
                stacklevel=3,
            )
