"""Published checkpoints: arithmetic against `ddit_reference`, every family and size, safety of
loading, whole output.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ddit_reference as reference
import pytest
import tiny
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import textdiff
from textdiff.commands.cli import main
from textdiff.convert import FAMILIES, convert
from textdiff.convert.checkpoint import Checkpoint
from textdiff.denoiser.generation_rows import generation_call
from textdiff.denoiser.head import logits_of, to_cavity
from textdiff.denoiser.prediction import Prediction, log_score, posterior_logits
from textdiff.denoiser.training_rows import training_call
from textdiff.denoiser.visibility import Visibility
from textdiff.evaluation import perplexity
from textdiff.generation.engine import denoise
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide
from textdiff.network.ddit import DDiTDenoiser
from textdiff.noise import Noise
from textdiff.objective import Batch
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid, Uniform
from textdiff.samplers import ACS, Analytic, Ancestral, Euler, PublishedACS

N, L, HEADS = 11, 6, 2
HDLM_MODEL = {"hidden_size": 16, "n_heads": HEADS, "n_blocks": 2, "cond_dim": 8, "length": L}
BLIND = {
    "scale_by_sigma": False,
    "hybrid_sigma_embedding": False,
    "transformer_sigma_conditioning": False,
}
SEEING = {
    "scale_by_sigma": True,
    "hybrid_sigma_embedding": True,
    "transformer_sigma_conditioning": True,
    "post_process_logits": True,
}
EPSILON = {
    "model_type": "epsilon_hybrid",
    "type": "aligned",
    "tokenizer": {"tokens": N},
    "training": {"loss_type": "hybrid", "epsilon": 0.01, "lambda": 1.0},
    "model": HDLM_MODEL | BLIND,
    "annealing": {"type": "none", "width": L, "tau": 8, "eval_tau": "${annealing.tau}"},
}
GAMMA = {
    "model_type": "gamma_hybrid",
    "tokenizer": {"tokens": N},
    "graph": {"type": "QGamma", "gamma": 0.05},
    "noise": {"type": "loglinear"},
    "model": HDLM_MODEL | SEEING,
    "annealing": {"type": "block", "width": L, "tau": 8, "sampling_method": "SAR"},
}
SEDD = {
    "tokens": N,
    "graph": {"type": "absorb"},
    "noise": {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20},
    "model": {"hidden_size": 16, "n_heads": HEADS, "length": L, "scale_by_sigma": True},
}
MDLM = {"vocab_size": N + 1, "model_length": L, "n_heads": HEADS, "time_conditioning": False}
BD3LM = MDLM | {"block_size": 2, "cross_attn": True}
CONFIGS = {"hdlm": EPSILON, "mdlm": MDLM, "sedd": SEDD, "bd3lm": BD3LM}


def with_(config: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A configuration with dotted names (`__` for the dot) set."""
    made = json.loads(json.dumps(config))
    for name, value in values.items():
        part = made
        *path, last = name.split("__")
        for step in path:
            part = part.setdefault(step, {})
        part[last] = value
    return made


def tokenizer(tokens: int = N, mask: int | None = None) -> PreTrainedTokenizerFast:
    words = ["<|endoftext|>", *(f"w{i}" for i in range(1, tokens))]
    made = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0])
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.Fuse()
    end = words[0]
    masked = {} if mask is None else {"mask_token": words[mask]}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=end, bos_token=end, unk_token=end, **masked
    )


def folder(
    to: Path,
    state: dict[str, Tensor],
    config: dict[str, Any],
    tokens: int = N,
    mask: int | None = None,
) -> Path:
    """A Hub folder: weights, configuration and tokenizer."""
    to.mkdir(parents=True, exist_ok=True)
    save_file(state, to / "model.safetensors")
    tokenizer(tokens, mask).save_pretrained(to)
    (to / "config.json").write_text(json.dumps(config))
    return to


def epsilon_state() -> dict[str, Tensor]:
    return reference.published(N + 1, C=0, hdlm=True)


def gamma_state() -> dict[str, Tensor]:
    return reference.published(N + 1, output=False, hdlm=True)


def dit_state(V: int = N + 1) -> dict[str, Tensor]:
    return reference.published(V)


def body_logits(model: textdiff.Model, ids: Tensor, t: Tensor) -> Tensor:
    """Raw outputs [L, N] of one aligned sequence in one window."""
    hidden = model.network.body(ids[None], torch.arange(len(ids)), t[None].double(), Visibility())
    return logits_of(model.network, hidden)[0]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=2e-5)


IDS = torch.tensor([3, N, 0, N, N, 10])
MASKED = IDS == N
SIGMAS = [0.4, 0.4, 0.4, 0.4, 0.4, 0.4]


def at_sigma(sigma: float, tail: float = 0.0) -> Tensor:
    return torch.full((L,), (1 - math.exp(-sigma)) / (1 - tail)).double()


# ------------------------------------------------------------------------------
# arithmetic


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_mdlm_is_the_posterior_at_masked_positions(tmp_path, prefix):
    state = dit_state()
    source = folder(tmp_path, {prefix + name: value for name, value in state.items()}, MDLM)
    model = convert("mdlm", source)
    found = body_logits(model, IDS, at_sigma(0.4)).log_softmax(-1)
    expected = reference.subs(reference.forward(state, IDS.tolist(), [0.0] * L), mask=N)
    close(found[MASKED], expected[MASKED][:, :N])
    assert isinstance(model.process, Absorbing) and model.prediction == Prediction.CAVITY
    assert not model.network.sees_time and model.network.cacheable


