"""What one network call is fed in generation: the newly settled rows and the window.

    rank        0 ... stored | ... settled | ... reached | ...
                in the cache | new         | window      | not fed

(`call.py` draws the rows of both layouts.) A settled row's keys and values are computed once, in
the first call after it has settled, from its clean id under the context rule, and cached. That is
exact iff no settled row ever sees one that settles later (`maths.md` 6); `check_cache` refuses the
rest. In the shifted layout the boundary sees active rows, and is therefore computed again in every
call of its window.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..hyperschedule import Hyperschedule, Plan
from .cache import Cache
from .call import Call, check_documents, check_layout
from .protocol import Denoiser
from .visibility import Visibility, ended_before


def check_cache(network: Denoiser, schedule: Hyperschedule, L: int) -> None:
    """Raise a ValueError unless cached keys and values are those of a full recomputation."""
    if not network.cacheable:
        raise ValueError(
            "this network conditions all rows on one time, so the keys of settled rows change in "
            "every call and cannot be cached: pass use_cache=False, or --no-cache"
        )
    if not schedule.plan(L).exact:
        raise ValueError(
            f"under {schedule} settled rows see rows that settle later, so their keys change and "
            "cannot be cached: pass use_cache=False"
        )


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
    eos: int | None = None,
) -> tuple[Call, Tensor]:
    """Call k: the settled rows that are not in the cache, and the window.

    Args:
        network: the denoiser.
        schedule: the hyperschedule.
        k: the call.
        z: tokens [B, L] in 0..N.
        t: times [B, L] in [0, 1].
        cache: keys and values of rows settled earlier, or None to feed all.
        end: [B] lengths of the sequences where they differ: what lies behind is never seen.
        once: whether this is the window's only call at k, so that a token drawn alone at T = 1 is
            at full noise.
        eos: the token behind which a document ends, if of what has settled only the last document
            is seen (`maths.md` 10.2); None: all of it is.

    Returns:
        The call, and the positions [W] of the tokens that it predicts.

    Raises:
        ValueError: if the network's layout cannot follow the schedule, or `eos` is there and what
            has settled is no prefix.
    """
    L = z.shape[-1]
    check_layout(network, schedule, L)
    plan = schedule.plan(L, z.device)
    stored = 0 if cache is None else cache.length
    settled = plan.settled(k)
    reached = plan.reached(k)
    new = settled - stored
    alone = once and plan.T == 1 and reached - settled == 1  # one token, drawn from full noise
    trailing = network.shifted and not alone
    fed = plan.position[stored:reached]
    if network.shifted:
        ids, times, positions = _shifted_rows(z, t, fed, bos=network.bos, trailing=trailing)
    else:
        ids, times, positions = z[:, fed], t[:, fed], fed
    window = None
    if end is not None or (trailing and plan.starts[reached - 1] == k):
        seen = _seen(positions[new:], times[:, new:], reached, end=end, shifted=network.shifted)
        window = pad(seen, (settled, 0), value=True)
    among = _among(plan, stored, settled)
    if eos is not None and settled:
        check_documents(plan, schedule)
        document = ended_before(pad(z[:, :settled], (0, 1), value=eos), eos)
        among, window = _of_document(document, plan, stored, window=window, W=ids.shape[-1] - new)
    # GPT: the row of a token that is drawn alone sees settled rows and itself, as it will when the
    # token has settled, so its keys stay.
    kept = new + 1 if network.shifted and alone else new
    visibility = Visibility(new, among, window, stored)
    call = Call(ids, positions, times, visibility, count=reached - settled, kept=kept)
    return call, plan.position[settled:reached]


def _shifted_rows(
    z: Tensor, t: Tensor, tokens: Tensor, *, bos: int, trailing: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, times and positions of the rows that predict `tokens` [n], and of a trailing row."""
    rows = torch.cat([tokens, tokens[-1:] + 1]) if trailing else tokens
    return pad(z, (1, 0), value=bos)[:, rows], pad(t, (1, 0))[:, rows], rows


def _among(plan: Plan, stored: int, settled: int) -> Tensor | None:
    """Which settled rows each new one sees, [1, new, settled]; None: those up to itself."""
    if plan.causal and (stored == 0 or settled - stored <= 1):
        return None
    return (plan.rank[:settled] <= plan.rank[stored:settled, None])[None]


def _of_document(
    document: Tensor, plan: Plan, stored: int, *, window: Tensor | None, W: int
) -> tuple[Tensor, Tensor]:
    """Which settled rows each new one sees, [B, new, settled], and which rows the W of the window
    see, [B, W, settled + W]: those of their own document.

    Args:
        document: [B, settled + 1] how many ended before each settled token, and before the window.
        plan: the schedule's.
        stored: rows in the cache.
        window: [B, W, settled + W] what the window sees of itself, and of all that has settled;
            None: everything.
        W: rows of the window.
    """
    rows = document[:, :-1]
    settled = rows.shape[-1]
    in_order = plan.rank[:settled] <= plan.rank[stored:settled, None]
    among = in_order & (rows[:, None, :] == rows[:, stored:, None])
    context = (rows == document[:, -1:])[:, None, :].expand(-1, W, -1)
    itself = torch.ones(len(rows), W, W, dtype=torch.bool, device=rows.device)
    if window is not None:
        itself = window[:, :, settled:]
    return among, torch.cat([context, itself.expand(len(rows), -1, -1)], -1)


def _seen(rows: Tensor, t: Tensor, reached: int, *, end: Tensor | None, shifted: bool) -> Tensor:
    """Which of themselves the rows [W] of a window see, [B, W, W].

    Those before the end [B] of their sequence, themselves, and in the shifted layout the row behind
    the last token while that token is below full noise.
    """
    B, W = t.shape
    if end is None:
        end = torch.full((B,), reached, device=t.device)
    last = end.clamp(max=reached)[:, None]
    seen = rows < last
    if shifted:
        seen = seen | ((rows == last) & (t < 1))
    return seen[:, None, :] | torch.eye(W, dtype=torch.bool, device=t.device)
