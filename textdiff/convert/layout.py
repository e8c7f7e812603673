"""Published DDiT names and vocabularies -> ours, the same for every family: these checkpoints
differ in what is absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..network.ddit import DDiTConfig, DDiTDenoiser
from .checkpoint import BUFFERS, Checkpoint

LAST = -1  # MASK is the last row
NEVER = -1e6  # the logit of a column that never occurs, as in MDLM's own code

NAMES = (
    (r"vocab_embed\.embedding", "embedding.weight"),
    (r"sigma_map\.mlp\.0\.", "noise.first."),
    (r"sigma_map\.mlp\.2\.", "noise.second."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.norm_attention."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.norm_mlp."),
    (r"(blocks\.\d+)\.attn_qkv\.", r"\1.qkv."),
    (r"(blocks\.\d+)\.attn_out\.", r"\1.out."),
    (r"(blocks\.\d+)\.mlp\.0\.", r"\1.up."),
    (r"(blocks\.\d+)\.mlp\.2\.", r"\1.down."),
    (r"(blocks\.\d+)\.adaLN_modulation\.", r"\1.modulation."),
    (r"output_layer\.norm_final\.", "norm."),
    (r"output_layer\.linear\.", "output."),
    (r"output_layer\.adaLN_modulation\.", "modulation."),
)
"""Published name -> that of a `DDiTDenoiser`, as (pattern of the beginning, replacement)."""


@dataclass(frozen=True)
class Vocabulary:
    """N = `tokens` ordinary tokens, and the row of MASK in the published embedding (None: the
    network has none).
    """

    tokens: int
    mask: int | None

    def embedding(self, rows: Tensor) -> Tensor:
        """[V, D] -> [N + 1, D], MASK last; what pads the vocabulary is left out."""
        mask = torch.zeros_like(rows[:1]) if self.mask is None else rows[self.mask : self.mask + 1]
        return torch.cat([rows[: self.tokens], mask])

    def head(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """[V, D] and [V] -> [N, D] and [N]; a MASK among the ordinary ids keeps its column, which
        never occurs.
        """
        weight = weight[: self.tokens].clone()
        bias = bias[: self.tokens].clone()
        if self.mask is not None and self.mask < self.tokens:
            weight[self.mask] = 0.0
            bias[self.mask] = NEVER
        return weight, bias


def _rows(checkpoint: Checkpoint) -> int:
    """V, the rows of embedding and head; a ValueError if one is not there or they differ."""
    ends = {
        "vocab_embed.embedding": 2,
        "output_layer.linear.weight": 2,
        "output_layer.linear.bias": 1,
    }
    lacking = [
        name
        for name, dim in ends.items()
        if name not in checkpoint.state or checkpoint.state[name].dim() != dim
    ]
    if lacking:
        raise ValueError(
            f"the checkpoint lacks {', '.join(lacking)}: it is no DDiT, or only a part of one"
        )
    rows = {len(checkpoint.state[name]) for name in ends}
    if len(rows) > 1:
        raise ValueError(
            f"embedding and head of the checkpoint have different numbers of rows: {sorted(rows)}"
        )
    return rows.pop()


def vocabulary(
    checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerFast, mask: int | None
) -> Vocabulary:
    """The tokenizer's tokens and MASK at row `mask` (LAST: the last one; None: there is none).

    Raises:
        ValueError: if the tokenizer and the published vocabulary do not fit.
    """
    N = len(tokenizer)
    rows = _rows(checkpoint)
    if mask == LAST:
        mask = rows - 1
    least = N
    if mask is not None and mask != tokenizer.mask_token_id:
        least = max(N + 1, mask + 1)
    if rows < least:
        raise ValueError(
            f"the checkpoint has {rows} embeddings but its tokenizer's {N} tokens and MASK need "
            f"{least}: give the tokenizer that it was trained with as --tokenizer"
        )
    return Vocabulary(N, mask)


def padding_note(checkpoint: Checkpoint, vocab: Vocabulary) -> list[str]:
    """What became of published rows that are neither tokens nor MASK."""
    behind = vocab.mask is not None and vocab.mask >= vocab.tokens
    left_out = _rows(checkpoint) - vocab.tokens - behind
    if not left_out:
        return []
    return [
        f"{left_out} rows that pad the vocabulary are left out; probabilities are those given the "
        "real tokens."
    ]


def _rename(name: str) -> str:
    for pattern, ours in NAMES:
        renamed, matches = re.subn(f"^{pattern}", ours, name)
        if matches:
            return renamed
    raise ValueError(
        f"the checkpoint holds the unknown weight {name!r}: it is of another architecture than "
        "this family's DDiT"
    )


def _heads(checkpoint: Checkpoint, width: int) -> int:
    """H from the rotary frequencies, of which there are D / 2H, or from the configuration; both
    must agree.
    """
    said = checkpoint.get("model.n_heads", "n_heads")
    frequencies = checkpoint.state.get("rotary_emb.inv_freq")
    if frequencies is None and said is None:
        raise ValueError(
            "neither the weights nor the configuration say how many heads there are: add n_heads "
            "to a --config file"
        )
    heads = int(said) if frequencies is None else width // (2 * len(frequencies))
    if width % (2 * heads) or (said is not None and int(said) != heads):
        raise ValueError(
            f"the configuration says n_heads = {said}, the weights of width {width} say {heads}: "
            "another checkpoint's?"
        )
    if frequencies is not None and not frequencies.is_meta:
        size = 2 * len(frequencies)
        usual = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
        if not torch.allclose(frequencies.float(), usual, rtol=1e-2):  # half precision rounds them
            raise ValueError(
                "the rotary frequencies of the checkpoint are not those of base 10,000: it is of "
                "another architecture"
            )
    return heads


def _shape(state: dict[str, Tensor]) -> dict[str, Any]:
    """Layers, D and C as the weights have them."""
    layers = {name.split(".")[1] for name in state if re.match(r"blocks\.\d+\.", name)}
    modulation = state.get("blocks.0.adaLN_modulation.weight")
    return {
        "layers": 1 + max(map(int, layers), default=-1),
        "width": state["vocab_embed.embedding"].shape[1],
        "condition": 0 if modulation is None else modulation.shape[1],
        "modulated_output": "output_layer.adaLN_modulation.weight" in state,
    }


def network(checkpoint: Checkpoint, vocab: Vocabulary, bos: int, **options: Any) -> DDiTDenoiser:
    """The checkpoint as a `DDiTDenoiser`: every weight used, none missing, each of the shape that
    the others imply.

    Args:
        checkpoint: weights and configuration.
        vocab: its vocabulary.
        bos: the id in front in the shifted layout.
        options: how the family conditions and reads it; fields of `DDiTConfig`.

    Raises:
        ValueError: if a weight is missing, unknown, or of another shape.
    """
    shape = _shape(checkpoint.state)
    unused: tuple[str, ...] = BUFFERS
    if not shape["condition"]:
        unused = (*BUFFERS, "sigma_map.")  # a noise embedding that no block takes
    state = {
        _rename(name): value
        for name, value in checkpoint.state.items()
        if not name.startswith(unused)
    }
    if options["time"] != "none" and not (shape["condition"] or options.get("mix")):
        raise ValueError(
            "the configuration says that the network sees the noise level, but the weights hold no "
            "adaLN: another's?"
        )
    config = DDiTConfig(
        num_tokens=vocab.tokens,
        heads=_heads(checkpoint, shape["width"]),
        bos=bos,
        **shape,
        **options,
    )
    state["embedding.weight"] = vocab.embedding(state["embedding.weight"])
    weight, state["output.bias"] = vocab.head(state["output.weight"], state["output.bias"])
    if config.score_gamma is not None:
        weight = torch.cat([weight, torch.ones_like(weight[:, :1])], 1)  # the column of the level
    state["output.weight"] = weight
    with torch.device("meta"):
        denoiser = DDiTDenoiser(config)
    try:
        denoiser.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {checkpoint.path} do not make one DDiT: {error}"
        ) from None
    return denoiser.eval()