def test_mdlm_with_a_mask_inside_the_vocabulary(tmp_path):
    """LM1B: bert-base-uncased has a mask token of its own; its column never occurs, our MASK is one
    id more.
    """
    mask, state = 4, dit_state(N)
    model = convert("mdlm", folder(tmp_path, state, MDLM, mask=mask))
    theirs = torch.where(MASKED, mask, IDS)
    expected = reference.subs(reference.forward(state, theirs.tolist(), [0.0] * L), mask)[MASKED]
    found = body_logits(model, IDS, at_sigma(0.4)).log_softmax(-1)[MASKED]
    close(found.exp(), expected.exp())
    others = torch.arange(N) != mask
    close(found[:, others], expected[:, others])
    assert (found[:, mask].exp() == 0).all()
    assert math.isfinite(measured(model, never=mask)["NELBO"])


def test_a_padded_vocabulary(tmp_path):
    """Rows after MASK are left out of embedding and head, and it is said."""
    state = dit_state(16)
    model = convert("mdlm", folder(tmp_path, state, MDLM))
    expected = reference.forward(state, IDS.tolist(), [0.0] * L)[:, :N].log_softmax(-1)
    close(body_logits(model, IDS, at_sigma(0.4)).log_softmax(-1)[MASKED], expected[MASKED])
    assert any("4 rows that pad" in note for note in model.data["notes"])


def test_mdlm_with_time_conditioning_sees_sigma(tmp_path):
    state = dit_state()
    model = convert("mdlm", folder(tmp_path, state, MDLM | {"time_conditioning": True}))
    expected = reference.subs(reference.forward(state, IDS.tolist(), SIGMAS), mask=N)
    close(body_logits(model, IDS, at_sigma(0.4)).log_softmax(-1)[MASKED], expected[MASKED][:, :N])
    assert model.network.sees_time and model.process == GammaHybrid(0.0)


@pytest.mark.parametrize("sigma", [0.02, 0.4, 3.0])
def test_sedd_log_scores(tmp_path, sigma):
    """Ours plus the level of `log_score` is the published score over ordinary tokens at MASK."""
    state = dit_state()
    model = convert("sedd", folder(tmp_path, state, SEDD))
    t = at_sigma(sigma)
    found = log_score(body_logits(model, IDS, t), IDS, model.process.clock(t).mask)
    expected = reference.scaled_scores(
        reference.forward(state, IDS.tolist(), [sigma] * L), IDS.tolist(), [sigma] * L
    )
    close(found[MASKED], expected[MASKED][:, :N])
    assert (found[~MASKED, IDS[~MASKED]] == 0).all()
    assert model.prediction == Prediction.LOG_SCORE and not model.network.cacheable


def test_sedd_without_scale_by_sigma(tmp_path):
    state = dit_state()
    model = convert("sedd", folder(tmp_path, state, with_(SEDD, model__scale_by_sigma=False)))
    t = at_sigma(0.4)
    found = log_score(body_logits(model, IDS, t), IDS, model.process.clock(t).mask)
    close(found[MASKED], reference.forward(state, IDS.tolist(), SIGMAS)[MASKED][:, :N])


@pytest.mark.parametrize("noise", ["loglinear", "geometric"])
def test_sedd_uniform(tmp_path, noise):
    config = with_(SEDD, graph__type="uniform", model__scale_by_sigma=False, noise__type=noise)
    state, ids = dit_state(N), IDS % N
    model = convert("sedd", folder(tmp_path, state, config))
    tail = {"loglinear": 1e-3, "geometric": math.exp(-20)}[noise]
    t = at_sigma(0.4, tail)
    found = log_score(body_logits(model, ids, t), ids, torch.zeros(L).double())
    expected = reference.forward(state, ids.tolist(), SIGMAS)
    expected[range(L), ids] = 0.0
    close(found, expected)
    assert isinstance(model.process, Uniform)
    sigma = -float(model.process.clock(torch.ones(()).double()).log_keep)
    assert sigma == pytest.approx(-math.log(tail), rel=1e-6), "it ends where training did"
    own, other = 1 + (N - 1) * tail, 1 - tail
    nats = own / N * math.log1p((N - 1) * tail) + (N - 1) * other / N * math.log1p(-tail)
    assert float(model.process.prior_kl(N)) == pytest.approx(nats, rel=1e-3, abs=1e-12)


def test_a_level_outside_training_is_the_nearest_one_inside(tmp_path):
    state = dit_state()
    model = convert("mdlm", folder(tmp_path, state, MDLM | {"time_conditioning": True}))
    expected = reference.subs(reference.forward(state, [N] * L, [-math.log(1e-3)] * L), mask=N)
    close(body_logits(model, torch.full((L,), N), torch.ones(L)).log_softmax(-1), expected[:, :N])


def test_hdlm_epsilon_is_a_posterior_for_self_noise_one_half(tmp_path):
    """Cavity logits with the published shift give back the published softmax, masked and visible,
    MASK column left out.
    """
    state = epsilon_state()
    model = convert("hdlm", folder(tmp_path, state, EPSILON))
    raw = body_logits(model, IDS, at_sigma(0.4))
    cavity = to_cavity(model.network, raw, IDS)
    half = torch.full((L,), math.log(0.5)).double()
    expected = reference.subs(reference.forward(state, IDS.tolist(), SIGMAS), mask=N)[:, :N]
    close(posterior_logits(cavity, IDS, half, half).log_softmax(-1), expected)
    shift = (
        cavity.log_softmax(-1)[0] - expected[0]
    )  # a visible token: its odds against the others fall by 1 + N
    own = int(IDS[0])
    others = torch.arange(N) != own
    close((shift[own] - shift[others]), torch.full((N - 1,), -math.log(1 + N)))
    assert model.process == EpsilonHybrid(0.01) and model.network.sees_time is False


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_hdlm_gamma_log_scores_with_a_sigma_per_token(tmp_path, scaled, mixed):
    state, gamma = gamma_state(), 0.05
    config = with_(GAMMA, model__scale_by_sigma=scaled, model__hybrid_sigma_embedding=mixed)
    model = convert("hdlm", folder(tmp_path, state, config))
    sigma = [1.5, 0.3, 0.02, 2.0, 0.3, 4.0]
    t = (1 - torch.exp(-torch.tensor(sigma, dtype=torch.float64))) / (1 - 5e-3)
    found = log_score(body_logits(model, IDS, t), IDS, model.process.clock(t).mask)
    outputs = reference.forward(state, IDS.tolist(), sigma, mix=gamma if mixed else 0.0)
    expected = reference.scaled_scores(outputs, IDS.tolist(), sigma) if scaled else outputs
    visible = torch.arange(L)[~MASKED]
    expected[visible, IDS[visible]] = 0.0
    close(found, expected[:, :N])
    assert model.process == GammaHybrid(gamma, tail=5e-3) and model.network.cacheable


