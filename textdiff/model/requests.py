"""What a caller asks to be drawn: prompts become sequences with MASK where a token is to be drawn,
and sequences of like lengths a batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from ..generation.config import GenerationConfig
from ..hyperschedule import Hyperschedule
from .text import behind, encode
from .trained import Trained

MASK_TEXT = "[MASK]"

Prompt = str | Tensor | Sequence[int]


Part = tuple[str | None, list[int]]
"""A piece of text that was given, None where there is none, and its tokens; MASK alone is a gap."""


@dataclass(frozen=True)
class Request:
    """A sequence that is asked for.

    Args:
        ids: [L] tokens, MASK where one is drawn.
        parts: of which it consists, in order: what was given as text, as tokens, and gaps.
    """

    ids: Tensor
    parts: tuple[Part, ...]


def requests(
    model: Trained, prompts: Any, suffix: str | Sequence[str], config: GenerationConfig
) -> list[Request]:
    """One request for each sample, prompt by prompt.

    Args:
        model: encodes the texts.
        prompts: a prompt, several, or None for the empty one.
        suffix: what comes after the drawn tokens, one for all prompts or one each.
        config: how many tokens, and how many samples of each prompt.

    Raises:
        ValueError: if a prompt is no text and no ids, or is longer than all that was asked for.
    """
    wanted = prompt_list(prompts)
    suffixes = [suffix] * len(wanted) if isinstance(suffix, str) else list(suffix)
    if len(suffixes) != len(wanted):
        raise ValueError(
            f"there are {len(wanted)} prompts but {len(suffixes)} suffixes: "
            "give one for all, or one each"
        )
    rows = []
    for prompt, after in zip(wanted, suffixes, strict=True):
        row = _request(model, _parts(model, prompt), _parts(model, after, begins=False), config)
        rows += [row] * config.num_return_sequences
    return rows


def prompt_list(prompts: Any) -> list[Prompt]:
    """The prompts one by one: a single one, an iterable of them, or None for the empty one.

    Raises:
        ValueError: for what a tokenizer returns or a chat, with the remedy.
    """
    if prompts is None or isinstance(prompts, str):
        return [prompts or ""]
    if isinstance(prompts, Tensor | np.ndarray):
        rows: Any = prompts
        return [rows] if rows.ndim == 1 else list(rows)
    if isinstance(prompts, Mapping):
        raise ValueError(
            f"prompts is a mapping with the keys {', '.join(map(str, prompts))}: give texts, or "
            "the ids of one prompt each (for a tokenizer's result without padding: "
            "encoded['input_ids'])"
        )
    if not isinstance(prompts, Iterable) or isinstance(prompts, bytes):
        raise ValueError(f"prompts must be a text, ids or several of these, got {prompts!r}")
    several = list(prompts)
    if any(isinstance(one, Mapping) for one in several):
        raise ValueError(
            "prompts is a list of messages: make a text of them first "
            "(tokenizer.apply_chat_template(messages, tokenize=False))"
        )
    if several and all(isinstance(one, Integral) and not isinstance(one, bool) for one in several):
        return [[int(one) for one in several]]
    return several


def given_parts(model: Trained, text: str, begins: bool = True) -> list[Part]:
    """The parts of a text with `[MASK]`; what stands behind a gap is encoded as going on, and so is
    all of it unless it `begins` the sequence.
    """
    parts: list[Part] = []
    for number, piece in enumerate(text.split(MASK_TEXT)):
        if number:
            parts.append((None, [model.mask_id]))
        if piece:
            put = encode if begins and not number else behind
            parts.append((piece, put(model.tokenizer, piece)))
    return parts


def literal(model: Trained, prompt: Prompt, begins: bool = True) -> list[int]:
    """The tokens of a text in which `[MASK]` is text, or of ids; behind other text unless it
    `begins` a sequence.

    Raises:
        ValueError: if it is neither, or an id is no ordinary token.
    """
    if isinstance(prompt, str):
        return (encode if begins else behind)(model.tokenizer, prompt)
    ids = joined(_parts(model, prompt))
    if model.mask_id in ids:
        raise ValueError(f"ids must be ordinary tokens, 0..{model.mask_id - 1}, got MASK")
    return ids


def joined(parts: Sequence[Part]) -> list[int]:
    """The tokens of parts."""
    return [token for _, ids in parts for token in ids]


def _parts(model: Trained, prompt: Prompt, begins: bool = True) -> list[Part]:
    """The parts of a prompt; a warning if the tokenizer does not know all of its text."""
    if isinstance(prompt, str):
        parts = given_parts(model, prompt, begins)
        _warn_of_unknown(model.tokenizer, prompt, joined(parts))
        return parts
    try:
        ids = torch.as_tensor(prompt).cpu()
    except (TypeError, ValueError, RuntimeError):
        ids = torch.zeros(1)
    if not ids.numel():
        ids = ids.long()
    is_whole = ids.ndim == 1 and not ids.is_floating_point() and ids.dtype != torch.bool
    if not is_whole or bool(((ids < 0) | (ids > model.mask_id)).any()):
        raise ValueError(
            f"a prompt must be a text or ids [L] in 0..{model.mask_id} (MASK), got {prompt!r}"
        )
    runs = groupby(ids.tolist(), lambda token: token == model.mask_id)
    return [(None, list(run)) for _, run in runs]


def _warn_of_unknown(tokenizer: PreTrainedTokenizerFast, prompt: str, ids: list[int]) -> None:
    if not tokenizer.unk_token:
        return
    if unknown := ids.count(tokenizer.unk_token_id):
        warnings.warn(
            f"{unknown} tokens of the prompt {prompt!r} are unknown to this model's tokenizer",
            stacklevel=5,
        )


def _request(
    model: Trained, prompt: list[Part], suffix: list[Part], config: GenerationConfig
) -> Request:
    """Prompt, MASK for each new token, suffix."""
    before = joined(prompt)
    known = len(before) + len(joined(suffix))
    if config.max_new_tokens is not None:
        new = config.max_new_tokens
    elif config.max_length is not None:
        new = config.max_length - known
    elif model.mask_id in before:  # a text with gaps is as long as it is
        new = 0
    else:
        new = max(model.length - known, 1)
    if new < 0 or known + new < 1:
        raise ValueError(
            f"the prompt and suffix have {known} tokens but max_length is {config.max_length}: "
            "shorten them or raise max_length"
        )
    parts = (*prompt, (None, [model.mask_id] * new), *suffix)
    return Request(torch.tensor(joined(parts), dtype=torch.int64), parts)


@dataclass(frozen=True)
class Batch:
    """Sequences that are drawn together.

    Args:
        numbers: which of all sequences they are.
        ids: [B, L]; shorter ones are padded at their end.
        ends: [B] their lengths.
    """

    numbers: list[int]
    ids: Tensor
    ends: list[int]

    def lengths(self, device: torch.device) -> Tensor | None:
        """[B] lengths; None where all are alike."""
        return torch.tensor(self.ends, device=device) if len(set(self.ends)) > 1 else None


def batches(
    wanted: list[Tensor], config: GenerationConfig, schedule: Hyperschedule, mask_id: int
) -> Iterator[Batch]:
    """Sequences of like lengths together, at most batch_size of them; of equal ones only, where
    start steps depend on the length, or a filter on where tokens stand.
    """
    groups: list[list[int]] = []
    for number in sorted(range(len(wanted)), key=lambda number: len(wanted[number])):
        length = len(wanted[number])
        has_room = bool(groups) and len(groups[-1]) < config.batch_size
        first = wanted[groups[-1][0]] if groups else wanted[number]
        alike = not config.looks_around or _drawn_alike(first, wanted[number], mask_id)
        if has_room and alike and _begins_alike(schedule, len(first), length):
            groups[-1].append(number)
        else:
            groups.append([number])
    for numbers in groups:
        rows = [wanted[number] for number in numbers]
        yield Batch(numbers, pad_sequence(rows, batch_first=True), [len(row) for row in rows])


def _drawn_alike(one: Tensor, other: Tensor, mask_id: int) -> bool:
    return torch.equal(one == mask_id, other == mask_id)


def _begins_alike(schedule: Hyperschedule, short: int, long: int) -> bool:
    if short == long:
        return True
    if not (schedule.fits(short) and schedule.fits(long)):
        return False
    start = schedule.start(long)
    return bool((start.diff() >= 0).all()) and torch.equal(schedule.start(short), start[:short])


def warn_of_unseen_suffix(wanted: list[Tensor], schedule: Hyperschedule, mask_id: int) -> None:
    """Warn if a drawn position i settles before the next given one, j > i, is seen:
    s(j) >= s(i) + T.
    """
    for ids in {tuple(row.tolist()): row for row in wanted}.values():
        free = ids == mask_id
        if not schedule.fits(len(ids)) or not (free[:-1] & ~free[1:]).any():
            continue
        start = schedule.start(len(ids)).cpu()
        far = torch.full_like(start, int(start.max()) + schedule.T)
        given = torch.where(free, far, start).flip(0).cummin(0).values.flip(0)
        behind_it = (~free).flip(0).cumsum(0).flip(0) > 0
        if unseen := int((free & behind_it & (given >= start + schedule.T)).sum()):
            warnings.warn(
                f"{unseen} drawn positions settle before the suffix, or what else is given behind "
                f"them, is seen under {schedule}: it has no influence on them; a flat schedule "
                "sees it",
                stacklevel=4,
            )
            return
