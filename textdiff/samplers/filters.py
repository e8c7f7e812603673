"""Logit filters: pure functions on the logits of the distribution over clean tokens that a sampler
draws from.

A filter maps logits [R, N] to logits [R, N] and removes a token with -inf; it is told which rows of
which sequences these are (`Where`), and those here have no need of it. What it does to a sampler's
law is the sampler's affair: the ancestral step becomes that of a network with the filtered logits,
a redraw has its posterior filtered. Tokens with equal logits are kept or removed together, so
nothing depends on how a sort breaks ties.

    >>> top_k(2)(torch.tensor([[3.0, 1.0, 2.0]])).tolist()
    [[3.0, -inf, 2.0]]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Where:
    """Which rows of a window the logits [R, N] of a filter belong to.

        >>> rows = torch.tensor([[True, False], [True, True]])
        >>> where = Where(rows, place=torch.tensor([4, 5]), ids=torch.zeros(2, 6).long())
        >>> where.sequence.tolist(), where.position.tolist()
        ([0, 1, 1], [4, 4, 5])

    Args:
        rows: [B, W] bool, R of them true, in this order.
        place: [W] or [B, W] positions of the columns in their sequence; None: 0..W-1.
        ids: [B, L] the whole sequences before the step, N = MASK.
    """

    rows: Tensor
    place: Tensor | None
    ids: Tensor

    @cached_property
    def sequence(self) -> Tensor:
        """[R] int64: row r belongs to the sequence ids[sequence[r]]."""
        return self.rows.nonzero()[:, 0]

    @cached_property
    def position(self) -> Tensor:
        """[R] int64: its position there."""
        column = self.rows.nonzero()[:, 1]
        if self.place is None:
            return column
        return self.place.expand(self.rows.shape)[self.sequence, column]


Filter = Callable[[Tensor, Where], Tensor]


def identity(logits: Tensor, where: Where | None = None) -> Tensor:
    """No filter: the law of the model."""
    return logits


def _divide(logits: Tensor, where: Where | None = None, *, by: float) -> Tensor:
    return logits.double() / by


def temperature(value: float) -> Filter:
    """softmax(logits / value), value > 0; applied once.

    Raises:
        ValueError: if value is not positive.
    """
    if not (isinstance(value, int | float) and value >= 1e-12):  # less would overflow
        raise ValueError(
            f"temperature must be > 0 (1e-12 at least), got {value!r}: "
            "for greedy choices use a small one, such as 1e-4"
        )
    return identity if value == 1 else partial(_divide, by=value)


def _keep(logits: Tensor, least: Tensor) -> Tensor:
    """Remove what lies below `least` [..., 1]."""
    return logits.masked_fill(logits < least, -math.inf)


def _top_k(logits: Tensor, where: Where | None = None, *, k: int) -> Tensor:
    return _keep(logits, logits.topk(min(k, logits.shape[-1]), -1).values[..., -1:])


def top_k(k: int) -> Filter:
    """Keep the k largest logits, and what equals the smallest of them.

    Raises:
        ValueError: if k is not an integer >= 1.
    """
    if not (isinstance(k, int) and k >= 1):
        raise ValueError(f"top_k must be an integer >= 1, got {k!r}: 1 keeps the likeliest token")
    return partial(_top_k, k=k)


def _top_p(logits: Tensor, where: Where | None = None, *, p: float) -> Tensor:
    N = logits.shape[-1]
    total = logits.double().logsumexp(-1, keepdim=True)
    size = min(N, 512)
    # The largest first: a few hundred mostly hold p, and sorting all is many times slower.
    while True:
        largest = logits.topk(size, -1).values
        mass = (largest.double() - total).exp().cumsum(-1)
        if size == N or bool((mass[..., -1] >= p).all()):
            break
        size = min(N, 8 * size)
    last = (mass < p).sum(-1, keepdim=True).clamp(max=size - 1)
    return _keep(logits, largest.gather(-1, last))


def top_p(p: float) -> Filter:
    """Keep the smallest set of likeliest tokens that holds at least probability p (the nucleus),
    the token that reaches p included.

    Raises:
        ValueError: if p lies outside (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {p!r}: 1 keeps every token")
    return identity if p == 1 else partial(_top_p, p=p)


def _min_p(logits: Tensor, where: Where | None = None, *, p: float) -> Tensor:
    logits = logits.double()
    return _keep(logits, logits.amax(-1, keepdim=True) + math.log(p))


def min_p(p: float) -> Filter:
    """Keep the tokens with at least p times the probability of the likeliest (arXiv 2407.01082).

    Raises:
        ValueError: if p lies outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(
            f"min_p must lie in [0, 1], got {p!r}: 0 keeps every token, 1 the likeliest only"
        )
    return identity if p == 0 else partial(_min_p, p=p)


def _ban(logits: Tensor, where: Where | None = None, *, tokens: tuple[int, ...]) -> Tensor:
    N = logits.shape[-1]
    if max(tokens) >= N:
        raise ValueError(
            f"cannot ban token {max(tokens)}: the model has the ordinary tokens 0 to {N - 1}"
        )
    kept = logits.index_fill(-1, torch.tensor(tokens, device=logits.device), -math.inf)
    if bool((kept.amax(-1) == -math.inf).any()):
        raise ValueError(
            "every token that was left is banned: ban before other filters, and not every token"
        )
    return kept


def banned(*tokens: int) -> Filter:
    """Never draw these tokens.

    Raises:
        ValueError: if a token is not an integer >= 0; and when it is applied, if the model lacks
            one or nothing is left.
    """
    if bad := [token for token in tokens if not (isinstance(token, int) and token >= 0)]:
        raise ValueError(f"banned tokens are ids of ordinary tokens, integers >= 0, got {bad[0]!r}")
    return partial(_ban, tokens=tokens) if tokens else identity


def _ban_before(logits: Tensor, where: Where, *, tokens: tuple[int, ...], position: int) -> Tensor:
    early = where.position < position
    return torch.where(early[:, None], _ban(logits, tokens=tokens), logits)


def banned_before(position: int, *tokens: int) -> Filter:
    """Never draw these tokens at places before `position`."""
    return partial(_ban_before, tokens=tokens, position=position) if tokens else identity


def _penalize(logits: Tensor, where: Where, *, penalty: float) -> Tensor:
    logp = logits.double().log_softmax(-1)
    N = logits.shape[-1]
    occurs = torch.zeros(len(where.ids), N + 1, dtype=torch.bool, device=logits.device)
    occurs.scatter_(1, where.ids, True)
    return torch.where(occurs[where.sequence, :N], logp * penalty, logp)


def repetition_penalty(value: float) -> Filter:
    """log p(x) becomes value * log p(x) for every token x that stands in the sequence now.

    Of log p, not of logits as in CTRL (arXiv 1909.05858): these are known up to a constant only.

    Raises:
        ValueError: if value is not positive.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"repetition_penalty must be > 0, got {value!r}: 1 is none")
    return identity if value == 1 else partial(_penalize, penalty=value)


def _in_turn(logits: Tensor, where: Where | None = None, *, filters: tuple[Filter, ...]) -> Tensor:
    for each in filters:
        logits = each(logits, where)  # type: ignore[arg-type]
    return logits


def compose(*filters: Filter) -> Filter:
    """The filters one after the other, each on what the one before it left; `identity` if none does
    anything.
    """
    used = tuple(each for each in filters if each is not identity)
    if len(used) <= 1:
        return used[0] if used else identity
    return partial(_in_turn, filters=used)


def refuse_filters(sampler: object, filter: Filter) -> None:
    """Raise a ValueError for a sampler that draws no distribution over clean tokens."""
    if filter is not identity:
        raise ValueError(
            f"{sampler} draws from ratios of noisy marginals: temperature and other filters have "
            "no meaning there"
        )
