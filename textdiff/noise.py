"""Randomness as a pure function: every draw is a hash of (seed, example, step, position, stream).

Nothing else in textdiff draws a random number that a result depends on, so results do not depend on
batch size, padding, row order, world size or a resume. Uniforms are float64 in the open interval
(0, 1), because float32 noise loses rare tokens (arXiv 2409.02908); tokens are drawn in float64 down
a tree, so that rounding of float32 logits moves few of them (`maths.md` 5.7).

>>> noise = Noise(seed=0, example=torch.tensor([7, 8]))
>>> both = noise.positions(torch.zeros(2, 4), Stream.TOKEN)  # two sequences of four positions
>>> alone = Noise(seed=0, example=torch.tensor([8])).positions(torch.zeros(1, 9), Stream.TOKEN)
>>> torch.equal(both[1], alone[0, :4])  # neither the batch nor the padding matters
True
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLY_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MULTIPLY_2 = 0x94D049BB133111EB - (1 << 64)

RUN = 64  # slots that `stratified` spreads out together


class Stream(IntEnum):
    """What a draw is for: two draws of different streams are independent."""

    TIME = 0  # the noise level of an example
    MASK = 1  # does the mask clock strike?
    CORRUPT = 2  # does the uniform clock strike?
    UNIFORM_TOKEN = 3  # which uniform token
    TOKEN = 4  # which token of a predicted distribution
    ROUTE = 5  # which branch of a reverse step
    CORRECT = 6  # is a visible token redrawn?
    ORDER = 7  # permutations: of the data, of positions
    DROPOUT = 8  # seed of a training step's dropout


def _shift(h: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic)."""
    return (h >> bits) & ((1 << (64 - bits)) - 1)


def _mix(h: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014); int64 products wrap."""
    h = (h ^ _shift(h, 30)) * _MULTIPLY_1
    h = (h ^ _shift(h, 27)) * _MULTIPLY_2
    return h ^ _shift(h, 31)


def _hash(*fields: int | Tensor) -> Tensor:
    """Chain the fields, which broadcast, into one well-mixed int64.

    Plain numbers stay on the CPU, where a tensor without dimensions goes with those of any device:
    copied to a GPU, each would be waited for.
    """
    h = torch.zeros((), dtype=torch.int64, device="cpu")
    for field in fields:
        h = _mix((h ^ torch.as_tensor(field, dtype=torch.int64)) + _GOLDEN)
    return h


def uniform(
    seed: int, example: int | Tensor, step: int | Tensor, position: int | Tensor, stream: Stream
) -> Tensor:
    """Float64 uniforms in the open (0, 1); the arguments broadcast, e.g. example [B, 1], position
    [L] -> [B, L].

    >>> u = uniform(0, torch.arange(2)[:, None], 0, torch.arange(3), Stream.TIME)
    >>> u.shape, u.dtype
    (torch.Size([2, 3]), torch.float64)
    >>> float(uniform(0, 1, 0, torch.tensor(2), Stream.TIME)) == float(u[1, 2])
    True
    """
    return _unit(_hash(seed, int(stream), example, step, position))


def _unit(h: Tensor) -> Tensor:
    """A hash as a float64 in the open (0, 1)."""
    return (_shift(h, 12).double() + 0.5) * 2.0**-52


def stratified(
    seed: int, key: int | Tensor, slot: int | Tensor, stream: Stream = Stream.TIME
) -> Tensor:
    """Uniforms in (0, 1), one in each stratum of width 1/n for every aligned run of n = 2^j
    consecutive slots (n <= RUN).

    A digitally shifted van der Corput sequence with independent jitter: each value alone is exactly
    uniform, together they are stratified (`maths.md` 4.5), and a value depends on (seed, key, slot)
    only, so micro-batches and ranks do not matter.

    >>> u = stratified(seed=0, key=0, slot=torch.arange(8))
    >>> (8 * u).long().sort().values  # one in each eighth
    tensor([0, 1, 2, 3, 4, 5, 6, 7])
    """
    device = next((f.device for f in (key, slot) if isinstance(f, Tensor)), None)
    slot = torch.as_tensor(slot, dtype=torch.int64, device=device)
    bits = RUN.bit_length() - 1
    reversed_bits = sum(((slot >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))
    shift = _hash(seed, int(stream), key, slot >> bits, 1) & (RUN - 1)
    jitter = uniform(seed, key, slot, 2, stream)
    strata = ((reversed_bits ^ shift).double() + jitter) / RUN
    return strata.clamp(max=1 - 2.0**-53)  # the sum may round up


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of n examples in an epoch: a pure function of (seed, epoch).

    >>> permutation(seed=0, epoch=0, n=6).sort().values
    tensor([0, 1, 2, 3, 4, 5])
    """
    return uniform(seed, 0, epoch, torch.arange(n), Stream.ORDER).argsort()


def seed_from(seed: int | torch.Generator) -> int:
    """A user's seed or `torch.Generator` as the integer key of all draws."""
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**62, (), generator=seed, device=seed.device))
    if not -(2**63) <= int(seed) < 2**63:
        raise ValueError(f"a seed must lie in -2^63..2^63 - 1, got {seed}")
    return int(seed)


@dataclass(frozen=True)
class Noise:
    """The draws of one step: `example` [B] names each row, so a row's draws do not depend on its
    neighbours.

    `place` [W] names the positions of a tensor's columns where they are not 0..L-1 (a window of a
    sequence).

    >>> noise = Noise(seed=0, example=torch.tensor([4]))
    >>> whole = noise.positions(torch.zeros(1, 5), Stream.MASK)
    >>> window = replace(noise, place=torch.tensor([3, 4]))
    >>> torch.equal(window.positions(torch.zeros(1, 2), Stream.MASK), whole[:, 3:])
    True
    """

    seed: int
    example: Tensor
    step: int | Tensor = 0
    place: Tensor | None = None

    def at(self, step: int | Tensor) -> Noise:
        """The draws of another step (or draw number) of the same examples."""
        return replace(self, step=step)

    def uniform(self, stream: Stream, position: Tensor) -> Tensor:
        """Uniforms for `position` [L] or [B, L] -> [B, L]."""
        step = self.step.unsqueeze(-1) if isinstance(self.step, Tensor) else self.step
        return uniform(self.seed, self.example.unsqueeze(-1), step, position, stream)

    def positions(self, like: Tensor, stream: Stream) -> Tensor:
        """Uniforms for every position of a [B, L] tensor."""
        place = self.place
        if place is None:
            place = torch.arange(like.shape[-1], device=like.device)
        return self.uniform(stream, place)


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
    depths = torch.arange(1, len(levels), device=u.device)
    below = _unit(_hash(u.view(torch.int64)[:, None], depths))
    places = torch.cat([u[:, None], below], -1)
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


def uniform_token(N: int, u: Tensor) -> Tensor:
    """A uniform ordinary token 0..N-1 from u in (0, 1).

    >>> uniform_token(4, torch.tensor([0.1, 0.3, 0.9]))
    tensor([0, 1, 3])
    """
    return (u * N).long().clamp_(max=N - 1)
