"""Our transformer and the chunked head."""

import math

import pytest
import torch
from catalogue import name
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toys import a_bound, random_transformer

import textdiff.denoiser.head as head
import textdiff.network
import textdiff.objective.bounds
from textdiff.denoiser.head import chunks, logits_of, row_values
from textdiff.denoiser.visibility import Visibility
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide
from textdiff.network import Transformer, TransformerDenoiser, block
from textdiff.network.block import Condition, at, lean
from textdiff.network.embeddings import rotary
from textdiff.noise import Noise
from textdiff.objective import (
    Batch,
    Nelbo,
    ScoreEntropy,
    Stratified,
    WeightedCrossEntropy,
    least_variance,
    nelbo_integrand,
)
from textdiff.objective.estimators import Draw
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    SmoothEpsilonHybrid,
    Uniform,
)


def network(
    N: int = 6, sees_time: bool = False, dtype: torch.dtype = torch.float64, **shape: object
) -> TransformerDenoiser:
    return random_transformer(N, sees_time, **shape).to(dtype).train()


def untrained(N: int = 6, sees_time: bool = False, **shape: object) -> TransformerDenoiser:
    torch.manual_seed(0)
    return Transformer(**{"layers": 2, "width": 16, "heads": 2} | shape).build(N, sees_time, bos=0)


def batch_of(ids: Tensor) -> Batch:
    index = torch.arange(len(ids))
    return Batch(ids, index, index)


# ------------------------------------------------------------------------------
# chunked head