def test_hdlm_gamma_at_the_ends_of_time(tmp_path):
    """Settled tokens at 1e-4, full noise at 1 - 1e-4 of the authors' time; finite everywhere."""
    state = gamma_state()
    model = convert("hdlm", folder(tmp_path, state, GAMMA))
    tail = 5e-3
    half = 0.5 / (1 - tail)
    t = torch.tensor([0.0, 1.0, 0.0, 1.0, half, half]).double()
    sigma = [-math.log1p(-(1 - tail) * 1e-4), -math.log1p(-(1 - tail) * (1 - 1e-4))] * 2 + [
        math.log(2)
    ] * 2
    outputs = reference.forward(state, IDS.tolist(), sigma, mix=0.05)
    found = body_logits(model, IDS, t)
    row = outputs[0] - math.log(math.expm1(sigma[0])) - math.log(N)
    close(found[0], row[:N])
    assert found.isfinite().all()


def test_bd3lm_two_streams_and_generation(tmp_path):
    """Our training call, and the call that draws a block, see what BD3-LM's [noisy; clean] mask
    lets them see.
    """
    state = dit_state()
    model = convert("bd3lm", folder(tmp_path, state, BD3LM))
    assert model.hyperschedule == Block(2, 2, block_causal=True)
    x, z = torch.tensor([[3, 1, 0, 7, 2, 10]]), IDS[None]
    expected = reference.forward(
        state,
        [*z[0].tolist(), *x[0].tolist()],
        [0.0] * 2 * L,
        positions=[*range(L), *range(L)],
        sees=reference.block_diffusion_mask(L, 2),
    )[:L, :N]
    tiling = model.hyperschedule.plan(L).tiling(torch.zeros(1, 1, dtype=torch.int64))
    call = training_call(
        model.network, model.hyperschedule, x, z, torch.full((1, L), 0.5).double(), tiling=tiling
    )
    close(logits_of(model.network, call.hidden(model.network))[0], expected)
    drawn = torch.cat([x[:, :2], z[:, 2:4], torch.full((1, 2), N)], 1)
    call, active = generation_call(
        model.network, model.hyperschedule, 2, drawn, torch.tensor([[0.0, 0, 1, 1, 1, 1]]).double()
    )
    assert active.tolist() == [2, 3]
    close(logits_of(model.network, call.hidden(model.network))[0], expected[2:4])


def test_hdlm_shifted_rows_predict_the_next_token(tmp_path):
    state = epsilon_state()
    model = convert("hdlm", folder(tmp_path, state, with_(EPSILON, type="shifted")))
    assert model.network.shifted and model.network.bos == 0
    call, _ = generation_call(
        model.network, Flat(4), 1, IDS[None], torch.full((1, L), 0.75).double()
    )
    expected = reference.forward(state, [0, *IDS.tolist()], [0.0] * (L + 1))[:L, :N]
    close(logits_of(model.network, call.hidden(model.network))[0], expected)


# ------------------------------------------------------------------------------
# families, sizes, hyperschedules


class Words:
    """A tokenizer of a published size, as far as a converter asks."""

    bos_token_id = 0

    def __init__(self, count: int, mask: int | None = None):
        self.count, self.mask_token_id = count, mask

    def __len__(self) -> int:
        return self.count

    def get_vocab(self) -> dict[str, int]:
        return {str(token): token for token in range(self.count)}


def size(D: int, layers: int, heads: int) -> dict[str, int]:
    return {"D": D, "layers": layers, "heads": heads}


