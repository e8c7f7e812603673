"""Attention kernels give what SDPA gives; those that cannot run here are skipped, visibly."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from textdiff.network import Transformer
from textdiff.network.kernels import BACKENDS, check_backend, flash, flex, sdpa

CUDA = torch.cuda.is_available()


def qkv(device="cpu", dtype=torch.float32, grad=False):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 2, 40, 16, generator=generator).to(device, dtype).requires_grad_(grad)
        for _ in range(3)
    ]


def masks():
    batch = (torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(1)) < 0.5) | torch.eye(
        40, dtype=torch.bool
    )
    return {
        "full": (None, False),
        "causal": (None, True),
        "shared mask": (batch[:1], False),
        "mask per row": (batch, False),
    }


@pytest.mark.parametrize("kind", masks())
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_equals_sdpa_forward_on_cpu(kind):
    mask, causal = masks()[kind]
    torch.testing.assert_close(
        flex(*qkv(), mask, causal, 0.0), sdpa(*qkv(), mask, causal, 0.0), atol=2e-6, rtol=1e-5
    )


@pytest.mark.skipif(not CUDA, reason="flex trains on CUDA only")
@pytest.mark.parametrize("kind", masks())
def test_flex_equals_sdpa_with_gradients_on_cuda(kind):
    mask, causal = masks()[kind]
    mask = None if mask is None else mask.cuda()
    results = []
    for kernel in (flex, sdpa):
        inputs = qkv("cuda", grad=True)
        out = kernel(*inputs, mask, causal, 0.0)
        out.square().sum().backward()
        results.append([out, *(x.grad for x in inputs)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.skipif(
    not (CUDA and importlib.util.find_spec("flash_attn")),
    reason="flash-attn needs CUDA and the extra `flash`",
)
@pytest.mark.parametrize("causal", [False, True])
def test_flash_equals_sdpa_on_cuda(causal):
    inputs = qkv("cuda", torch.bfloat16)
    torch.testing.assert_close(
        flash(*inputs, None, causal, 0.0), sdpa(*inputs, None, causal, 0.0), atol=2e-2, rtol=2e-2
    )


def test_kernels_say_what_they_cannot_do():
    mask = torch.ones(1, 40, 40, dtype=torch.bool)
    with pytest.raises(ValueError, match="knows no masks"):
        flash(*qkv(), mask, False, 0.0)
    with pytest.raises(ValueError, match="half precision on CUDA"):
        flash(*qkv(), None, True, 0.0)
    with pytest.raises(ValueError, match="no dropout"):
        flex(*qkv(), None, False, 0.1)
    with pytest.raises(ValueError, match="no backward pass on CPU"):
        flex(*qkv(grad=True), None, False, 0.0)
    with pytest.raises(ValueError, match=r"unknown attention kernel 'fast'.*sdpa"):
        check_backend("fast")


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed"
)
def test_a_missing_library_is_named_when_the_network_is_built():
    with pytest.raises(ValueError, match="pip install --no-build-isolation"):
        Transformer(attention="flash").build(7, False, 0)


def test_the_names_are_those_of_the_network_option():
    assert set(BACKENDS) == {"sdpa", "flex", "flash"}
    for name in ("sdpa", "flex"):
        assert (
            Transformer(layers=1, width=8, heads=1, attention=name)
            .build(7, False, 0)
            .config.attention
            == name
        )


def test_checkpointed_activations_give_the_same_gradients():
    gradients = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        net = (
            Transformer(layers=3, width=16, heads=2, checkpoint=checkpoint)
            .build(7, True, 0)
            .double()
            .train()
        )
        for parameter in net.parameters():
            parameter.data.normal_(
                0, 0.3, generator=torch.Generator().manual_seed(parameter.numel())
            )
        net(torch.arange(8).expand(2, 8) % 8).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))
