"""The field's checkpoints as models of ours: one file for each family, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from ..data.tokenizers import PretrainedTokenizer
from ..files import sha256
from ..model.folder import TOKENIZER
from ..model.model import Model
from . import bd3lm, hdlm, mdlm, sedd
from .checkpoint import Checkpoint, open_checkpoint

FAMILIES: dict[str, Callable[[Checkpoint, PreTrainedTokenizerFast], Model]] = {
    "hdlm": hdlm.convert,
    "mdlm": mdlm.convert,
    "sedd": sedd.convert,
    "bd3lm": bd3lm.convert,
}


def _tokenizer(checkpoint: Checkpoint, name: str | None) -> PreTrainedTokenizerFast:
    beside = checkpoint.path.parent
    if name is None:
        name = checkpoint.get("tokenizer.model", "data.tokenizer_name_or_path", default="gpt2")
        if (beside / TOKENIZER).is_file():
            name = str(beside)
    before = logging.get_verbosity()
    # transformers warns of the authors' config.json, which is none of its own
    logging.set_verbosity_error()
    try:
        return PretrainedTokenizer(name).load()
    finally:
        logging.set_verbosity(before)


def convert(
    family: str, source: str | Path, tokenizer: str | None = None, config: str | Path | None = None
) -> Model:
    """A published checkpoint as a `Model`; its `data` says where it comes from and, as `notes`,
    which bound applies.

    Args:
        family: one of `FAMILIES`.
        source: weights file or folder, see `checkpoint.open_checkpoint`.
        tokenizer: folder or id; default: the one in the source's folder, else the one that the
            configuration names, else gpt2.
        config: the authors' configuration file; default: the one beside the weights.

    Raises:
        ValueError: if the family is unknown, or a file is missing, broken, unsafe, or of another
            kind.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: choose one of {', '.join(FAMILIES)}")
    checkpoint = open_checkpoint(Path(source), None if config is None else Path(config))
    model = FAMILIES[family](checkpoint, _tokenizer(checkpoint, tokenizer))
    origin = {"family": family, "file": checkpoint.path.name, "sha256": sha256(checkpoint.path)}
    origin["weights"] = "moving average (EMA)" if checkpoint.averaged else "as published"
    return replace(model, data={"converted": origin, **model.data})
