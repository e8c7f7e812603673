"""What can be done with a trained model: `generate`, `measure`, `encode` and `decode`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..generation.config import GenerationConfig
from ..generation.engine import denoise
from ..generation.samples import Samples
from ..generation.state import Frame
from ..generation.watching import Watch
from ..noise import Noise, seed_from
from ..objective import Measured
from .answers import Answers
from .decision import Decision, decide
from .measuring import measure_texts
from .options import options_of
from .requests import (
    MASK_TEXT,
    Prompt,
    batches,
    given_parts,
    joined,
    requests,
    warn_of_unseen_suffix,
)
from .scoring import Score, score
from .streaming import Event, TextEngine, stream
from .text import added, decode
from .trained import Trained

BAR: dict[str, Any] = {"desc": "sampling", "unit": "token", "leave": False}


@dataclass(frozen=True)
class Model(Trained):
    """What draws, scores and measures text; `textdiff.load` opens one from a folder.

    Args: those of `Trained`.
    """

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
        config = options_of(self, generation_config, options)
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
            for batch in batches(wanted, config, schedule, self.mask_id):
                known = batch.ids < self.mask_id
                begin = int((~known[0]).long().argmax())
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
                    filter=config.filter(begin),
                    on_call=watch,
                    use_cache=config.use_cache,
                    end=batch.lengths(self.device),
                    eos=config.ends or None,
                    confidence=config.output_trajectory or config.logprobs,
                    apart=self.apart,
                )
                answers.take(batch, done, watch)
        return answers.samples(asked, self, config)

    def stream(
        self,
        prompt: Prompt | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        suffix: str = "",
        provisional: bool = True,
        **options: Any,
    ) -> Iterator[Event]:
        """Draw one text and tell of it: `Committed` tokens that have settled for good,
        `Provisional` ones of the window after every network call, and `Finished`.

            for event in model.stream("To be", max_new_tokens=32):
                print(getattr(event, "text", ""), end="")

        Args: those of `generate`, for a single sample; and

            provisional: whether the window is told of, too.

        Raises:
            ValueError: as `generate`.
        """
        return stream(
            self, prompt, generation_config, suffix=suffix, provisional=provisional, **options
        )

    def engine(self, *, max_sequences: int, max_length: int, **options: Any) -> TextEngine:
        """An engine for those with their own loop: `submit`, `step`, `cancel`.

        Args:
            max_sequences: how many texts are drawn at a time; others wait.
            max_length: the most tokens of one, given ones too.
            options: those of `textdiff.model.streaming.TextEngine`.
        """
        return TextEngine(self, max_sequences=max_sequences, max_length=max_length, **options)

    def measure(self, texts: str | Sequence[str], **options: Any) -> list[Measured]:
        """Every bound on -log p of some texts that can be stated, nats per token.

        Args:
            texts: a document or several; put into rows as in training.
            options: those of `textdiff.model.measuring.measure_texts`.

        Raises:
            ValueError: if there is no text, or an option is out of range.
        """
        return measure_texts(self, texts, **options)

    def score(self, prompts: Any, completions: Sequence[Prompt], **options: Any) -> list[Score]:
        """-log p of completions, in nats, each with the law that it is of.

        Args:
            prompts: one for all completions, or one each.
            completions: texts or ids.
            options: those of `textdiff.model.scoring.score`.

        Raises:
            ValueError: if they do not go together, or an option is out of range.
        """
        return score(self, prompts, completions, **options)

    def decide(self, text: str, options: Sequence[str], **scoring: Any) -> Decision:
        """The probability of each option at the `[GAP]` of a text, among these options.

        Args:
            text: with one gap.
            options: two or more texts.
            scoring: `lengths`, and options of `textdiff.model.scoring.score`.

        Raises:
            ValueError: as `textdiff.model.decision.decide`.
        """
        return decide(self, text, options, **scoring)
