"""What a network's logits mean, and the exact way from one meaning to another (`maths.md` 2.2).

Our networks output *cavity* logits: log p(x^i | z without z^i) up to a constant, over the N
ordinary tokens. The *posterior* p(x^i | z) differs at the own token z of a visible position only,
by log(1 + κN/(1-κ)) (2.3); at κ = 1 a visible token is its own posterior. A network of *log-scores*
log p_t(y)/p_t(z) cannot be converted.
"""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from torch import Tensor


class Prediction(StrEnum):
    """The types of prediction."""

    CAVITY = "cavity"
    LOG_SCORE = "log_score"


def require(prediction: Prediction, needed: Prediction, user: object) -> None:
    """Raise a ValueError unless `user` (a sampler, an objective) takes this type of prediction."""
    if prediction != needed:
        raise ValueError(
            f"{user} needs a network that predicts {needed.value!r}, but this one predicts "
            f"{prediction.value!r}"
        )


def own_token_shift(epsilon: float, N: int) -> float:
    """log(1 + (1-ε)N/ε), the shift at the own token for the self-noise ε; ε = 1/2 gives log(1 + N)
    (4.3).
    """
    if not 0 < epsilon < 1:
        raise ValueError(
            f"the self-noise must lie in (0, 1), got {epsilon!r}: at 0 the posterior is the token "
            "itself"
        )
    return math.log1p((1 - epsilon) * N / epsilon)


def add_at_own(logits: Tensor, z: Tensor, shift: float | Tensor) -> Tensor:
    """Add `shift` to the logit of the own token at visible positions; logits [..., N], z [...] (N =
    MASK).
    """
    N = logits.shape[-1]
    if not isinstance(shift, Tensor):
        shift = torch.full((), shift, device=z.device, dtype=logits.dtype)  # made there: no wait
    amount = torch.where(z < N, shift, torch.zeros_like(shift)).to(logits.dtype)
    return logits.scatter_add(-1, z.clamp(max=N - 1).unsqueeze(-1), amount.unsqueeze(-1))


def posterior_logits(logits: Tensor, z: Tensor, log_keep: Tensor, log_corrupt: Tensor) -> Tensor:
    """Cavity logits -> logits of P(x | z) for a process with this κ at z's level (2.3); at κ = 1
    the own token, for certain.

    logits [..., N]; z, log κ and log(1-κ) [...].
    """
    N = logits.shape[-1]
    shift = torch.logaddexp(torch.zeros_like(log_keep), log_keep + math.log(N) - log_corrupt)
    return add_at_own(
        logits.double(), z, shift.clamp(max=1e6)
    )  # infinite at κ = 1, but a softmax wants it finite


def cavity_logits(logits: Tensor, z: Tensor, epsilon: float) -> Tensor:
    """Logits of the posterior for self-noise ε (an imported checkpoint's) -> cavity logits, the
    inverse of (2.3).
    """
    return add_at_own(logits, z, -own_token_shift(epsilon, logits.shape[-1]))


def log_score(raw: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """A network's raw outputs -> log-scores log p_t(y)/p_t(z) over the N ordinary tokens
    (`maths.md` 2.5).

    Adds the level's scale, log((1-m)/m) - log N at MASK and 0 at visible tokens, and fixes the
    self-score to 1. raw [..., N]; z, m [...].
    """
    N = raw.shape[-1]
    scale = (torch.log1p(-mask) - mask.clamp_min(1e-30).log() - math.log(N)).clamp(-80.0, 80.0)
    scaled = raw + torch.where(z < N, torch.zeros_like(scale), scale).to(raw.dtype).unsqueeze(-1)
    own = torch.zeros_like(raw, dtype=torch.bool).scatter_(
        -1, z.clamp(max=N - 1).unsqueeze(-1), True
    )
    return scaled.masked_fill(own & (z < N).unsqueeze(-1), 0.0)