TINY, SMALL, MEDIUM = size(512, 8, 8), size(768, 12, 12), size(1024, 24, 16)
GPT2, BERT = Words(50257), Words(30522, 103)
PUBLISHED = {
    "sedd-small": ("sedd", SMALL, 128, {}, GPT2, with_(SEDD, model__n_heads=12)),
    "sedd-medium": ("sedd", MEDIUM, 128, {}, GPT2, with_(SEDD, model__n_heads=16)),
    "mdlm-tiny": ("mdlm", TINY, 128, {}, GPT2, MDLM | {"n_heads": 8}),
    "mdlm-owt": ("mdlm", SMALL, 128, {}, GPT2, MDLM | {"n_heads": 12}),
    "mdlm-medium": ("mdlm", MEDIUM, 128, {}, GPT2, MDLM | {"n_heads": 16}),
    "mdlm-lm1b": ("mdlm", SMALL, 128, {}, BERT, MDLM | {"n_heads": 12, "model_length": 128}),
    "mdlm-hf-default": ("mdlm", SMALL, 129, {}, GPT2, MDLM | {"n_heads": 12}),
    "bd3lm-4": (
        "bd3lm",
        SMALL,
        128,
        {},
        GPT2,
        BD3LM | {"n_heads": 12, "block_size": 4, "model_length": 1024},
    ),
    "bd3lm-8": (
        "bd3lm",
        SMALL,
        128,
        {},
        GPT2,
        BD3LM | {"n_heads": 12, "block_size": 8, "model_length": 1024},
    ),
    "bd3lm-16": (
        "bd3lm",
        SMALL,
        128,
        {},
        GPT2,
        BD3LM | {"n_heads": 12, "block_size": 16, "model_length": 1024},
    ),
    "bd3lm-lm1b": (
        "bd3lm",
        SMALL,
        128,
        {},
        BERT,
        BD3LM | {"n_heads": 12, "block_size": 16, "model_length": 128},
    ),
    "bd3lm-no-adaln": (
        "bd3lm",
        SMALL,
        0,
        {},
        GPT2,
        BD3LM | {"n_heads": 12, "block_size": 16, "model_length": 1024},
    ),
    "hdlm-epsilon": ("hdlm", SMALL, 0, {"hdlm": True}, GPT2, with_(EPSILON, model__n_heads=12)),
    "hdlm-gamma": (
        "hdlm",
        SMALL,
        128,
        {"hdlm": True, "output": False},
        GPT2,
        with_(GAMMA, model__n_heads=12),
    ),
}
DOCUMENTED = {"hdlm-epsilon": 162_246_482, "hdlm-gamma": 169_429_074}
MEGABYTES = {
    "mdlm-owt": 679,
    "bd3lm-4": 679,
    "bd3lm-8": 679,
    "hdlm-epsilon": 649,
    "hdlm-gamma": 678,
}
"""Sizes of the published files, as the Hub shows them."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes(name):
    """Names and shapes of every documented checkpoint, without memory: all consumed, none missing,
    as many parameters as it says.
    """
    family, shape, C, options, words, config = PUBLISHED[name]
    V = len(words) + (words.mask_token_id is None)
    state = reference.published(V, **shape, C=C, **options, device="meta")
    model = FAMILIES[family](Checkpoint(Path(name), state, OmegaConf.create(config)), words)
    theirs = sum(value.numel() for key, value in state.items() if "inv_freq" not in key)
    assert theirs == DOCUMENTED.get(name, theirs)
    megabytes = 4 * theirs / 1e6
    assert abs(megabytes - MEGABYTES.get(name, megabytes)) <= 0.5
    ours = sum(parameter.numel() for parameter in model.network.parameters())
    D, masked_inside, level = (
        shape["D"],
        words.mask_token_id is not None,
        len(words) * (name == "hdlm-gamma"),
    )
    assert ours == theirs + level + (
        D if masked_inside else -(D + 1)
    )  # MASK has no column; inside, its row stands twice
    assert all(parameter.is_meta for parameter in model.network.parameters())
    assert model.network.num_tokens == len(words)


@pytest.mark.parametrize(
    ("annealing", "expected"),
    [
        ({"type": "none", "eval_tau": 8}, Flat(8)),
        ({"type": "block", "width": L, "tau": 16}, Flat(16)),
        (
            {"type": "block", "width": 2, "tau": 4, "attention": {"context_type": "block_causal"}},
            Block(2, 4, block_causal=True),
        ),
        (
            {"type": "block", "width": 2, "tau": 4, "attention": {"context_type": "causal"}},
            Block(2, 4),
        ),
        ({"type": "simple", "width": 4, "tau": 2}, Slide(4, 2)),
        ({"type": "simple", "width": 3, "tau": 6}, Slide(3, "1/2")),
        ({"type": "hybrid", "width": 2, "tau": 4}, Block(2, 4)),
    ],
    ids=str,
)
def test_hdlm_hyperschedules(tmp_path, annealing, expected):
    config = EPSILON | {"annealing": annealing}
    assert convert("hdlm", folder(tmp_path, epsilon_state(), config)).hyperschedule == expected


def test_an_epsilon_of_zero_is_mdlm(tmp_path):
    config = with_(EPSILON, training__epsilon=0.0, training__lambda=0.0)
    model = convert("hdlm", folder(tmp_path, epsilon_state(), config))
    assert model.process == Absorbing() and model.network.self_noise is None
    with pytest.raises(ValueError, match="never wrong"):
        model.generate(max_length=3, sampler=ACS(rate=1.0))


@pytest.mark.parametrize(
    ("family", "config", "word"),
    [
        ("hdlm", EPSILON, "no bound for sampling with correction"),
        ("hdlm", with_(EPSILON, training__lambda=0.0), "never learnt visible tokens"),
        ("hdlm", with_(EPSILON, type="shifted"), "the token in front is visible"),
        ("bd3lm", BD3LM, "biased"),
        ("mdlm", MDLM, "which is the bound that applies"),
        ("mdlm", MDLM | {"parameterization": "d3pm"}, "share of MASK is left out"),
    ],
)
def test_the_card_says_which_bound_applies(tmp_path, family, config, word):
    state = epsilon_state() if family == "hdlm" else dit_state()
    assert any(
        word in note for note in convert(family, folder(tmp_path, state, config)).data["notes"]
    )


# ------------------------------------------------------------------------------
# what works on them


def opened(
    tmp_path: Path, family: str, state: dict[str, Tensor], config: dict[str, Any], *words: str
) -> textdiff.Model:
    """Through the command line, the folder and `load`."""
    out = tmp_path / "out"
    main(["convert", family, str(folder(tmp_path / "source", state, config)), str(out), *words])
    return textdiff.load(out)


def measured(model: textdiff.Model, never: int = -1) -> dict[str, float]:
    ids = torch.randint(N, (4, L), generator=torch.Generator().manual_seed(0))
    ids[ids == never] = 0
    batches = lambda: [Batch(ids, torch.arange(4), torch.arange(4))]  # noqa: E731
    return {bound.name: bound.nats for bound in perplexity.measure(model, batches, draws=4)}


@pytest.mark.filterwarnings("ignore:this model was trained under")
@pytest.mark.parametrize("family", ["mdlm", "bd3lm", "hdlm"])
def test_a_folder_of_each_cavity_family_samples_and_is_measured(tmp_path, capsys, family):
    state = epsilon_state() if family == "hdlm" else dit_state()
    model = opened(tmp_path, family, state, CONFIGS[family])
    assert "written to" in capsys.readouterr().out
    samplers = (
        [Ancestral()] if family != "hdlm" else [Ancestral(), ACS(rate=2.0), PublishedACS(eta=0.3)]
    )
    for sampler in samplers:
        for schedule in (None, Flat(3), Block(2, 2), Slide(2, 1), QuenchedAR()):
            drawn = model.generate("w1 w2", max_length=L, hyperschedule=schedule, sampler=sampler)
            assert all(
                len(ids) == L and ids[:2].tolist() == [1, 2] and int(ids.max()) < N
                for ids in drawn.ids
            )
    found = measured(model)
    assert len(found) == (3 if family == "hdlm" else 1) and all(
        math.isfinite(nats) for nats in found.values()
    )


@pytest.mark.parametrize(("family", "config"), [("sedd", SEDD), ("hdlm", GAMMA)])
def test_log_scores_are_measured_and_refuse_cavity_samplers(tmp_path, family, config):
    model = opened(tmp_path, family, gamma_state() if family == "hdlm" else dit_state(), config)
    assert math.isfinite(measured(model)["NELBO"])
    with pytest.raises(ValueError, match="predicts 'log_score'"):
        model.generate()


@pytest.mark.parametrize("annealing", [("block", L), ("block", 2), ("simple", 4)])
def test_hdlm_gamma_is_sampled_and_measured_under_its_schedule(tmp_path, annealing):
    kind, width = annealing
    config = with_(GAMMA, annealing__type=kind, annealing__width=width, annealing__tau=4)
    model = opened(tmp_path, "hdlm", gamma_state(), config)
    for sampler in (Analytic(), Euler()):
        (ids,) = model.generate(sampler=sampler, seed=1).ids
        assert len(ids) == L and max(ids) < N
    ((name, nats),) = measured(model).items()
    assert math.isfinite(nats)
    flat = model.hyperschedule.plan(L).flat
    assert name == ("NELBO" if flat else "NELBO, limit of many steps")


@pytest.mark.parametrize("noise", ["loglinear", "geometric"])
def test_sedd_uniform_is_sampled_and_measured(tmp_path, noise):
    config = with_(SEDD, graph__type="uniform", model__scale_by_sigma=False, noise__type=noise)
    model = opened(tmp_path, "sedd", dit_state(N), config)
    for sampler in (Analytic(), Euler()):
        (ids,) = model.generate(sampler=sampler, seed=1).ids
        assert len(ids) == L and max(ids) < N
    assert math.isfinite(measured(model)["NELBO"])


def test_the_bound_of_a_folder_is_that_of_the_reference(tmp_path):
    """Every subset of masks of one sequence: the exact NELBO of MDLM from the reference alone, by
    enumeration (4.6).
    """
    state, x = dit_state(), torch.tensor([3, 1, 7])
    model = convert("mdlm", folder(tmp_path, state, MDLM))
    d, exact = len(x), 0.0
    for code in range(1, 2**d):
        hidden = [bool(code >> i & 1) for i in range(d)]
        count = sum(hidden)
        ids = [N if hide else int(token) for hide, token in zip(hidden, x, strict=True)]
        log_p = reference.subs(reference.forward(state, ids, [0.0] * d), mask=N)
        cross = -sum(float(log_p[i, x[i]]) for i in range(d) if hidden[i])
        exact += cross / count / math.comb(d, count)
    batches = lambda: [Batch(x.expand(512, -1), torch.arange(512), torch.arange(512))]  # noqa: E731
    (bound,) = perplexity.measure(model, batches, draws=8)
    assert bound.nats == pytest.approx(exact / d, abs=5 * bound.standard_error)
    assert bound.standard_error < 0.05


def test_the_bound_of_an_imported_posterior_is_that_of_the_reference(tmp_path):
    """ε-Hybrid, NELBO with correction in the last step (4.5), enumerated: the published posterior
    for 1/2, recalibrated by (4.3).
    """
    epsilon, state, x = 0.3, epsilon_state(), [3, 7]
    model = convert("hdlm", folder(tmp_path, state, with_(EPSILON, training__epsilon=epsilon)))
    d, keep, exact = len(x), 1 - epsilon + epsilon / N, 0.0
    law = lambda z, i: keep if z == x[i] else epsilon / N  # noqa: E731
    for code in range(2**d):
        masked = [i for i in range(d) if code >> i & 1]
        visible = [i for i in range(d) if i not in masked]
        for shown in itertools.product(range(N), repeat=len(visible)):
            ids, chance = [N] * d, 1.0
            for i, token in zip(visible, shown, strict=True):
                ids[i], chance = token, chance * law(token, i)
            logits = reference.forward(state, ids, [0.0] * d)[:, :N]
            if not masked:  # the jump at t = 0: P(x | z) for self-noise ε
                for i, token in enumerate(ids):
                    logits[i, token] += math.log((1 + (1 - epsilon) * N / epsilon) / (1 + N))
                exact -= chance * sum(float(logits.log_softmax(-1)[i, x[i]]) for i in range(d))
                continue
            seen = (1 - epsilon) * logits.softmax(-1) + epsilon / N
            for i in masked:
                true = torch.full((N,), epsilon / N).double()
                true[x[i]] = keep
                exact += (
                    chance
                    * float((true * (true / seen[i]).log()).sum())
                    / len(masked)
                    / math.comb(d, len(masked))
                )

    def batches():
        return [Batch(torch.tensor(x).expand(2048, -1), torch.arange(2048), torch.arange(2048))]

    bound = perplexity.measure(model, batches, draws=8)[0]
    assert bound.nats == pytest.approx(exact / d, abs=5 * bound.standard_error)
    assert bound.standard_error < 0.02


@dataclass(frozen=True)
class Spy(Ancestral):
    """Asks for every position and keeps the logits; puts each position's likeliest token there in
    its last step, if it `moves`.
    """

    moves: bool = False
    seen: list = field(default_factory=list)

    def rows(self, step):
        return torch.ones_like(step.z, dtype=torch.bool)

    def move(self, step, rows, logits, filter):
        self.seen.append((logits, step.z.clone()))
        likeliest = logits.argmax(-1).view(step.z.shape)
        last = (step.t > 0) & (step.s == 0) & self.moves
        return torch.where(last, likeliest, step.z), step.s


def test_samplers_are_given_cavity_logits(tmp_path):
    state, spy = epsilon_state(), Spy()
    model = convert("hdlm", folder(tmp_path, state, EPSILON))
    denoise(model.network, model.process, Flat(2), spy, Noise(0, torch.tensor([0])), IDS[None])
    logits, z = spy.seen[0]
    expected = reference.forward(state, z[0].tolist(), [0.0] * L)[:, :N]
    for i, token in enumerate(z[0].tolist()):
        if token < N:
            expected[i, token] -= math.log(1 + N)
    close(logits, expected)
    assert (z[0] < N).sum() == 3


@pytest.mark.parametrize(
    ("family", "schedule"),
    [
        ("bd3lm", Block(2, 3, block_causal=True)),
        ("mdlm", Slide(4, 2)),
        ("hdlm", Slide(3, "1/2")),
        ("hdlm", QuenchedAR()),
    ],
    ids=str,
)
def test_a_cache_changes_nothing(tmp_path, family, schedule):
    """Logits of every call, with γ's σ per token too; a network with one level for all rows is
    refused.
    """
    state, config = (gamma_state(), GAMMA) if family == "hdlm" else (dit_state(), CONFIGS[family])
    model, calls = convert(family, folder(tmp_path, state, config)), []
    given = torch.full((2, 8), N)
    given[1, :3] = torch.tensor([2, 9, 4])
    for use_cache in (False, True):
        spy = Spy(moves=True)
        done = denoise(
            model.network,
            model.process,
            schedule,
            spy,
            Noise(0, torch.arange(2)),
            given,
            use_cache=use_cache,
        )
        calls.append(([logits for logits, _ in spy.seen], done))
    (plain, whole), (cached, fewer) = calls
    for expected, found in zip(plain, cached, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert torch.equal(whole.ids, fewer.ids) and fewer.body_rows < whole.body_rows


def test_one_level_for_all_rows_cannot_be_cached(tmp_path):
    model = convert("mdlm", folder(tmp_path, dit_state(), MDLM | {"time_conditioning": True}))
    with pytest.raises(ValueError, match="use_cache=False"):
        denoise(
            model.network,
            model.process,
            Block(2, 2),
            Ancestral(),
            Noise(0, torch.arange(1)),
            IDS[None],
            use_cache=True,
        )


def test_the_network_is_a_transformers_model(tmp_path):
    model = opened(tmp_path, "hdlm", gamma_state(), GAMMA)
    again = DDiTDenoiser.from_pretrained(tmp_path / "out").eval()
    t = torch.full((1, L), 0.5).double()
    close(again(IDS[None], t), model.network(IDS[None], t))


def test_one_level_per_sequence(tmp_path):
    """Given tokens at t = 0 take the level of the others; two levels at once are refused."""
    state = dit_state()
    model = convert("mdlm", folder(tmp_path, state, MDLM | {"time_conditioning": True}))
    t = torch.where(MASKED, at_sigma(0.4), 0.0)
    expected = reference.subs(reference.forward(state, IDS.tolist(), SIGMAS), mask=N)
    close(body_logits(model, IDS, t).log_softmax(-1)[MASKED], expected[MASKED][:, :N])
    with pytest.raises(ValueError, match="one noise level per sequence"), pytest.warns(UserWarning):
        model.generate(hyperschedule=Slide(4, 1), use_cache=False)
    assert len(model.generate("w1", hyperschedule=Flat(2)).ids[0]) == L


# ------------------------------------------------------------------------------
# files


def written(
    path: Path, content: Any, config: dict[str, Any] | None = MDLM, tokens: bool = True
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    if config is not None:
        (path.parent / "config.json").write_text(json.dumps(config))
    if tokens:
        tokenizer().save_pretrained(path.parent)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s, "step": 3}, lambda s: {"state_dict": s}], ids="pms"
)
def test_torch_files(tmp_path, suffix, wrap):
    state = dit_state()
    model = convert("mdlm", written(tmp_path / f"weights{suffix}", wrap(state)))
    assert model.data["converted"]["weights"] == "as published"
    assert torch.equal(model.network.blocks[1].qkv.weight, state["blocks.1.attn_qkv.weight"])


def test_a_hub_folder_with_pytorch_model_bin_and_yaml(tmp_path):
    written(tmp_path / "pytorch_model.bin", epsilon_state(), None)
    OmegaConf.save(OmegaConf.create(EPSILON), tmp_path / "config.yaml")
    assert convert("hdlm", tmp_path).process == EpsilonHybrid(0.01)


@pytest.mark.parametrize("place", [".hydra", "../.hydra"])
def test_the_configuration_of_a_run_directory(tmp_path, place):
    path = written(
        tmp_path / "run" / "checkpoints" / "checkpoint.pth", {"model": dit_state()}, None
    )
    (path.parent / place).mkdir()
    OmegaConf.save(OmegaConf.create(SEDD), path.parent / place / "config.yaml")
    assert convert("sedd", path).prediction == Prediction.LOG_SCORE


@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "backbone._orig_mod.", "_orig_mod.backbone."]
)
def test_the_moving_average_is_preferred_and_it_is_said(tmp_path, prefix, capsys):
    state = dit_state()
    shadow = [2 * value for name, value in state.items() if name != "rotary_emb.inv_freq"]
    ema = {"decay": 0.9999, "num_updates": 5, "shadow_params": shadow}
    named = {prefix + name: value for name, value in state.items()} | {
        "sampling_eps_min": torch.tensor(1e-3)
    }
    path = written(tmp_path / "last.ckpt", {"state_dict": named, "ema": ema})
    main(["convert", "mdlm", str(path), str(tmp_path / "out")])
    assert "moving average (EMA)" in capsys.readouterr().out
    model = textdiff.load(tmp_path / "out")
    assert model.data["converted"]["weights"] == "moving average (EMA)"
    close(model.network.blocks[0].norm_mlp.weight, 2 * state["blocks.0.norm2.weight"])
    close(model.network.noise.second.bias, 2 * state["sigma_map.mlp.2.bias"])
    close(model.network.modulation.weight, 2 * state["output_layer.adaLN_modulation.weight"])


@pytest.mark.parametrize(
    "spoil",
    [lambda s: s[:-1], lambda s: s[::-1], lambda s: dict(enumerate(s))],
    ids=["short", "order", "dict"],
)
def test_a_moving_average_that_does_not_fit_is_refused(tmp_path, spoil):
    state = dit_state()
    shadow = spoil([value for name, value in state.items() if name != "rotary_emb.inv_freq"])
    with pytest.raises(ValueError, match="moving average does not fit"):
        convert(
            "mdlm",
            written(tmp_path / "x.ckpt", {"state_dict": state, "ema": {"shadow_params": shadow}}),
        )


def test_a_lightning_checkpoint_with_omegaconf_and_a_tokenizer(tmp_path):
    """Its objects become inert; its configuration is read from them."""
    config = with_(
        MDLM,
        time_conditioning=True,
        model__length="${block}",
        block=L,
        noise__type="loglinear",
        steps=[1, 2],
    )
    content = {
        "state_dict": {f"backbone.{name}": value for name, value in dit_state().items()},
        "hyper_parameters": {"config": OmegaConf.create(config), "tokenizer": tokenizer()},
        "pytorch-lightning_version": "2.2",
    }
    model = convert("mdlm", written(tmp_path / "mdlm.ckpt", content, None))
    assert model.network.sees_time and model.length == L


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["os", "eval", "own", "exec"])
def test_no_code_of_a_checkpoint_is_run(tmp_path, kind, legacy):
    mark = tmp_path / "mark"
    harmful = {
        "os": Harmful(os.system, f"touch {mark}"),
        "eval": Harmful(eval, f"open({str(mark)!r}, 'w')"),
        "own": Harmful(Path.touch, mark),
        "exec": Harmful(exec, f"open({str(mark)!r}, 'w')"),
    }[kind]
    path = tmp_path / "x.ckpt"
    torch.save(
        {"state_dict": dit_state(), "more": harmful},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(ValueError, match="safetensors"):
        convert("mdlm", path, config=_config_file(tmp_path, MDLM), tokenizer=_tokens(tmp_path))
    assert not mark.exists()


def test_inert_objects_run_nothing(tmp_path):
    """A class of a known library is not even looked up."""
    import transformers

    path = written(
        tmp_path / "x.ckpt",
        {"state_dict": dit_state(), "more": Harmful(transformers.set_seed, "not a number")},
    )
    assert convert("mdlm", path).network.num_tokens == N


def _config_file(to: Path, config: dict[str, Any]) -> Path:
    path = to / "given.json"
    path.write_text(json.dumps(config))
    return path


def _tokens(to: Path) -> str:
    tokenizer().save_pretrained(to / "tokens")
    return str(to / "tokens")


def spoilt(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": {"a": 1}}))
    elif how == "future":
        path.write_bytes(b"\x80\x7f" + content[2:])


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "pickle", "future"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_broken_files_are_refused_in_one_line(tmp_path, capsys, suffix, how):
    path = tmp_path / f"weights{suffix}"
    save_file(dit_state(), path) if suffix == ".safetensors" else torch.save(dit_state(), path)
    spoilt(path, how)
    config, tokens, out = _config_file(tmp_path, MDLM), _tokens(tmp_path), tmp_path / "out"
    line = tiny.refused(
        capsys,
        ["convert", "mdlm", str(path), str(out), "--config", str(config), "--tokenizer", tokens],
    )
    assert str(path) in line and not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.1.attn_out.weight"), "do not make one DDiT"),
        (lambda s: s.pop("vocab_embed.embedding"), "lacks vocab_embed.embedding"),
        (
            lambda s: s.update({"blocks.0.extra.weight": torch.ones(2)}),
            "unknown weight 'blocks.0.extra.weight'",
        ),
        (lambda s: s.update({"blocks.1.mlp.0.weight": torch.ones(3, 16)}), "do not make one DDiT"),
        (
            lambda s: s.update({"vocab_embed.embedding": torch.ones(N, 16)}),
            "different numbers of rows",
        ),
        (lambda s: s.pop("output_layer.linear.bias"), "lacks output_layer.linear.bias"),
        (lambda s: s.update({"rotary_emb.inv_freq": torch.ones(4)}), "base 10,000"),
        (lambda s: s.update({"rotary_emb.inv_freq": torch.ones(2)}), "n_heads = 2"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path, change, message):
    state = dit_state()
    change(state)
    with pytest.raises(ValueError, match=message):
        convert("mdlm", folder(tmp_path, state, MDLM))


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("mdlm", MDLM | {"parameterization": "ar"}, "'ar'"),
        ("mdlm", MDLM | {"backbone": "dimamba"}, "dimamba"),
        ("mdlm", MDLM | {"time_conditioning": True, "noise": {"type": "cosine"}}, "cosine"),
        ("mdlm", MDLM | {"model_length": "${nothing}"}, "model_length cannot be read"),
        ("sedd", MDLM, "graph.type"),
        ("sedd", with_(SEDD, graph__type="uniform"), "without scale_by_sigma"),
        (
            "sedd",
            with_(SEDD, noise__type="geometric", noise__sigma_max="much"),
            "sigma_max must be a number",
        ),
        ("bd3lm", MDLM, "block_size must be a number, got None"),
        ("bd3lm", BD3LM | {"cross_attn": False}, "block by block"),
        ("bd3lm", BD3LM | {"time_conditioning": True}, "mean noise level"),
        ("bd3lm", BD3LM | {"causal": True}, "bidirectional"),
        ("hdlm", MDLM, "no HDLM configuration"),
        ("hdlm", with_(EPSILON, annealing__type="other"), "annealing.type"),
        ("hdlm", with_(EPSILON, training__epsilon=None), "training.epsilon must be a number"),
        ("hdlm", with_(GAMMA, annealing__sampling_method="AR"), "not documented"),
        ("hdlm", with_(GAMMA, graph__type="uniform"), "'QGamma' or 'absorb'"),
        ("other", MDLM, "unknown family"),
    ],
)
def test_configurations_of_another_kind_are_refused(tmp_path, family, config, message):
    state = (
        (gamma_state() if config.get("model_type") == "gamma_hybrid" else epsilon_state())
        if family == "hdlm"
        else dit_state()
    )
    with pytest.raises(ValueError, match=message):
        convert(family, folder(tmp_path, state, config))


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="hf download"):
        convert("mdlm", "kuleshov-group/mdlm-owt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds neither"):
        convert("mdlm", tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="give a weights file"):
        convert("mdlm", tmp_path / "notes.txt")
    path = written(tmp_path / "bare" / "x.pt", dit_state(), None)
    with pytest.raises(ValueError, match="--config"):
        convert("mdlm", path)
    with pytest.raises(ValueError, match="not a state dict"):
        convert("mdlm", written(tmp_path / "list" / "x.pt", [1, 2]))
    with pytest.raises(ValueError, match="no state dict of tensors"):
        convert("mdlm", written(tmp_path / "numbers" / "x.pt", {"step": 3}))
    broken = tmp_path / "bad.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ValueError, match=r"bad\.yaml cannot be read"):
        convert("mdlm", path, config=broken)


def test_a_tokenizer_of_another_size_is_refused(tmp_path):
    for family, state, config in (
        ("mdlm", dit_state(), MDLM),
        ("sedd", dit_state(), SEDD),
        ("hdlm", epsilon_state(), EPSILON),
    ):
        source = folder(tmp_path / family, state, config, tokens=N + 1)
        with pytest.raises(ValueError, match="need 13"):
            convert(family, source)
    masked = folder(
        tmp_path / "masked", dit_state(), MDLM, tokens=N + 1, mask=N
    )  # the last row, and a token of its own
    assert convert("mdlm", masked).network.num_tokens == N + 1
    assert (
        convert(
            "sedd", folder(tmp_path / "sedd", dit_state(), SEDD, tokens=N + 1, mask=N)
        ).network.num_tokens
        == N + 1
    )


def test_a_network_that_should_see_the_level_but_has_no_adaln(tmp_path):
    with pytest.raises(ValueError, match="hold no adaLN"):
        convert("sedd", folder(tmp_path, reference.published(N + 1, C=0), SEDD))


def test_a_tokenizer_with_code_of_its_own_is_not_run(tmp_path):
    source = folder(tmp_path, dit_state(), MDLM)
    (source / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Evil: pass\n")
    described = json.loads((source / "tokenizer_config.json").read_text())
    described |= {
        "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
        "tokenizer_class": "Evil",
    }
    (source / "tokenizer_config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="never runs"):
        convert("mdlm", source)
    assert not (tmp_path / "mark").exists()


def test_an_older_hdlm_with_adaln_in_the_output_warns(tmp_path):
    state = reference.published(N + 1, hdlm=True)
    with pytest.warns(UserWarning, match="adaLN weights"):
        model = convert("hdlm", folder(tmp_path, state, GAMMA))
    assert model.network.modulation is not None


def test_partial_output_never_stays(tmp_path, monkeypatch, capsys):
    source, out = folder(tmp_path / "source", dit_state(), MDLM), tmp_path / "deep" / "out"

    def broken(model, to):
        to.mkdir(exist_ok=True)
        (to / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("textdiff.commands.convert.save", broken)
        assert "disk full" in tiny.refused(capsys, ["convert", "mdlm", str(source), str(out)])
    assert list(out.parent.iterdir()) == []
    out.mkdir()
    main(["convert", "mdlm", str(source), str(out)])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "already there" in tiny.refused(capsys, ["convert", "mdlm", str(source), str(out)])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]
