"""A trained model: a network with the process, hyperschedule and tokenizer it was trained with;
`generate` is its public call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from ..denoiser.prediction import Prediction, require
from ..generation.config import GenerationConfig
from ..generation.engine import denoise
from ..generation.samples import Samples
from ..generation.state import Frame
from ..generation.watching import Watch
from ..hyperschedule import Hyperschedule, same_visibility
from ..network.base import DenoiserModel
from ..noise import Noise, seed_from
from ..objective import Measured
from ..process import Process
from .answers import Answers
from .measuring import measure_texts
from .requests import (
    MASK_TEXT,
    Prompt,
    batches,
    check_tokenizer,
    given_parts,
    joined,
    requests,
    warn_of_unseen_suffix,
)
from .text import added, decode

BAR: dict[str, Any] = {"desc": "sampling", "unit": "token", "leave": False}


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
        documents: joined, separate or single: how documents were put into rows. If separate, a call
            sees of what has settled only what stands behind the last EOS (`maths.md` 10.2), in
            every text that is drawn or scored.
        data: the corpus and packing it was trained on, as plain values.
        generation_config: the options of `generate` that this model is best drawn with.
    """

    network: DenoiserModel
    process: Process
    hyperschedule: Hyperschedule
    tokenizer: PreTrainedTokenizerFast
    length: int
    prediction: Prediction = Prediction.CAVITY
    data: dict[str, Any] = field(default_factory=dict)
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)
    documents: str = "joined"

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer, self.network.num_tokens)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.head_parameters()[0].device

    def to(self, device: str | torch.device) -> Model:
        """This model, its network moved to a device."""
        nn.Module.to(self.network, device)
        return self

    @property
    def apart(self) -> int | None:
        """The id that ends a document, if documents are kept apart."""
        return self.tokenizer.eos_token_id if self.documents == "separate" else None

    @property
    def mask_id(self) -> int:
        """The id N that marks a position to draw."""
        return self.network.num_tokens

    def encode(self, text: str) -> Tensor:
        """Token ids [L] of a text; each `[MASK]` in it becomes one position to draw (id N)."""
        return torch.tensor(joined(given_parts(self, text)), dtype=torch.int64)

    def decode(self, ids: Tensor) -> str:
        """The text of token ids [L]; positions still masked show as `[MASK]`."""
        runs: list[list[int]] = [[]]
        for token in ids.tolist():
            if token == self.mask_id:
                runs.append([])
            else:
                runs[-1].append(token)
        first, *others = runs
        tokens = self.tokenizer
        pieces = [decode(tokens, first, skip_special_tokens=True)]
        pieces += [added(tokens, None, run, skip_special_tokens=True) for run in others]
        return MASK_TEXT.join(pieces)

    def decode_token(self, token: int) -> str:
        """The text that a single token adds behind other text."""
        return MASK_TEXT if token == self.mask_id else added(self.tokenizer, None, [token])

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt] | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        suffix: str | Sequence[str] = "",
        first: int = 0,
        streamer: Any = None,
        on_call: Callable[[Frame], None] | None = None,
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
        chosen = self.generation_config if generation_config is None else generation_config
        config = self._checked(GenerationConfig.of(chosen).but(**options))
        schedule = config.schedule(self.hyperschedule)
        asked = requests(self, prompts, suffix, config)
        wanted = [request.ids for request in asked]
        for size in {len(ids) for ids in wanted}:
            self.warn_if_unseen(schedule, size)
        warn_of_unseen_suffix(wanted, schedule, self.mask_id)
        if streamer is not None and len(wanted) != 1:
            raise ValueError(
                f"a streamer takes a single sample, not {len(wanted)}: ask for one, or use on_call"
            )
        key = seed_from(config.seed)
        answers = Answers(wanted, self.mask_id, config.ends)
        tokens = sum(int((ids == self.mask_id).sum()) for ids in wanted)
        with tqdm(total=tokens, disable=None if progress else True, **BAR) as bar:
            for batch in batches(wanted, config.batch_size, schedule):
                known = batch.ids < self.mask_id
                followed = {"bar": bar, "streamer": streamer, "on_call": on_call}
                watch = Watch(known, self.mask_id, config, **followed)
                numbers = first + torch.tensor(batch.numbers, device=self.device)
                done = denoise(
                    self.network,
                    self.process,
                    schedule,
                    config.sampler,
                    Noise(key, numbers),
                    ids=batch.ids.to(self.device),
                    filter=config.filter(),
                    on_call=watch,
                    use_cache=config.use_cache,
                    end=batch.lengths(self.device),
                    eos=config.ends or None,
                    confidence=config.output_trajectory,
                    apart=self.apart,
                )
                answers.take(batch, done, watch)
        return answers.samples(asked, self.tokenizer, config.output_trajectory)

    def measure(self, texts: str | Sequence[str], **options: Any) -> list[Measured]:
        """Every bound on -log p of some texts that can be stated, nats per token.

        Args:
            texts: a document or several; put into rows as in training.
            options: those of `textdiff.model.measuring.measure_texts`.

        Raises:
            ValueError: if there is no text, or an option is out of range.
        """
        return measure_texts(self, texts, **options)

    def _checked(self, config: GenerationConfig) -> GenerationConfig:
        for stage in config.sampler.stages:
            require(self.prediction, stage.prediction, stage)
        for name, ids in (
            ("eos_token_id", config.ends),
            ("suppress_tokens", config.suppress_tokens),
        ):
            if outside := [token for token in ids if not 0 <= token < self.mask_id]:
                raise ValueError(f"{name} must lie in 0..{self.mask_id - 1}, got {outside[0]}")
        return config

    def warn_if_unseen(self, schedule: Hyperschedule, L: int) -> None:
        """Warn if calls under `schedule` see other contexts or windows than those of training."""
        if self.length < L:
            warnings.warn(
                f"{L} tokens are more than the {self.length} of training: "
                "later positions were never seen",
                stacklevel=3,
            )
        same = schedule == self.hyperschedule
        if not same and schedule.fits(L) and self.hyperschedule.fits(L):
            same = same_visibility(self.hyperschedule, schedule, L)
        if not same:
            warnings.warn(
                f"this model was trained under {self.hyperschedule}; under {schedule} its calls "
                "see other contexts and windows than in training",
                stacklevel=3,
            )
