"""The DDiT of the published checkpoints (SEDD, MDLM, BD3-LM, HDLM) behind the denoiser protocol:
our blocks, their conditioning.

Their noise condition is σ of e^{-σ} = P(no event), not t. In every process that they are converted
to (`textdiff.convert`) e^{-σ} = 1 - (1-tail) t, so σ(t) = -log(1 - (1-tail) t), clipped to the
range that occurred in training. Its features are sinusoids of σ itself, 256 of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers import initialization as init

from ..denoiser.cache import Cache
from ..denoiser.visibility import Visibility
from .base import DenoiserModel
from .block import Block, Condition, at
from .embeddings import SinusoidEmbedding
from .stack import Stack, context_without_output

SINUSOIDS = 256  # features of σ
TIMES = ("none", "sequence", "token")


class DDiTConfig(PreTrainedConfig):
    """Shape and conditioning of a `DDiTDenoiser`; `num_tokens` is N, MASK is id N.

    Args:
        num_tokens, layers, width, heads: N, number of blocks, D, H.
        condition: C, the width of the noise condition; 0 for a network without adaLN.
        modulated_output: whether the last norm has shift and scale, too.
        time: what the condition sees: "none" (σ = 0), one time per "sequence", or that of each
            "token".
        tail: of the process, see `GammaHybrid`.
        low, high: the least and the greatest 1 - e^{-σ} = (1-tail) t of training; others are
            clipped to them.
        mix: γ of an embedding e^{-γσ} E[z] + (1 - e^{-γσ}) E[MASK]; 0 for E[z].
        score_gamma: for log-scores whose level is not that of `prediction.log_score`: γ of the
            process, else None.
        scaled: whether log(e^σ - 1) + log N is taken off those log-scores (`scale_by_sigma`).
        self_noise: logits are those of the posterior for this self-noise; None for cavity logits
            and log-scores.
        shifted, bos, attention: as in `TransformerConfig`.
    """

    model_type = "textdiff_ddit"

    def __init__(
        self,
        num_tokens: int = 256,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        condition: int = 128,
        modulated_output: bool = True,
        time: str = "none",
        low: float = 0.0,
        high: float = 0.999,
        tail: float = 0.0,
        mix: float = 0.0,
        score_gamma: float | None = None,
        scaled: bool = False,
        self_noise: float | None = None,
        shifted: bool = False,
        bos: int = 0,
        attention: str = "sdpa",
        **kwargs: Any,
    ):
        if time not in TIMES:
            raise ValueError(f"time must be one of {', '.join(TIMES)}, got {time!r}")
        self.num_tokens = num_tokens
        self.layers = layers
        self.width = width
        self.heads = heads
        self.condition = condition
        self.modulated_output = modulated_output
        self.time = time
        self.low = low
        self.high = high
        self.tail = tail
        self.mix = mix
        self.score_gamma = score_gamma
        self.scaled = scaled
        self.self_noise = self_noise
        self.shifted = shifted
        self.bos = bos
        self.attention = attention
        self.dropout = 0.0  # a block asks for these two; adaLN has a width of its own here
        self.conditioned = False
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


class DDiTDenoiser(DenoiserModel):
    """The published DDiT as a denoiser: embeddings of N + 1 ids, blocks, a final norm and a linear
    head over N tokens.
    """

    config_class = DDiTConfig
    base_model_prefix = "textdiff"
    _no_split_modules = ["Block"]  # noqa: RUF012 - transformers' own convention

    def __init__(self, config: DDiTConfig):
        super().__init__(config)
        D = config.width
        C = config.condition
        self.embedding = nn.Embedding(config.num_tokens + 1, D)
        self.noise = SinusoidEmbedding(SINUSOIDS, C) if C else None
        blocks = [Block(config) for _ in range(config.layers)]
        for block in blocks:
            block.modulation = nn.Linear(C, 6 * D) if C else None
        self.blocks = Stack(blocks, head_size=D // config.heads)
        self.norm = nn.LayerNorm(D, bias=False)
        self.modulation = nn.Linear(C, 2 * D) if C and config.modulated_output else None
        # With a level of its own each hidden row ends in that level, for which the head's last
        # column is 1.
        self.output = nn.Linear(D + (config.score_gamma is not None), config.num_tokens)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's scale and a head of 0: these networks are loaded, not trained from here."""
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.0 if module is self.output else 0.02)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
        if module is self.output:
            init.ones_(module.weight[:, self.config.width :])

    @property
    def sees_time(self) -> bool:
        """Whether the network looks at t."""
        return self.config.time != "none"

    @property
    def cacheable(self) -> bool:
        """Whether a settled row's keys and values stay as they are: not if the time of others
        conditions it (`maths.md` 6, C4).
        """
        return self.config.time != "sequence"

    @property
    def causal(self) -> bool:
        """Never: a shifted DDiT, too, was trained under full attention."""
        return False

    @property
    def self_noise(self) -> float | None:
        """The self-noise for which the logits are a posterior's (4.2), or None."""
        return self.config.self_noise

    def get_input_embeddings(self) -> nn.Module:
        """The embedding, for transformers' tools."""
        return self.embedding

    def _sigma(self, t: Tensor) -> Tensor:
        """σ of each row, [B or 1, R]; with one time per sequence, rows at t = 0 are given tokens
        and take that of the others.
        """
        if self.config.time == "none":
            return torch.zeros_like(t[:1])
        if self.config.time == "sequence":
            highest = t.amax(-1, keepdim=True)
            if bool(((t > 0) & (t < highest)).any()):
                raise ValueError(
                    "this network was trained with one noise level per sequence and cannot see "
                    "several at once: use a Flat hyperschedule (or Block, for sampling)"
                )
            t = highest.expand_as(t)
        lost = (1 - self.config.tail) * t
        return -torch.log1p(-lost.clamp(self.config.low, self.config.high))

    def _embed(self, ids: Tensor, sigma: Tensor) -> Tensor:
        x = self.embedding(ids)
        if not self.config.mix:
            return x
        kept = torch.exp(-self.config.mix * sigma).unsqueeze(-1).to(x.dtype)
        return kept * x + (1 - kept) * self.embedding.weight[self.num_tokens]

    def _level(self, ids: Tensor, sigma: Tensor) -> Tensor:
        """The level [B, R] of the published log-scores, less that which `prediction.log_score` adds
        at MASK.
        """
        gamma = self.config.score_gamma
        log_n = math.log(self.num_tokens)
        own = torch.zeros_like(sigma)
        if self.config.scaled:
            own = sigma.expm1().log() + log_n
        added = ((1 - gamma) * sigma).expm1().log() + log_n
        return torch.where(ids == self.num_tokens, added, 0.0) - own

    def body(
        self,
        ids: Tensor,
        positions: Tensor,
        t: Tensor,
        visibility: Visibility,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden rows: see `denoiser.Denoiser`.

        Raises:
            ValueError: if the times of a sequence differ and the network takes one for all.
        """
        sigma = self._sigma(t)
        condition = None if self.noise is None else Condition.of(self.noise, sigma)
        x = self._embed(ids, sigma)
        x = self.norm(self.blocks(x, positions, condition, visibility, cache=cache))
        skip = context_without_output(visibility, ids.shape[1])
        if self.modulation is not None and condition is not None:
            modulations = self.modulation(condition.table)
            shift, scale = at(condition.place[:, skip:], modulations).chunk(2, -1)
            x = x * (1 + scale) + shift
        if self.config.score_gamma is None:
            return x
        level = self._level(ids, sigma)[:, skip:, None]
        return torch.cat([x, level.to(x.dtype)], -1)

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight [N, D] and bias [N] of the head."""
        return self.output.weight, self.output.bias


# so that the Hub and AutoTokenizer know a model folder
AutoConfig.register(DDiTConfig.model_type, DDiTConfig)
AutoModel.register(DDiTConfig, DDiTDenoiser)
