"""The DDiT of the published checkpoints (SEDD, MDLM, BD3-LM, HDLM) behind the denoiser protocol:
our blocks, their conditioning.

Their noise condition is σ of e^{-σ} = P(no event), not t. In every process that they are converted
to (`textdiff.convert`) e^{-σ} = 1 - t, so σ(t) = -log(1 - t), with t clipped to the range that
occurred in training. Its features are sinusoids of σ itself, 256 of them.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, silu
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers import initialization as init

from ..denoiser.cache import Cache
from ..denoiser.visibility import Visibility
from .base import DenoiserModel
from .block import Block, Condition, rotary

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
        low, high: the times t that occurred in training; others are clipped to them.
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
        mix: float = 0.0,
        score_gamma: float | None = None,
        scaled: bool = False,
        self_noise: float | None = None,
        shifted: bool = False,
        bos: int = 0,
        attention: str = "sdpa",
        **kwargs: object,
    ):
        if time not in TIMES:
            raise ValueError(f"time must be one of {', '.join(TIMES)}, got {time!r}")
        self.num_tokens, self.layers, self.width, self.heads = num_tokens, layers, width, heads
        self.condition, self.modulated_output, self.time, self.low, self.high = (
            condition,
            modulated_output,
            time,
            low,
            high,
        )
        self.mix, self.score_gamma, self.scaled, self.self_noise = (
            mix,
            score_gamma,
            scaled,
            self_noise,
        )
        self.shifted, self.bos, self.attention = shifted, bos, attention
        self.dropout, self.conditioned = (
            0.0,
            False,
        )  # what `Block` asks for; its own adaLN has another width
        super().__init__(**{"tie_word_embeddings": False, **kwargs})


class NoiseEmbedding(nn.Module):
    """σ [...] -> [..., C]: sinusoids, cosines first, then a small MLP."""

    def __init__(self, C: int):
        super().__init__()
        self.first, self.second = nn.Linear(SINUSOIDS, C), nn.Linear(C, C)

    def forward(self, sigma: Tensor) -> Tensor:
        half = SINUSOIDS // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=sigma.device) / half)
        angles = sigma.unsqueeze(-1) * frequencies
        features = torch.cat([angles.cos(), angles.sin()], -1).to(self.first.weight.dtype)
        return silu(self.second(silu(self.first(features))))


class DDiTDenoiser(DenoiserModel):
    """The denoiser (see `network.protocol`): embeddings of N + 1 ids, blocks, a final norm and a
    linear head over N tokens.
    """

    config_class = DDiTConfig
    base_model_prefix = "textdiff"
    _no_split_modules = ["Block"]  # noqa: RUF012 - transformers' own convention

    def __init__(self, config: DDiTConfig):
        super().__init__(config)
        D, C = config.width, config.condition
        self.embedding = nn.Embedding(config.num_tokens + 1, D)
        self.noise = NoiseEmbedding(C) if C else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))  # type: ignore[arg-type]
        for block in self.blocks:
            block.modulation = nn.Linear(C, 6 * D) if C else None
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
            init.zeros_(module.bias) if module.bias is not None else None
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
                    "this network was trained with one noise level per sequence and cannot see several at once: use a Flat "
                    "hyperschedule (or Block, for sampling)"
                )
            t = highest.expand_as(t)
        return -torch.log1p(-t.clamp(self.config.low, self.config.high))

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
        gamma, log_n = self.config.score_gamma, math.log(self.num_tokens)
        own = sigma.expm1().log() + log_n if self.config.scaled else torch.zeros_like(sigma)
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
        """Hidden rows of ids [B, R] in 0..N at positions [R] or [B, R] and times t [B, R]: see
        `network.protocol`.

        Raises:
            ValueError: if the times of a sequence differ and the network takes one for all.
        """
        sigma = self._sigma(t)
        x = self._embed(ids, sigma)
        cos, sin = rotary(positions, self.config.width // self.config.heads, x.dtype)
        c = None
        if self.noise is not None:
            levels, place = sigma.unique(return_inverse=True)
            c = Condition(self.noise(levels), place)
        skip = visibility.context if visibility.context < ids.shape[-1] else 0
        for layer, block in enumerate(self.blocks):
            extend = None if cache is None else partial(cache.extend, layer)
            x = block(
                x, c, cos, sin, visibility, skip if layer == len(self.blocks) - 1 else 0, extend
            )
        x = self.norm(x)  # context rows ended as keys and values
        if self.modulation is not None and c is not None:
            shift, scale = embedding(c.place[:, skip:], self.modulation(c.table)).chunk(2, -1)
            x = x * (1 + scale) + shift
        if self.config.score_gamma is None:
            return x
        return torch.cat([x, self._level(ids, sigma)[:, skip:, None].to(x.dtype)], -1)

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight [N, D] and bias [N] of the head."""
        return self.output.weight, self.output.bias

    def forward(self, input_ids: Tensor, t: Tensor | None = None) -> Tensor:
        """Raw outputs [B, R, N] of a whole sequence under full attention, for a quick look."""
        t = torch.zeros_like(input_ids, dtype=torch.float64) if t is None else t
        positions = torch.arange(input_ids.shape[-1], device=input_ids.device)
        return linear(self.body(input_ids, positions, t, Visibility()), *self.head_parameters())


AutoConfig.register(
    DDiTConfig.model_type, DDiTConfig
)  # so that hub and AutoTokenizer know a model folder
AutoModel.register(DDiTConfig, DDiTDenoiser)
