"""How many bytes of text a number is about, for bits per byte."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerFast

from ..data.packing import Packed


def text_bytes(tokenizer: PreTrainedTokenizerFast, packed: Packed) -> int:
    """UTF-8 bytes of the text that the scored tokens stand for: decoded document by document; EOS and filler have none.

    Where the tokenizer gives any text back exactly (byte-level BPE) these are the bytes of the corpus itself.
    """
    ids = packed.ids.reshape(-1) if packed.valid is None else packed.ids[packed.valid]
    ends = np.flatnonzero(ids == tokenizer.eos_token_id)
    documents = [part[part != tokenizer.eos_token_id].tolist() for part in np.split(ids, ends + 1)]
    decoded = tokenizer.backend_tokenizer.decode_batch([part for part in documents if part], skip_special_tokens=True)
    return sum(len(text.encode("utf-8", "replace")) for text in decoded)
