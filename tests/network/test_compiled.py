"""What goes through `torch.compile`: the same numbers from few graphs, whatever is asked."""

import copy
import shutil

import pytest
import tiny
import torch
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

import textdiff
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide
from textdiff.network import Pretrained

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),
]


def test_every_schedule_and_batch_of_a_model_shares_a_few_graphs(monkeypatch):
    """Those of one row and of many, of one time and of several; then no shape is new."""
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    model = textdiff.load(tiny.run())
    asked = [
        {"hyperschedule": schedule, "num_return_sequences": rows, "max_length": length, "seed": 1}
        for schedule in (Flat(6), Block(4, 3), Slide(6, 2), QuenchedAR())
        for rows, length in ((1, 12), (3, 16), (2, 9))
    ]
    expected = [model.generate(**options).texts for options in asked]
    [nats] = [bound.nats for bound in model.measure("the quick brown fox")[:1]]
    counters.clear()
    model.compile()
    assert [model.generate(**options).texts for options in asked] == expected
    assert model.measure("the quick brown fox")[0].nats == pytest.approx(nats, rel=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    for L in (5, 7, 10, 11, 13):
        model.generate(max_length=L, num_return_sequences=4, hyperschedule=Block(3, 3))
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]


@torch.no_grad()
def test_a_copy_of_a_compiled_network_has_weights_of_its_own():
    """What is compiled takes the block as an argument, so no copy runs the original's weights."""
    network = textdiff.load(tiny.run()).network
    network.compile()
    ids = torch.arange(6)[None]
    other = copy.deepcopy(network)
    for weight in other.blocks.parameters():
        weight.mul_(0.5)
    plain = copy.deepcopy(other)
    for block in plain.blocks:
        block.compiled = False
    torch.testing.assert_close(other(ids), plain(ids))
    assert not torch.allclose(other(ids), network(ids))


@torch.no_grad()
def test_an_adapted_base_compiles_its_mlps(tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    base = LlamaConfig(vocab_size=7, num_attention_heads=4, **shape)
    LlamaForCausalLM(base).save_pretrained(tmp_path)
    network = Pretrained(str(tmp_path)).build(7, sees_time=False, bos=4)
    ids = torch.arange(6)[None]
    expected = network(ids)
    counters.clear()
    network.compile()
    torch.testing.assert_close(network(ids), expected)
    assert counters["stats"]["unique_graphs"] == 1
