"""Text and tokens where a tokenizer writes a token differently at the beginning of a text.

whole text     "a dog ran"     ▁a  ▁dog  ▁ran
its last word  " ran" alone    ▁   ▁ran          not how it goes on: `behind` gives ▁ran
its tokens     decode(▁ran)    "ran"             not what it adds:   `added` gives " ran"

A text is encoded as a whole and cut by its tokens or offsets; tokens show the text that they add.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

ANCHORS = ("a", "x", ".", "0")
"""Texts that a piece is put behind; the first that does not merge with it is taken."""


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The tokens of a text from its beginning.

    Raises:
        ValueError: if the text has half a surrogate pair, which no file can hold.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text has an invalid character at {error.start} "
            f"({text[error.start]!a}, half a pair or a byte that is not UTF-8): remove it"
        ) from None
    return tokenizer.encode(text, add_special_tokens=False, verbose=False)


def decode(
    tokenizer: PreTrainedTokenizerFast, ids: list[int], skip_special_tokens: bool = False
) -> str:
    """The text of tokens from its beginning."""
    return str(tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))


def behind(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The tokens of a text that stands behind other text: alone, if they add just this text there;
    else those that it has behind one of `ANCHORS`.
    """
    alone = encode(tokenizer, text)
    anchor = _anchor(tokenizer)
    if not text or added(tokenizer, anchor, alone) == text:
        return alone
    for before in ANCHORS:
        first = encode(tokenizer, before)
        both = encode(tokenizer, before + text)
        goes_on = both[len(first) :]
        if both[: len(first)] == first and added(tokenizer, anchor, goes_on) == text:
            return goes_on
    return alone  # a tokenizer that does not keep this text


def added(
    tokenizer: PreTrainedTokenizerFast,
    before: list[int] | None,
    ids: list[int],
    skip_special_tokens: bool = False,
) -> str:
    """The text that tokens add behind the tokens `before`; None: behind any text."""
    before = _anchor(tokenizer) if before is None else before
    head = decode(tokenizer, before, skip_special_tokens)
    both = decode(tokenizer, [*before, *ids], skip_special_tokens)
    differ = (i for i, (a, b) in enumerate(zip(head, both, strict=False)) if a != b)
    same = next(differ, len(head))
    return both[same:]


def running(tokenizer: PreTrainedTokenizerFast, before: list[int] | None, ids: list[int]) -> str:
    """The text that tokens add behind `before` (as `added` has it), without special tokens but with
    the text of each EOS, behind which a document begins.
    """
    runs: list[list[int]] = [[]]
    for token in ids:
        if token == tokenizer.eos_token_id:
            runs.append([])
        else:
            runs[-1].append(token)
    begins = before is not None and before[-1:] in ([], [tokenizer.eos_token_id])
    first = decode(tokenizer, runs[0], True) if begins else added(tokenizer, before, runs[0], True)
    others = [decode(tokenizer, run, True) for run in runs[1:]]
    return str(tokenizer.eos_token).join([first, *others])


def _anchor(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Tokens of one of `ANCHORS`; none where the tokenizer has none of them."""
    for text in ANCHORS:
        ids = encode(tokenizer, text)
        if ids and decode(tokenizer, ids) == text:
            return ids
    return []


def last_word(tokenizer: PreTrainedTokenizerFast, passage: str) -> tuple[list[int], int]:
    """The tokens of a passage, and how many of them reach into its last word or the space before.

    The passage is encoded as a whole and cut by offsets.
    """
    passage = passage.rstrip()
    begin = len(passage.rpartition(" ")[0])
    encoded = tokenizer(
        passage, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    last = sum(end > begin for _, end in encoded["offset_mapping"])
    return list(encoded["input_ids"]), last
