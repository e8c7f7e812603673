"""The chunked map hidden rows -> logits -> per-row value, with the gradient made in the forward
pass.

No [B, L, V] tensor exists: a chunk's logits live until its values and its gradient are made. Rows
without a value are never passed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from .prediction import cavity_logits
from .protocol import Denoiser

CHUNK = defaultdict(lambda: 1 << 27, cpu=1 << 20)
"""Logits alive at a time: few enough to stay in a CPU's cache, many enough to fill a GPU."""
LEAST_ROWS = 96  # fewer make the matrix products slow
WHOLE = defaultdict(lambda: 1, cuda=64)
"""The fast matrix products of a GPU want a multiple of so many tokens: at N = 50,257 an H200 takes
31 ms where it takes 7 at 50,304.
"""


def chunks(rows: int, N: int, device: str) -> Iterator[slice]:
    """Slices of `rows` whose logits over N tokens are alive together."""
    size = max(LEAST_ROWS, CHUNK[device] // N)
    return (slice(begin, min(begin + size, rows)) for begin in range(0, rows, size))


@dataclass(frozen=True)
class _Map:
    """What is done with the logits of N tokens, and whether gradients are wanted."""

    N: int
    value: Callable[[Tensor, slice], Tensor]
    training: bool


class _RowValues(torch.autograd.Function):
    """The sum of all values and the values; backward works once, for it hands out the gradients
    made in the forward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows_to_values: _Map
    ) -> tuple[Tensor, Tensor]:
        N = rows_to_values.N
        inputs = (hidden, weight, bias)
        wanted = [rows_to_values.training and needed for needed in ctx.needs_input_grad[:3]]
        values = torch.empty(len(hidden), dtype=torch.float64, device=hidden.device)
        grads = [
            make(x, dtype=_held(x.dtype)) if want and x is not None else None
            for make, x, want in zip(_EMPTY, inputs, wanted, strict=True)
        ]
        table = _table(weight[:N], bias, _low(hidden))
        for rows in chunks(len(hidden), N, hidden.device.type):
            _chunk(
                rows,
                hidden,
                *table,
                N=N,
                value=rows_to_values.value,
                values=values,
                gradients=_Gradients(*grads),
            )
        ctx.grads = grads
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        ctx.mark_non_differentiable(values)
        return values.sum(), values

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None
        if grads is None:
            raise RuntimeError("the head's gradient was handed out already: call row_values again")
        scaled = (
            None if grad is None else grad.mul_(grad_total.to(grad.dtype)).to(dtype)
            for grad, dtype in zip(grads, ctx.dtypes, strict=True)
        )
        return (*scaled, None)


_EMPTY = (torch.empty_like, torch.zeros_like, torch.zeros_like)


def _held(dtype: torch.dtype) -> torch.dtype:
    """How a gradient is held until the loss scale comes, which half precision's range needs."""
    return torch.float32 if dtype == torch.float16 else dtype


def _low(x: Tensor) -> torch.dtype:
    """The dtype of matrix products: autocast's, where it casts."""
    device = x.device.type
    casts = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return torch.get_autocast_dtype(device) if casts else x.dtype


def _table(weight: Tensor, bias: Tensor | None, low: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Weight [N, D] and bias [N] as the products of all chunks take them: in their dtype, with
    tokens of zeros behind the N that there are.
    """
    more = -len(weight) % WHOLE[weight.device.type]
    weight, bias = weight.to(low), None if bias is None else bias.to(low)
    if not more:
        return weight, bias
    return pad(weight, (0, 0, 0, more)), None if bias is None else pad(bias, (0, more))


def _power(slope: Tensor) -> Tensor:
    """The power of two [] that brings the largest of `slope` to between 1/2 and 1, if any is."""
    return torch.exp2(-torch.frexp(slope.abs().amax().float())[1].float())


@dataclass(frozen=True)
class _Gradients:
    """Where the gradients of hidden rows [R, D], weight [N, D] and bias [N] are made; None: not
    wanted.
    """

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    def any(self) -> bool:
        return not (self.hidden is None and self.weight is None and self.bias is None)

    def add(self, rows: slice, slope: Tensor, hidden: Tensor, weight: Tensor, N: int) -> None:
        """The share of rows [r, D] whose logits over `weight` [N', D] have the gradient `slope`
        [r, N'], N' >= N; the products are in the dtype of `hidden`, which is that of the logits,
        and their sums in what holds them.
        """
        low = hidden.dtype
        up: Tensor | float = _power(slope) if low == torch.float16 else 1.0
        scaled = (slope if low != torch.float16 else slope * up).to(low)
        if self.hidden is not None:
            self.hidden[rows] = _over(scaled @ weight, up)
        if self.weight is not None:
            ours = self.weight[:N]
            if ours.dtype == low:
                ours.addmm_(scaled.T[:N], hidden)
            else:
                ours.add_(_over(scaled.T @ hidden, up)[:N])
        if self.bias is not None:
            self.bias.add_(slope.sum(0)[:N])


def _over(product: Tensor, up: Tensor | float) -> Tensor:
    """A product without the power of two that its gradient was scaled by."""
    return product.float() / up if isinstance(up, Tensor) else product


def _chunk(
    rows: slice,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    N: int,
    value: Callable[[Tensor, slice], Tensor],
    values: Tensor,
    gradients: _Gradients,
) -> None:
    """Fill in values and gradients of some rows, for the table of `weight` [N', D] and `bias` [N'];
    all that is as large as their logits is free again when it returns.
    """
    training = gradients.any()
    some = hidden[rows].to(weight.dtype)
    logits = linear(some, weight, bias).detach()
    logits = logits.to(_held(some.dtype))  # else small gradients vanish before the loss scale comes
    with torch.enable_grad():
        logits.requires_grad_(training)
        # a slice of all would copy the gradient once more
        row_value = value(logits if len(weight) == N else logits[:, :N], rows)
    values[rows] = row_value.detach()
    if not training:
        return
    (slope,) = torch.autograd.grad(row_value, logits, torch.ones_like(row_value))
    del logits
    gradients.add(rows, slope, some, weight, N)


def row_values(
    network: Denoiser, hidden: Tensor, value: Callable[[Tensor, slice], Tensor]
) -> tuple[Tensor, Tensor]:
    """Map hidden rows to nats without holding all their logits.

    Args:
        network: whose head it is.
        hidden: [R, D].
        value: called with the logits [r, N] of some rows and the slice that they are; gives nats
            [r].

    Returns:
        The differentiable sum of all values, and the values [R] float64 (without gradient).
    """
    weight, bias = network.head_parameters()
    rows_to_values = _Map(len(weight), value, torch.is_grad_enabled())
    return _RowValues.apply(hidden, _whole(weight), bias, rows_to_values)


def _whole(weight: Tensor) -> Tensor:
    """A tied head's weight [N, D] is the front of the embedding: that itself, else autograd pads a
    second gradient of its size.
    """
    base = weight._base
    if base is None or not base.is_leaf or base.shape[1:] != weight.shape[1:]:
        return weight
    return base if base.data_ptr() == weight.data_ptr() else weight


def logits_of(network: Denoiser, hidden: Tensor) -> Tensor:
    """Logits [..., N] of hidden rows [..., D], for sampling."""
    weight, bias = network.head_parameters()
    return linear(hidden, weight, bias)


def to_cavity(network: Denoiser, logits: Tensor, z: Tensor) -> Tensor:
    """Logits [..., N] as every objective and sampler takes them: an imported posterior loses its
    shift at the own token z [...] (4.3).
    """
    return logits if network.self_noise is None else cavity_logits(logits, z, network.self_noise)
