"""The oracle: `check` passes every process of ours and names what is wrong with a broken one."""

from dataclasses import dataclass

import pytest
import torch
from catalogue import each_process

from textdiff.noise import Stream, uniform_token
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    Process,
    Uniform,
    check,
)


@each_process()
@pytest.mark.parametrize("N", [2, 5])
def test_every_process_passes(process, N):
    """Kernels, rates, reverse laws, draws and prior (maths.md 7: 1, 2, 4, 5, 6, 25)."""
    check(process, N)


@pytest.mark.parametrize("process", [GIDD(shape=0.1), GIDD(shape=1.9), GammaHybrid(0.3, tail=0.3)])
def test_steep_starts_and_unfinished_noise_pass(process):
    check(process)


def broken(base: type[Process], **changes: object) -> Process:
    """A subclass of `base` with the clock fields, methods or flags of `changes` replaced."""
    body: dict[str, object] = {}
    fields = {name: change for name, change in changes.items() if name in CLOCK}
    if fields:

        def _clock(self: Process, t: torch.Tensor) -> object:
            clock = base._clock(self, t)
            return clock._replace(**{name: change(t) for name, change in fields.items()})

        body["_clock"] = _clock
    body |= {name: change for name, change in changes.items() if name not in CLOCK}
    return type("Broken", (base,), body)()


CLOCK = ("mask", "mask_rate", "log_keep", "log_corrupt", "keep_rate", "leak")


@dataclass(frozen=True)
class Unguarded(GammaHybrid):
    """A process whose own `__post_init__` forgets that of the base."""

    gamma: float = 0.3

    def __post_init__(self) -> None:
        """Nothing is refused."""


def shifted(self, x, t, N, noise):
    """Corruption with another token in place of MASK."""
    z = Process.corrupt(self, x, t, N, noise)
    return torch.where(z == N, uniform_token(N, noise.positions(x, Stream.UNIFORM_TOKEN)), z)


FAULTS = [
    (Unguarded, dict(mask=lambda t: t.mean()), "mask must be float64 and of the shape of t"),
    (Absorbing, dict(mask_rate=lambda t: t.float()), "mask_rate must be float64"),
    (Uniform, dict(leak=lambda t: t * float("nan")), "leak"),
    (Absorbing, dict(mask=lambda t: t / t.max().clamp_min(0.9)), "depends on the other times"),
    (Unguarded, dict(mask=lambda t: 2 * t), r"mask lies outside \[0, 1\]: 1.001 .* at t = 0.5004"),
    (Absorbing, dict(log_corrupt=lambda t: 0 * t - 9), "exp.log_keep. . exp.log_corrupt. is not 1"),
    (Absorbing, dict(mask=lambda t: 0.1 + 0.9 * t), "mask is not 0 at the start"),
    (Absorbing, dict(mask=lambda t: t**2), "mask_rate is not the derivative of mask"),
    (Uniform, dict(keep_rate=lambda t: 0 * t - 1), "keep_rate is not the derivative of log κ"),
    (Absorbing, dict(masks=False), "masks must be True"),
    (Uniform, dict(corrupts=False), "corrupts must be True"),
    (Uniform, dict(leaks=True), "leaks must be False"),
    (EpsilonHybrid, dict(atom=0.0), r"atom is not 1 - κ\(0\+\): 0 instead of 0.01"),
    (Uniform, dict(needs_time=False), "needs_time must be True"),
    (GIDD, dict(_stay=lambda self, s, t: 1 + 0 * s), "the rates are not the derivative"),
    (GIDD, dict(_stay=lambda self, s, t: 1 - (t - s) / 2), "K.w . t. K.t . s. is not K.w . s."),
    (GIDD, dict(leak=lambda t: 0 * t + 0.1), "the rates are not the derivative of the kernel"),
    (Uniform, dict(moves=lambda self, s, t: s < 0), "`moves` is False where"),
    (Absorbing, dict(corrupt=shifted), "corrupt draws token 0 with frequency"),
    (Absorbing, dict(corrupt=lambda self, x, t, N, noise: x + N), "must draw ids 0..4"),
    (Uniform, dict(prior=lambda self, shape, N, noise: torch.full(shape, N)), "prior draws token"),
    (GammaHybrid, dict(prior_kl=lambda self, N: torch.ones(())), "prior_kl is not KL"),
]


@pytest.mark.parametrize("base, changes, message", FAULTS, ids=[m for _, _, m in FAULTS])
def test_a_fault_is_named_with_its_value_and_place(base, changes, message):
    with pytest.raises(ValueError, match=message) as refusal:
        check(broken(base, **changes))
    assert str(refusal.value).startswith("Broken(")


def test_a_kernel_that_is_no_law_is_refused():
    class Doubled(Absorbing):
        def bridge(self, s, t):
            bridge = super().bridge(s, t)
            return bridge._replace(fresh=bridge.fresh + 0.5 * bridge.to_mask)

    with pytest.raises(ValueError, match=r"a column of the kernel does not sum to 1: .* s = 0, t"):
        check(Doubled())


def test_a_negative_rate_is_refused_even_where_the_constructor_is_not_asked():
    class Rising(Unguarded):
        def _clock(self, t):
            clock = super()._clock(t)
            return clock._replace(
                mask=t * (1.5 - t) / 0.5625 * 0.9,
                mask_rate=(1.5 - 2 * t) / 0.5625 * 0.9,
            )

    with pytest.raises(ValueError, match="rate mask is negative: -"):
        check(Rising())
