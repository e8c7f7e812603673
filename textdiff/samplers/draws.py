"""Draws from softmax(logits), some rows at a time, down a tree over the vocabulary.

                      root
    level 0       16 nodes          token mod 16        u chooses
    level 1      256 nodes          token mod 256       a hash of u chooses
    level 2    4,096 nodes          token mod 4,096     another
    tokens    50,257                token               another

At each node the child is the first whose cumulative probability exceeds the uniform. Rounding of
logits moves the few boundaries of the nodes on the way to a token, not those of all tokens before
it (`maths.md` 5.7). Up to 16 tokens are a single node: the inverse CDF.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..noise import below

# weights held at once: what a CPU's cache holds, and 512 MB elsewhere
_CACHED = 2**19
_DEVICE = 2**26


CHILDREN = 16  # at most, of a node of the tree down which tokens are drawn


def tree_of(N: int) -> tuple[int, int]:
    """Children of a node, and the stride of the tokens of one: N tokens in as few levels as
    `CHILDREN` allow, with as few children as these levels do.

    >>> tree_of(16), tree_of(17), tree_of(50257), tree_of(128256)
    ((16, 1), (8, 8), (16, 4096), (12, 20736))
    """
    below = 0
    while CHILDREN ** (below + 1) < N:
        below += 1
    children = next(c for c in (4, 8, 12, CHILDREN) if c ** (below + 1) >= N)
    return (children, children**below) if below else (CHILDREN, 1)


def _rows(logits: Tensor, width: int) -> int:
    """How many rows of so many weights are held at once."""
    return max(1, (_DEVICE if logits.is_cuda else _CACHED) // width)


def _weight(logits: Tensor, highest: Tensor) -> Tensor:
    """e^(logits - highest), in place; 2^(l log2 e) is several times faster than e^l."""
    return logits.sub_(highest).mul_(1 / math.log(2)).exp2_()


def _weights(logits: Tensor) -> Iterator[Tensor]:
    """softmax(logits) without its division: logits [R, N] -> [rows, n, stride] float64, some rows
    at a time, 0 beyond N.

    Rows are padded to whole vectors, so each is computed as if it were alone.
    """
    N = logits.shape[-1]
    _, stride = tree_of(N)
    whole = math.lcm(stride, CHILDREN)
    width = -(-N // whole) * whole
    rows = _rows(logits, width)
    w = logits.new_empty(min(rows, len(logits)), width, dtype=torch.float64)
    for some in logits.split(rows):
        here = w[: len(some)]
        here[:, N:] = -math.inf
        here[:, :N] = some
        _weight(here, some.amax(-1, keepdim=True))
        yield here.view(len(some), width // stride, stride)


def _descend(top: Tensor, children: int, u: Tensor) -> tuple[Tensor, Tensor]:
    """The node above a token for each row of weights [R, stride], from u [R]: down a tree.

    Node b = a stride' + b' is child a of node b'. u chooses at the top, a hash of it at each level
    below; also returned is that of the level to come.
    """
    levels = [top]
    while levels[-1].shape[-1] > 1:
        levels.append(levels[-1].view(len(top), children, -1).sum(1))
    places = below(u, len(levels))
    node = torch.zeros(len(top), 1, dtype=torch.int64, device=u.device)
    for depth, level in enumerate(reversed(levels[:-1])):
        above = level.shape[-1] // children
        child = level.gather(-1, node + _children(children, above, u.device))
        node = _choose(child, places[:, depth : depth + 1]) * above + node
    return node, places[:, -1:]


def _children(n: int, stride: int, device: torch.device) -> Tensor:
    """[n] what the children of node 0 are: those of node b lie b further."""
    return torch.arange(0, n * stride, stride, device=device)


def _choose(w: Tensor, u: Tensor) -> Tensor:
    """The first child whose cumulative weight exceeds u times the total; w [R, n], u [R, 1] ->
    [R, 1].
    """
    cdf = w.cumsum(-1)
    return torch.searchsorted(cdf, u * cdf[:, -1:], right=True)


def categorical(logits: Tensor, u: Tensor) -> Tensor:
    """Draw from softmax(logits) in float64; logits [..., N], u [...] in (0, 1) -> [...] int64.

    At each node of a tree the child is the first whose cumulative probability exceeds a uniform, so
    a token of probability 0 is never drawn; u <= 1 - 2^-53 times the total rounds to less than the
    total, so there always is one. Up to `CHILDREN` tokens are a single node: the inverse CDF.
    Rounding of the logits moves the few boundaries of the nodes on the way to a token, not those of
    all tokens before it (`maths.md` 5.7).

    >>> logits = torch.tensor([0.5, 0.0, 0.5]).log().expand(3, 3)
    >>> categorical(logits, torch.tensor([0.1, 0.4999, 0.5001], dtype=torch.float64))
    tensor([0, 0, 2])

    Raises:
        ValueError: if the uniforms are not float64.
    """
    if u.dtype != torch.float64:
        raise ValueError(
            f"token draws need float64 uniforms, got {u.dtype}: "
            "take them from textdiff.noise.uniform"
        )
    if not u.numel():
        return u.long()
    flat = logits.reshape(-1, logits.shape[-1])
    _, stride = tree_of(flat.shape[-1])
    rows = 8 * _rows(flat, stride)
    some = zip(flat.split(rows), u.reshape(-1).split(rows), strict=True)
    return torch.cat([_drawn(part, places) for part, places in some]).view(u.shape)


def _drawn(logits: Tensor, u: Tensor) -> Tensor:
    """The tokens of logits [R, N] and u [R]."""
    N = logits.shape[-1]
    children, stride = tree_of(N)
    if stride == 1:
        places = u[:, None].split(_rows(logits, CHILDREN))
        chosen = map(_choose, (w.squeeze(-1) for w in _weights(logits)), places)
        return torch.cat(list(chosen)).squeeze(-1)
    top = torch.cat([w.sum(1) for w in _weights(logits)])
    node, place = _descend(top, children, u)
    token = node + _children(-(-N // stride), stride, u.device)
    raw = logits.gather(-1, token.clamp(max=N - 1)).double()
    last = _weight(raw.masked_fill(token >= N, -math.inf), logits.amax(-1, keepdim=True))
    return token.gather(-1, _choose(last, place)).squeeze(-1)


def probability(logits: Tensor, token: Tensor) -> Tensor:
    """softmax(logits) at one token a row, as `categorical` draws it; logits [R, N], token [R] ->
    [R] float64.

    >>> probability(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    tensor([0.7500], dtype=torch.float64)
    """
    chances = [token.new_empty(0, dtype=torch.float64)]
    begin = 0
    for w in _weights(logits):
        flat = w.flatten(1)
        own = flat.gather(-1, token[begin : begin + len(w), None]).squeeze(-1)
        chances.append(own / flat.sum(-1))
        begin += len(w)
    return torch.cat(chances)
