"""Opening a pretrained causal language model that a denoiser is made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ..files import reason
from .families import FAMILIES, check_family

FORGOTTEN = (
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
)
"""Entries of the base's config that say where it came from, or name classes."""


def open_base(source: str, num_tokens: int) -> PreTrainedModel:
    """A base with a row for each of its tokens: rows that stand for none are left out.

    Raises:
        ValueError: if it cannot be loaded, is of another family, or has not num_tokens tokens.
    """
    base = _loaded(source)
    rows = base.config.vocab_size
    if rows > num_tokens and _tokens_of(source) == num_tokens:  # padded
        base.resize_token_embeddings(num_tokens)
    elif rows < num_tokens and _tokens_of(source) == num_tokens:
        raise ValueError(
            f"{source!r} has {rows} rows of embeddings, fewer than the {num_tokens} "
            "tokens of its tokenizer: give it more (in transformers, "
            "model.resize_token_embeddings(len(tokenizer))), save it and name that folder"
        )
    elif rows != num_tokens:
        raise ValueError(
            f"{source!r} has {rows} tokens, the data's tokenizer {num_tokens}: use the "
            "base's own, --data.tokenizer textdiff.data.PretrainedTokenizer "
            f"--data.tokenizer.name_or_path {source}"
        )
    return base


def _loaded(source: str) -> PreTrainedModel:
    """The base in float32, with every weight in its place."""
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        check_family(config)
        config._attn_implementation = None  # it may name a kernel on the Hub
        opened: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        families = ", ".join(FAMILIES)
        remedy = f"give the id of a base of these families ({families}), or a local folder"
        if Path(source).is_dir():
            remedy = f"the folder must hold the config.json and weights of one of {families}"
        raise ValueError(f"{source!r} cannot be loaded ({reason(error)}): {remedy}") from None
    base, loading = opened
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ValueError(f"{source!r} lacks weights ({missing}): copy it again")
    return base


def _tokens_of(source: str) -> int | None:
    """N of a base's own tokenizer, if it has one."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError):
        return None
    return 1 + max(tokenizer.get_vocab().values())


def plain_config(base: PreTrainedModel) -> dict[str, Any]:
    """The config of a base as plain values, with all tokens that end its texts."""
    plain = {name: value for name, value in base.config.to_dict().items() if name not in FORGOTTEN}
    ends = getattr(base.generation_config, "eos_token_id", None)
    if ends is not None:
        plain["eos_token_id"] = ends
    pad = plain.get("pad_token_id")
    return plain | (
        {"pad_token_id": None} if pad is not None and pad >= plain["vocab_size"] else {}
    )
