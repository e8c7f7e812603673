"""The attention call that obeys a visibility."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
    if visibility.own:
        return [_each_its_own(q, k, v, visibility, partial(kernel, causal=False, dropout=dropout))]
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


def _each_its_own(
    q: Tensor, k: Tensor, v: Tensor, visibility: Visibility, kernel: Callable[..., Tensor]
) -> Tensor:
    """Attention of q [B, H, Q, D/H], each sequence to its own keys of k, v [places, H, capacity,
    D/H]; rows that pad get zeros.
    """
    out = q.new_zeros(q.shape)
    widest = max(one.window for one in visibility.own)
    C = q.shape[2] - widest  # 0 where only the window rows ask
    for b, one in enumerate(visibility.own):
        keys = k[one.place, None], v[one.place, None]
        known = one.stored + one.context
        if one.context and C:
            rows = q[b, None, :, : one.context]
            seen = (x[:, :, :known] for x in keys)
            out[b, :, : one.context] = kernel(rows, *seen, one.among)[0]
        if one.window:
            rows = q[b, None, :, C : C + one.window]
            seen = (x[:, :, : known + one.window] for x in keys)
            out[b, :, C : C + one.window] = kernel(rows, *seen, one.seen)[0]
    return out