@pytest.mark.parametrize("least", [1, 4, 96])
@pytest.mark.parametrize("rows", [0, 1, 11])
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("whole", [1, 4])
def test_chunked_head_is_plain_autograd(tie, rows, least, whole, monkeypatch):
    """Values, and the gradients of hidden rows, weight (or embedding) and bias, for chunks that do
    not divide the rows, and with tokens of zeros behind the others.
    """
    monkeypatch.setattr(head, "WHOLE", {"cpu": whole})
    N, net, process = 6, network(tie=tie), GammaHybrid(0.3)
    draw = torch.Generator().manual_seed(1)
    x, z = torch.randint(N, (rows,), generator=draw), torch.randint(N + 1, (rows,), generator=draw)
    t = torch.rand(rows, dtype=torch.float64, generator=draw)
    monkeypatch.setattr(head, "CHUNK", {"cpu": 0})
    monkeypatch.setattr(head, "LEAST_ROWS", least)
    parameters = [net.embedding.weight] if tie else [net.output.weight, net.output.bias]

    def gradients(total: Tensor, hidden: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(3 * total, [hidden, *parameters], allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g
            for p, g in zip([hidden, *parameters], found, strict=True)
        ]

    hidden = torch.randn(rows, 16, dtype=torch.float64, generator=draw, requires_grad=True)
    plain = nelbo_integrand(logits_of(net, hidden), x, z, t, process)

    def value(logits: Tensor, part: slice) -> Tensor:
        return nelbo_integrand(logits, x[part], z[part], t[part], process)

    total, values = row_values(net, hidden, value)
    assert not values.requires_grad
    torch.testing.assert_close(values, plain.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(total, plain.sum(), rtol=1e-12, atol=1e-12)
    for found, expected in zip(
        gradients(total, hidden), gradients(plain.sum(), hidden), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_heads_gradient_is_handed_out_once():
    total, _ = row_values(
        network(),
        torch.randn(5, 16, dtype=torch.float64, requires_grad=True),
        lambda logits, _: logits.sum(-1),
    )
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed out already"):
        total.backward()


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (
            torch.ops.aten.mm.default,
            torch.ops.aten.addmm.default,
            torch.ops.aten.bmm.default,
        )
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("sees_time", [False, True])
def test_a_lean_block_recomputes_no_product_and_has_the_plain_gradient(
    sees_time, context, monkeypatch
):
    net, draw = network(sees_time=sees_time, layers=1), torch.Generator().manual_seed(3)
    D, found = net.config.width, []
    window = torch.ones(1, 6 - context, 6, dtype=torch.bool).tril(context) if context else None
    visibility = Visibility(context, None, window)
    rotation = rotary(torch.arange(6), D // net.config.heads, torch.float64)
    rows, table = (
        torch.randn(2, 6, D, generator=draw).double(),
        torch.randn(12, D, generator=draw).double(),
    )
    c = Condition(table, torch.arange(12).view(2, 6)) if sees_time else None
    for kept_by in (lean, lambda function, *inputs: function(*inputs)):
        monkeypatch.setattr(block, "lean", kept_by)
        x = rows.clone().requires_grad_()
        with Products() as products:
            y = net.blocks[0](x, c, rotation, visibility)
            gradients = torch.autograd.grad(y.square().sum(), [x, *net.blocks[0].parameters()])
        found.append((products.count, gradients))
    assert found[0][0] == found[1][0] > 0
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=1e-12)


def test_a_place_is_read_by_a_look_up_or_by_a_product():
    """Rows and gradients of both are the same."""
    table, place = torch.randn(3, 4, dtype=torch.float64), torch.randint(3, (2, 5))
    results = []
    for read in (place, torch.nn.functional.one_hot(place, 3).double()):
        own = table.clone().requires_grad_()
        rows = at(read, own)
        (gradient,) = torch.autograd.grad(rows.square().sum(), own)
        results.append((rows.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=0)


def test_chunks_cover_the_rows_and_bound_the_logits(monkeypatch):
    monkeypatch.setattr(head, "CHUNK", {"cpu": 20, "cuda": 40})
    monkeypatch.setattr(head, "LEAST_ROWS", 1)
    assert [(c.start, c.stop) for c in chunks(7, 6, "cpu")] == [(0, 3), (3, 6), (6, 7)]
    assert [(c.start, c.stop) for c in chunks(7, 6, "cuda")] == [(0, 6), (6, 7)]
    assert [(c.start, c.stop) for c in chunks(2, 100, "cpu")] == [(0, 1), (1, 2)]
    assert list(chunks(0, 6, "cpu")) == []


def test_chunked_head_needs_no_gradient():
    net = network()
    with torch.no_grad():
        total, values = row_values(
            net, torch.randn(5, 16).double(), lambda logits, rows: logits.sum(-1)
        )
    assert not total.requires_grad
    assert total == values.sum()


@pytest.mark.parametrize("objective", [Nelbo(), WeightedCrossEntropy(0.0)], ids=name)
def test_rows_without_loss_never_reach_the_head(objective, monkeypatch):
    """ε-Hybrid: only masked rows have a value, and known tokens have none."""
    counted = []

    def counting(network, hidden, value):
        counted.append(len(hidden))
        return row_values(network, hidden, value)

    monkeypatch.setattr(textdiff.objective.bounds, "row_values", counting)
    process, schedule, net = EpsilonHybrid(0.3), Flat(), network()
    ids, known = torch.randint(6, (8, 20)), torch.arange(20).expand(8, -1) >= 15
    batch = Batch(ids, torch.arange(8), torch.arange(8), known=known)
    draw = Stratified()(batch, process, schedule, 6, Noise(0, batch.example))
    drawn = a_bound(process, schedule, objective).at(net, batch, draw)
    total, values = drawn.total, drawn.values
    masked = draw.z == 6
    assert counted == [int(masked.sum())]
    assert 0 < counted[0] < 8 * 15
    assert torch.equal(values > 0, masked)
    assert total.item() == pytest.approx(values.sum().item(), rel=1e-12)


def test_a_batch_in_which_no_row_has_a_value_gives_zero_gradients():
    process, schedule, net = Absorbing(), Flat(), network()
    batch = batch_of(torch.randint(6, (2, 4)))
    t = torch.full((2, 4), 0.5).double()
    draw = Draw(batch.ids, t, None, schedule.plan(4).tiling(torch.zeros(1, 1)), 1.0)
    drawn = a_bound(process, schedule).at(net, batch, draw)
    total, values = drawn.total, drawn.values
    total.backward()
    assert total == 0
    assert not values.any()
    assert not net.blocks[0].qkv.weight.grad.any()


# ------------------------------------------------------------------------------
# untrained network

UNTRAINED = [
    (Absorbing(), Flat(8)),
    (Uniform(), Flat(8)),
    (GammaHybrid(0.3), Flat(8)),
    (GammaHybridMaskClock(0.05), Flat(8)),
    (EpsilonHybrid(0.1), Flat(8)),
    (SmoothEpsilonHybrid(0.1), Flat(8)),
    (GIDD(), Flat(8)),
    (EpsilonHybrid(0.1), Block(4, 4)),
    (GammaHybrid(0.3), Slide(4, 2)),
    (Absorbing(), QuenchedAR()),
]


@pytest.mark.parametrize("sees_time", [False, True])
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize(("process", "schedule"), UNTRAINED, ids=name)
def test_an_untrained_networks_bound_is_near_log_n(process, schedule, tie, sees_time):
    """Within 0.1 nats of log N (and 5 s.e. of the draws) for uniform tokens: a network that knows
    nothing says nothing.
    """
    N, B, L = 50, 768, 16
    net = untrained(N, sees_time, width=64, heads=4, tie=tie).eval()
    batch = batch_of(torch.randint(N, (B, L), generator=torch.Generator().manual_seed(1)))
    estimator = least_variance(process, schedule, L, sees_time=sees_time)
    with torch.no_grad():
        nats = (
            a_bound(process, schedule, Nelbo(), estimator)
            .nats(net, batch, Noise(1, batch.example))
            .values.mean(-1)
        )
    error = float(nats.view(-1, 64).mean(-1).std() / math.sqrt(B / 64))
    assert abs(float(nats.mean()) - math.log(N)) < 0.1 + 5 * error
    assert error < 0.2


@pytest.mark.parametrize("sees_time", [False, True])
@pytest.mark.parametrize(
    "process", [Uniform(), GammaHybrid(0.3), EpsilonHybrid(0.1), GIDD()], ids=name
)
def test_an_untrained_tied_head_costs_no_more_than_a_zero_one(process, sees_time):
    """On the same noise, at a width where the own token's embedding alone would be a logit of 0.02
    D = 5.
    """
    N, B, L, found = 50, 256, 16, []
    batch = batch_of(torch.randint(N, (B, L), generator=torch.Generator().manual_seed(1)))
    for tie in (False, True):
        net = untrained(N, sees_time, width=256, heads=4, layers=1, tie=tie).eval()
        with torch.no_grad():
            nats = a_bound(process, Flat()).nats(net, batch, Noise(1, batch.example)).values
        found.append(float(nats.mean()))
    assert abs(found[1] - found[0]) < 0.1


def test_an_untrained_conditioned_block_is_the_identity():
    net, ids = untrained(sees_time=True), torch.randint(7, (2, 5))
    torch.testing.assert_close(hidden(net, ids), net.norm(net.embedding(ids)), rtol=0, atol=0)


@pytest.mark.parametrize("sees_time", [False, True])
def test_an_untrained_score_networks_bound_is_near_log_n(sees_time):
    """The level's scale in `log_score` does it."""
    N, B, L, process = 50, 768, 16, GammaHybrid(0.05)
    net = untrained(N, sees_time, width=64, heads=4).eval()
    batch = batch_of(torch.randint(N, (B, L), generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        nats = (
            a_bound(process, Flat(), ScoreEntropy())
            .nats(net, batch, Noise(1, batch.example))
            .values.mean(-1)
        )
    error = float(nats.view(-1, 64).mean(-1).std() / math.sqrt(B / 64))
    assert abs(float(nats.mean()) - math.log(N)) < 0.1 + 5 * error


# ------------------------------------------------------------------------------
# transformer


def hidden(
    net: TransformerDenoiser,
    ids: Tensor,
    positions: Tensor | None = None,
    t: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    positions = torch.arange(ids.shape[1]) if positions is None else positions
    return net.body(
        ids,
        positions,
        torch.zeros(ids.shape).double() if t is None else t,
        Visibility(context=ids.shape[1] if causal else 0),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_attention_depends_on_relative_positions_only(causal):
    net, ids = network(), torch.randint(7, (2, 5))
    reference = hidden(net, ids, causal=causal)
    torch.testing.assert_close(
        hidden(net, ids, torch.arange(5) + 40, causal=causal), reference, rtol=0, atol=1e-4
    )
    assert (
        hidden(net, ids, torch.tensor([0, 2, 4, 6, 8]), causal=causal) - reference
    ).abs().max() > 1e-2


def test_rows_know_their_position_not_their_place():
    net, ids, order = network(), torch.randint(7, (2, 5)), torch.tensor([3, 0, 4, 1, 2])
    shuffled = hidden(net, ids[:, order], order)
    torch.testing.assert_close(shuffled, hidden(net, ids)[:, order], rtol=0, atol=1e-12)


def test_only_a_conditioned_network_sees_t():
    ids = torch.randint(7, (2, 5))
    early, late = (torch.full((2, 5), t, dtype=torch.float64) for t in (0.2, 0.7))
    one_late = early.clone()
    one_late[:, 2] = 0.7
    seeing, blind = network(sees_time=True), network()
    assert (hidden(seeing, ids, t=early) != hidden(seeing, ids, t=late)).any(-1).all()
    assert (hidden(seeing, ids, t=early) != hidden(seeing, ids, t=one_late)).any(-1).all(), (
        "t is per token, seen by all"
    )
    assert torch.equal(hidden(blind, ids, t=early), hidden(blind, ids, t=late))
    assert blind.time is None
    assert not any("time" in key or "modulation" in key for key in blind.state_dict())


def test_dropout_is_off_in_eval_and_on_in_training():
    net, ids = network(dropout=0.5), torch.randint(7, (2, 5))
    plain = network(dropout=0.0)
    net.eval()
    assert torch.equal(hidden(net, ids), hidden(net, ids))
    assert torch.equal(hidden(net, ids), hidden(plain, ids))
    net.train()
    assert not torch.equal(hidden(net, ids), hidden(net, ids))


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize(
    "process", [Absorbing(), GammaHybrid(0.3), EpsilonHybrid(0.1), GIDD()], ids=name
)
def test_bfloat16_autocast_trains(process, tie):
    """Loss and every gradient are finite, in float32, and near those of float32."""
    schedule, found = Flat(), []
    batch = batch_of(torch.randint(6, (16, 12), generator=torch.Generator().manual_seed(0)))
    for enabled in (False, True):
        net = network(sees_time=process.needs_time, dtype=torch.float32, tie=tie)
        draw = Stratified()(batch, process, schedule, 6, Noise(0, batch.example))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            drawn = a_bound(process, schedule).at(net, batch, draw)
            total, values = drawn.total, drawn.values
        total.backward()
        assert values.dtype == torch.float64
        gradients = [parameter.grad for parameter in net.parameters()]
        assert all(
            g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in gradients
        )
        found.append((total.item(), torch.cat([g.flatten() for g in gradients])))
    (exact, full), (rough, half) = found
    assert rough == pytest.approx(exact, rel=0.02)
    assert float(torch.cosine_similarity(full, half, dim=0)) > 0.99


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("sees_time", [False, True])
def test_state_dict_and_save_pretrained_round_trip(tmp_path, tie, sees_time):
    net, ids = (
        network(tie=tie, sees_time=sees_time, dtype=torch.float32).eval(),
        torch.randint(7, (2, 5)),
    )
    other = untrained(tie=tie, sees_time=sees_time).eval()
    other.load_state_dict(net.state_dict())
    net.save_pretrained(tmp_path)
    opened = TransformerDenoiser.from_pretrained(tmp_path).eval()
    assert opened.config.tie == tie
    for copy in (other, opened):
        assert all(
            torch.equal(tensor, copy.state_dict()[key]) for key, tensor in net.state_dict().items()
        )
        torch.testing.assert_close(copy(ids), net(ids), rtol=1e-5, atol=1e-5)
        assert (copy.num_tokens, copy.shifted, copy.bos, copy.sees_time) == (
            6,
            False,
            0,
            sees_time,
        )


def test_forward_is_the_head_of_the_body():
    net, ids = network(), torch.randint(7, (2, 5))
    torch.testing.assert_close(net(ids), logits_of(net, hidden(net, ids)), rtol=0, atol=1e-12)
    assert net(ids).shape == (2, 5, 6)


@pytest.mark.parametrize(
    "bad", [{"width": 18, "heads": 4}, {"dropout": 1.0}, {"dropout": -0.1}], ids=str
)
def test_impossible_shapes_are_refused(bad):
    with pytest.raises(ValueError, match=r"width|dropout"):
        Transformer(**bad).build(6, False, 0)


def test_a_toy_learns_a_deterministic_text():
    """A hundred steps on one repeated sentence bring the loss well below that of the untrained
    network.
    """
    net = untrained(8, width=32)
    batch, process, schedule = batch_of((torch.arange(16) % 8).expand(32, -1)), Absorbing(), Flat()
    optimiser, losses = torch.optim.AdamW(net.parameters(), 5e-3), []
    for step in range(100):
        draw = least_variance(process, schedule, 16)(
            batch, process, schedule, 8, Noise(0, batch.example, step)
        )
        total = a_bound(process, schedule).at(net, batch, draw).total
        optimiser.zero_grad()
        (total / batch.ids.numel()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(total.item() / batch.ids.numel())
    assert losses[0] == pytest.approx(math.log(8), abs=0.1)
    assert losses[-1] < 0.7


def test_names_that_denoisers_had_before():
    assert textdiff.network.TransformerModel is TransformerDenoiser
    assert textdiff.network.DDiT is textdiff.network.DDiTDenoiser
    with pytest.raises(AttributeError, match="TransformerX"):
        textdiff.network.TransformerX  # noqa: B018
