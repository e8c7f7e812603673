"""The attention call that obeys a visibility."""

from __future__ import annotations

from torch import Tensor

from ..denoiser.visibility import Visibility
from .kernels import BACKENDS


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visibility: Visibility,
    dropout: float = 0.0,
    backend: str = "sdpa",
) -> list[Tensor]:
    """Attention of q [B, H, Q, D/H] to k, v [B, H, P + R, D/H] -> [B, H, Q, D/H], in one or two
    parts of the rows.

    Q = R, or Q = R - C: then only the window rows ask. Keys stand in the order

        before (P)   context (C)   window (R - C)
        |------------|-------------|--------------|
        context rows see these two      (one call)
        window rows see all three       (the other)
    """
    kernel = BACKENDS[backend]
    P = visibility.before
    C = visibility.context
    Q = q.shape[2]
    R = k.shape[2] - P
    parts = []
    if C and Q == R:
        among = visibility.among
        keys = k[:, :, : P + C]
        values = v[:, :, : P + C]
        causal = among is None and C > 1
        parts.append(kernel(q[:, :, :C], keys, values, among, causal=causal, dropout=dropout))
    if R > C:
        rows = q[:, :, Q - R + C :]
        parts.append(kernel(rows, k, v, visibility.window, causal=False, dropout=dropout))
    return parts
