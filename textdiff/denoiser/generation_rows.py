"""What one network call is fed in generation: the newly settled rows and the window, in both
layouts (`call.py` says which row is what).

A settled row's keys and values are computed once, in the first call after it has settled, from its
clean id under the context rule, and cached. That is exact iff no settled row ever sees one that
settles later (`maths.md` 6); `check_cache` refuses the rest. In the shifted layout the first row of
a window holds the last settled token, sees active rows, and is therefore made anew in every call.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..hyperschedule import Hyperschedule
from .cache import Cache
from .call import Call, check_layout
from .protocol import Denoiser
from .visibility import Visibility


def check_cache(network: Denoiser, schedule: Hyperschedule, L: int) -> None:
    """Raise a ValueError, with the reason, unless cached keys and values are those of a full
    recomputation.
    """
    if not network.cacheable:
        raise ValueError(
            "this network conditions all rows on one time, so the keys of settled rows change in every call and cannot be cached: "
            "pass use_cache=False, or --no-cache"
        )
    if not schedule.plan(L).exact:
        raise ValueError(
            f"under {schedule} settled rows see rows that settle later, so their keys change and cannot be cached: pass use_cache=False"
        )


def _rows(
    network: Denoiser, z: Tensor, t: Tensor, position: Tensor, trailing: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, times and positions of the rows of some tokens; shifted, row r holds token r-1, and one
    more holds the last token.
    """
    if not network.shifted:
        return z[:, position], t[:, position], position
    if trailing:
        position = torch.cat([position, position[-1:] + 1])
    held = pad(z, (1, 0), value=network.bos)[:, position]
    return held, pad(t, (1, 0))[:, position], position


def _sight(
    call_rows: Tensor, t: Tensor, reached: int, end: Tensor | None, shifted: bool, context: int
) -> Tensor:
    """Which rows window rows see, [B, W, context + W]: those before the end of their sequence [B],
    and themselves.

    Shifted, the row behind the last token is seen while that token is below full noise.
    """
    B, W = t.shape
    end = torch.full((B,), reached, device=t.device) if end is None else end.clamp(max=reached)
    seen = call_rows < end[:, None]
    if shifted:
        seen = seen | ((call_rows == end[:, None]) & (t < 1))
    itself = torch.eye(W, dtype=torch.bool, device=t.device)
    return pad(seen[:, None, :] | itself, (context, 0), value=True)


def generation_call(
    network: Denoiser,
    schedule: Hyperschedule,
    k: int,
    z: Tensor,
    t: Tensor,
    *,
    cache: Cache | None = None,
    end: Tensor | None = None,
    once: bool = True,
) -> tuple[Call, Tensor]:
    """Call k of sequences z, t [B, L]: the settled rows that are not in the cache and the window;
    worthless rows are not fed.

    Args:
        network: the denoiser.
        schedule: the hyperschedule.
        k: the call.
        z: tokens [B, L] in 0..N.
        t: times [B, L].
        cache: keys and values of rows settled earlier, or None to feed all.
        end: [B] lengths of the sequences where they differ: what lies behind is never seen.
        once: whether this is the window's only call at k, so that a token drawn alone at T = 1 is
            at full noise.

    Replans:
        The call, and the positions [W] of the tokens that it predicts.
    """
    check_layout(network, schedule, z.shape[-1])
    plan = schedule.plan(z.shape[-1], z.device)
    stored = cache.length if cache is not None else 0
    settled, reached = plan.settled(k), plan.reached(k)
    new, active = settled - stored, plan.position[settled:reached]
    one = once and plan.T == 1 and len(active) == 1
    ids, times, positions = _rows(network, z, t, plan.position[stored:reached], trailing=not one)
    among = window = None
    if not plan.causal or (stored and new > 1):
        among = (plan.rank[:settled] <= plan.rank[stored:settled, None])[None]
    touched = (
        network.shifted and not one and plan.starts[reached - 1] == k
    )  # the last token may be at full noise
    if end is not None or touched:
        window = _sight(positions[new:], times[:, new:], reached, end, network.shifted, settled)
    # GPT: the row of the one token that is drawn sees settled rows and itself, as it will when it
    # has settled.
    kept = new + 1 if network.shifted and one else new
    return Call(
        ids, positions, times, Visibility(new, among, window, stored), len(active), kept
    ), active
