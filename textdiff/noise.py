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
    SCHEDULE = 9  # under which schedule of a mixture is a batch trained?


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
    seed: int | Tensor,
    example: int | Tensor,
    step: int | Tensor,
    position: int | Tensor,
    stream: Stream,
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


def below(u: Tensor, levels: int) -> Tensor:
    """Uniforms [R, levels] of each of u [R], which are u itself and hashes of it."""
    hashed = _hash(u.view(torch.int64)[:, None], torch.arange(1, levels, device=u.device))
    return torch.cat([u[:, None], _unit(hashed)], -1)


def stratified(
    seed: int | Tensor, key: int | Tensor, slot: int | Tensor, stream: Stream = Stream.TIME
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
    sequence). Sequences with clocks of their own have a `seed` [B], a `step` [B] and a `place`
    [B, W] each.

    >>> noise = Noise(seed=0, example=torch.tensor([4]))
    >>> whole = noise.positions(torch.zeros(1, 5), Stream.MASK)
    >>> window = replace(noise, place=torch.tensor([3, 4]))
    >>> torch.equal(window.positions(torch.zeros(1, 2), Stream.MASK), whole[:, 3:])
    True
    """

    seed: int | Tensor
    example: Tensor
    step: int | Tensor = 0
    place: Tensor | None = None

    def at(self, step: int | Tensor) -> Noise:
        """The draws of another step (or draw number) of the same examples."""
        return replace(self, step=step)

    def uniform(self, stream: Stream, position: Tensor) -> Tensor:
        """Uniforms for `position` [L] or [B, L] -> [B, L]."""
        seed, step = (
            field.unsqueeze(-1) if isinstance(field, Tensor) else field
            for field in (self.seed, self.step)
        )
        return uniform(seed, self.example.unsqueeze(-1), step, position, stream)

    def positions(self, like: Tensor, stream: Stream) -> Tensor:
        """Uniforms for every position of a [B, L] tensor."""
        place = self.place
        if place is None:
            place = torch.arange(like.shape[-1], device=like.device)
        return self.uniform(stream, place)


def uniform_token(N: int, u: Tensor) -> Tensor:
    """A uniform ordinary token 0..N-1 from u in (0, 1).

    >>> uniform_token(4, torch.tensor([0.1, 0.3, 0.9]))
    tensor([0, 1, 3])
    """
    return (u * N).long().clamp_(max=N - 1)
