"""The text of a sequence on its way, as far as it has settled without a gap.

    given   drawn                     drawn, not settled
    To be | or not to be that is t  | ?? ?? question
            the prefix        held    "t" may be the beginning of a stop string

It begins with the first drawn token and ends with the last. Held back is what may still change:
part of a character, and what may become a stop string.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..generation.config import GenerationConfig
from .requests import Part, Request, joined
from .text import added, running
from .trained import Trained

PARTIAL = "\ufffd"  # what bytes decode to that are no whole character


@dataclass(frozen=True)
class Told:
    """A finished sequence as text.

    Args:
        ids: [L] its tokens.
        text: of all of it.
        completion: of its drawn tokens alone.
        running: `text` with each EOS that was drawn.
    """

    ids: Tensor
    text: str
    completion: str
    running: str


class Prefix:
    """What is said of a sequence while it is drawn.

    Args:
        tokenizer: the model's.
        parts: of which the sequence consists.
        free: which of its tokens are drawn.
        stop: the text ends before the first of these strings ...
        least: ... in what the drawn tokens behind so many add.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        parts: Sequence[Part],
        free: Sequence[bool],
        stop: Sequence[str] = (),
        least: int = 0,
    ):
        self.tokenizer = tokenizer
        self.parts = parts
        self.free = list(free)
        self.stop = stop
        self.least = least
        self.ids = joined(parts)
        self.begin = self.free.index(True) if True in self.free else len(self.free)
        self.last = len(self.free) - self.free[::-1].index(True) if True in self.free else 0
        self.ready = [not free for free in self.free]
        self.settled = self.begin
        self.told = ""
        self.cut: str | None = None

    def put(self, position: Iterable[int], ids: Iterable[int]) -> str:
        """Take tokens that have settled; the text that is new.

        After a stop string was found, `cut` is all of the text, and nothing is new any more.
        """
        for place, token in zip(position, ids, strict=True):
            self.ids[place] = token
            self.ready[place] = True
        before = self.settled
        while self.settled < self.last and self.ready[self.settled]:
            self.settled += 1
        if self.settled == before or self.cut is not None:
            return ""
        text = self.text(self.settled)
        self.cut = self._stopped(text)
        return self.say(self._held(text) if self.cut is None else self.cut)

    def text(self, end: int) -> str:
        """The text of the tokens from the first drawn one up to `end`."""
        said, place = "", 0
        for given, ids in self.parts:
            begin, place = place, place + len(ids)
            if begin >= end or place <= self.begin:
                continue
            if given is not None and place <= end:
                said += given
                continue
            upto = min(place, end)
            said += added(self.tokenizer, self.ids[:begin], self.ids[begin:upto], True)
        return said

    @property
    def before(self) -> str:
        """The text that stands before the first drawn token."""
        said, place = "", 0
        for given, ids in self.parts:
            begin, place = place, place + len(ids)
            if place <= self.begin:
                said += given or added(self.tokenizer, self.ids[:begin], ids, True)
        return said

    @property
    def kept(self) -> int:
        """How many tokens stand before a stop string."""
        end = self.settled
        while end > self.begin and len(self.text(end)) > len(self.cut or ""):
            end -= 1
        return end

    def told_as(self, ids: Tensor, mask_id: int) -> Told:
        """The finished sequence ids [L] as text, without a stop string and what follows it."""
        if self.cut is None:
            return tell(self.tokenizer, self.parts, mask_id, ids)
        text = self.before + self.cut
        return Told(ids[: self.kept], text, self.cut, text)

    def say(self, text: str) -> str:
        """What of `text` was not said before."""
        if not text.startswith(self.told):  # what a tokenizer said of fewer tokens cannot be unsaid
            return ""
        new = text[len(self.told) :]
        self.told = text
        return new

    def _stopped(self, text: str) -> str | None:
        """The text before the first stop string, None if there is none."""
        begin = len(self.text(self._from())) if self.least else 0
        found = [place for stop in self.stop if (place := text.find(stop, begin)) >= 0]
        return text[: min(found)] if found else None

    def _from(self) -> int:
        """Where the first `least` drawn tokens end."""
        drawn = [place for place, free in enumerate(self.free) if free]
        return drawn[min(self.least, len(drawn)) - 1] + 1

    def _held(self, text: str) -> str:
        """Without the end that may still change."""
        text = text.rstrip(PARTIAL)
        for length in range(min(len(text), max(map(len, self.stop), default=0)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stop):
                return text[:-length]
        return text


def prefix_of(model: Trained, request: Request, config: GenerationConfig) -> Prefix:
    """That of a request."""
    free = (request.ids == model.mask_id).tolist()
    least = config.min_new_tokens or 0
    return Prefix(model.tokenizer, request.parts, free, config.stop, least)


def tell(
    tokenizer: PreTrainedTokenizerFast, parts: Sequence[Part], mask_id: int, ids: Tensor
) -> Told:
    """A finished sequence as text, in which text that was given stands as it was given."""
    tokens = ids.tolist()
    text = completion = whole = ""
    end = 0
    for is_gap, run in groupby(parts, lambda part: set(part[1]) <= {mask_id}):
        for given, of_part in [(None, joined(list(run)))] if is_gap else run:
            begin = end
            end = begin + len(of_part)
            piece = given or added(tokenizer, tokens[:begin], tokens[begin:end], True)
            text += piece
            completion += piece if is_gap else ""
            whole += given or running(tokenizer, tokens[:begin], tokens[begin:end])
    return Told(ids, text, completion, whole)
