"""How many bytes of text a number is about, for bits per byte."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerFast

from .packing import Packed


def unknown(tokenizer: PreTrainedTokenizerFast, packed: Packed) -> int:
    """How many scored tokens stand for characters that the tokenizer does not know."""
    if tokenizer.unk_token is None or tokenizer.unk_token_id == tokenizer.eos_token_id:
        return 0
    return int((packed.tokens == tokenizer.unk_token_id).sum())


def text_bytes(tokenizer: PreTrainedTokenizerFast, packed: Packed) -> int | None:
    """UTF-8 bytes of the text that the scored tokens stand for: decoded document by document; EOS
    and filler have none.

    Where the tokenizer gives any text back exactly (byte-level BPE) these are the bytes of the
    corpus itself; None if a token stands for an unknown character.
    """
    if unknown(tokenizer, packed):
        return None
    ids = packed.tokens
    ends = np.flatnonzero(ids == tokenizer.eos_token_id)
    documents = [part[part != tokenizer.eos_token_id].tolist() for part in np.split(ids, ends + 1)]
    decoded = tokenizer.backend_tokenizer.decode_batch(
        [part for part in documents if part], skip_special_tokens=True
    )
    return sum(len(text.encode("utf-8", "replace")) for text in decoded)
