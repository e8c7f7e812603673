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
    """Attention of q [B, H, Q, D/H] to k, v [B, H, P + R, D/H] under `visibility` -> [B, H, Q,
    D/H], in one or two parts of the rows.

    Q = R, or Q = R - C: then only the window rows ask.
    """
    kernel, C, Q = BACKENDS[backend], visibility.context, q.shape[2]
    P = visibility.before
    R = k.shape[2] - P
    parts = []
    if C and Q == R:
        among, seen = visibility.among, slice(P + C)
        parts.append(
            kernel(
                q[:, :, :C], k[:, :, seen], v[:, :, seen], among, among is None and C > 1, dropout
            )
        )
    if R > C:
        parts.append(kernel(q[:, :, Q - R + C :], k, v, visibility.window, False, dropout))
    return parts
