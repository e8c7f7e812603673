"""BD3-LM (Arriola et al.): MDLM's network over blocks, each seeing the settled blocks before it,
block-causal among themselves.

The repository kuleshov-group/bd3lms is not in our archive; layout and arithmetic are from a public
copy of it by one of the authors, zhihanyang2022/bd3lms: models/dit.py at 1f396ca (names, masks:
block diagonal, offset block-causal, block-causal), diffusion.py at 03fa2b5 (subs,
time_conditioning, ignore_bos, clipped noise levels), models/hf/configuration_bd3lm.py at 8dcfd6a
and push_to_hf.py at 6f64367 (folders hold averaged weights and the buffers sampling_eps_min/max),
configs/algo/bd3lm.yaml at df505ad; config.json and file sizes of
kuleshov-group/bd3lm-owt-block_size{4,8,16} on the Hub. Unverified here: kuleshov-group/bd3lms
itself and the weights.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from ..hyperschedule import Block, Flat, Hyperschedule
from ..model.model import Model
from .checkpoint import Checkpoint
from .mdlm import subs
from .sedd import STEPS


def convert(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerFast) -> Model:
    """BD3-LM of any block size.

    Raises:
        ValueError: if the configuration names no block size, is of another parameterisation, or
            conditions blocks on time.
    """
    kind = checkpoint.get("algo.parameterization", "parameterization", default="subs")
    streams = checkpoint.get("cross_attn", "algo.cross_attn", default=True)
    if kind != "subs" or checkpoint.get("causal", "algo.causal_attention", default=False):
        raise ValueError(
            "only bidirectional BD3-LMs with the subs parameterisation can be converted, got "
            f"{kind!r}: is this another model?"
        )
    width = int(checkpoint.number("block_size"))
    schedule: Hyperschedule = Flat(STEPS)
    if width < checkpoint.length:
        if not streams:
            raise ValueError(
                "blocks without cross_attn saw noisy ones before them: that is no model of text "
                "block by block"
            )
        if checkpoint.get("time_conditioning", "algo.time_conditioning", default=False):
            raise ValueError(
                "a block network that sees the mean noise level of all blocks has no law of its "
                "own for one block"
            )
        schedule = Block(width, width, block_causal=True)
    notes = [
        "Trained on the continuous NELBO of every block with its noise levels clipped to an "
        "interval (var_min): that loss is biased. The bound that applies is the NELBO over all "
        "levels; it falls with the levels of Block(width, levels, True).",
        "Trained with the first token given (<|endoftext|>, ignore_bos): a bound over a whole "
        "sequence scores a token that it never learnt, and samples should start from a prompt of "
        "it.",
    ]
    return subs(checkpoint, tokenizer, schedule, notes)
