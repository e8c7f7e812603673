"""The head's gradient in mixed precision: products in the low dtype, sums and small values kept."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import textdiff.denoiser.head
from textdiff.denoiser.head import row_values

R, D, N = 200, 8, 500
PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)


class Products(TorchDispatchMode):
    """The dtypes of all matrix products that a vocabulary takes part in."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        if call.overloadpacket in PRODUCTS and any({N, 512} & {*x.shape} for x in tensors):
            self.seen += [x.dtype for x in tensors if x.dim() == 2]
        return call(*args, **(kwargs or {}))


def head(bias):
    generator = torch.Generator().manual_seed(1)
    draw = {"generator": generator, "requires_grad": True}
    weight = torch.randn(N, D, **draw)
    return torch.randn(R, D, **draw), weight, torch.randn(N, **draw) if bias else None


def gradients(inputs, dtype, scale, share):
    """d(share · cross entropy)/d(inputs), after a loss that is scaled up and gradients scaled down
    again, as a GradScaler does it; and the dtypes of the products.
    """
    hidden, weight, bias = inputs
    network = SimpleNamespace(head_parameters=lambda: (weight, bias))
    target = torch.arange(R) % N

    def value(logits, rows):
        return share * -logits.double().log_softmax(-1)[range(len(logits)), target[rows]]

    products = Products()
    low = dtype != torch.float32
    with torch.autocast("cpu", dtype if low else torch.bfloat16, enabled=low), products:
        total, _ = row_values(network, hidden.to(dtype), value)
    wanted = [x for x in inputs if x is not None]
    (total * scale).backward()
    made = [x.grad / scale for x in wanted]
    for x in wanted:
        x.grad = None
    return made, products.seen


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("whole", [1, 64])
def test_products_are_in_the_dtype_of_autocast_and_held_in_float32(dtype, bias, whole, monkeypatch):
    monkeypatch.setattr(textdiff.denoiser.head, "WHOLE", {"cpu": whole})
    inputs = head(bias)
    exact, full = gradients(inputs, torch.float32, 1.0, share=1.0)
    assert full and set(full) == {torch.float32}
    made, seen = gradients(inputs, dtype, 1.0, share=1.0)
    assert len(seen) >= 6 and set(seen) == {dtype}
    for one, other in zip(exact, made, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert (one - other).norm() < 0.02 * one.norm()


@pytest.mark.parametrize("share", [1e-7, 1.0, 1e5])
def test_half_precision_loses_no_gradient_that_the_loss_scale_keeps(share):
    """By 1e-7 every gradient of the logits is below half precision's least number, by 1e5 the
    largest is above its greatest.
    """
    inputs = head(bias=True)
    exact, _ = gradients(inputs, torch.float32, 1.0, share=share)
    made, _ = gradients(inputs, torch.float16, 2.0**16 if share < 1 else 0.125 / share, share=share)
    for one, other in zip(exact, made, strict=True):
        assert (one - other).norm() < 0.005 * one.norm()
