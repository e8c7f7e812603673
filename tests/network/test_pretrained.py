"""Pretrained bases of every family as denoisers: before training exactly `transformers`' own law,
then everything else of the package.
"""

import csv
import json
import shutil
import subprocess
import sys
from functools import cache

import pytest
import tiny
import torch
import yaml
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy, pad
from toys import a_bound
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

import textdiff
from textdiff.commands.cli import main
from textdiff.data import BPE, Files, PretrainedTokenizer, TextData
from textdiff.denoiser.generation_rows import generation_call
from textdiff.denoiser.training_rows import training_call
from textdiff.evaluation import perplexity
from textdiff.generation.engine import denoise
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide, TightBlock
from textdiff.model.model import Model
from textdiff.network import Pretrained
from textdiff.noise import Noise
from textdiff.objective import Batch, Stratified
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid
from textdiff.samplers import Ancestral
from textdiff.training import TextDiffusion

N, L, B, BOS = 7, 10, 3, 4
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 24}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
BASES = {
    "gpt2": (GPT2Config, GPT2),
    "gpt2, untied, scaled by layer": (
        GPT2Config,
        GPT2 | {"tie_word_embeddings": False, "scale_attn_by_inverse_layer_idx": True},
    ),
    "llama": (LlamaConfig, LLAMA),
    "llama, 2 groups": (
        LlamaConfig,
        LLAMA | {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    ),
    "llama, 1 group, tied": (
        LlamaConfig,
        LLAMA | {"num_key_value_heads": 1, "tie_word_embeddings": True, "head_dim": 6},
    ),
    "llama, scaled positions": (
        LlamaConfig,
        LLAMA | {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8}},
    ),
    "qwen2": (Qwen2Config, LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, LLAMA | {"num_key_value_heads": 2, "head_dim": 6}),
    "mistral": (MistralConfig, LLAMA | {"num_key_value_heads": 2, "sliding_window": None}),
    "smollm3": (
        SmolLM3Config,
        LLAMA | {"num_key_value_heads": 2, "no_rope_layers": [1, 0, 1], "pad_token_id": None},
    ),
    "gemma3": (
        Gemma3TextConfig,
        LLAMA
        | {
            "num_key_value_heads": 2,
            "head_dim": 6,
            "query_pre_attn_scalar": 8,
            "layer_types": ["full_attention"] * 3,
            "pad_token_id": None,
        },
    ),
}
each_base = pytest.mark.parametrize("base", BASES)
one_of_each = pytest.mark.parametrize("base", ["gpt2", "llama, 2 groups"])
SCHEDULES = [
    QuenchedAR(),
    Flat(3),
    Block(4, 3),
    Block(4, 1),
    Block(4, 3, block_causal=True),
    TightBlock(4, 3),
    Slide(4, 2),
]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


@cache
def source(base, num_tokens=N):
    """The folder of a random base, as `transformers` writes it."""
    kind, shape = BASES[base]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        kind(vocab_size=num_tokens, bos_token_id=0, eos_token_id=0, **shape)
    )
    for name, parameter in model.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.3)
    folder = tiny.folder() / f"base {base} {num_tokens}"
    model.save_pretrained(folder)
    return str(folder)


def original(base):
    return AutoModelForCausalLM.from_pretrained(source(base)).eval()


def network(base, sees_time=False, live=True):
    """The denoiser; `live`: what starts at zero is made random, and all is in float64."""
    net = Pretrained(source(base)).build(N, sees_time, BOS).eval()
    if not live:
        return net
    torch.manual_seed(1)
    for parameter in [
        net.mask,
        *([net.condition.weight, net.condition.bias] if sees_time else []),
    ]:
        parameter.data.normal_(0, 0.3)
    return net.double()


def tokens(rows=B, seed=2):
    return torch.randint(0, N, (rows, L), generator=torch.Generator().manual_seed(seed))


# --- step 0


@pytest.mark.parametrize("sees_time", [False, True])
@each_base
def test_step_0_is_transformers_own_law(base, sees_time):
    """Logits, and the exact -log p of quenched AR through the estimator, with a BOS in front."""
    net, theirs, x = network(base, sees_time, live=False), original(base), tokens()
    ids = pad(x[:, :-1], (1, 0), value=BOS)
    with torch.no_grad():
        logits = theirs(ids).logits
        torch.testing.assert_close(net(ids, torch.rand(ids.shape)), logits, atol=1e-5, rtol=0)
        batch = Batch(x, torch.arange(B), torch.arange(B))
        nats = a_bound(Absorbing(), QuenchedAR()).nats(net, batch, Noise(0, batch.example)).values
    expected = cross_entropy(logits.transpose(1, 2), x, reduction="none").double()
    torch.testing.assert_close(nats, expected, atol=1e-5, rtol=0)


@each_base
def test_step_0_the_mask_is_the_mean_embedding_and_changes_nothing_else(base):
    net, theirs, ids = network(base, live=False), original(base), tokens()
    rows = theirs.get_input_embeddings().weight
    scale = theirs.config.hidden_size**0.5 if base == "gemma3" else 1.0
    torch.testing.assert_close(net.mask, scale * rows.mean(0))
    with torch.no_grad():
        before = net(ids)
        net.mask.fill_(float("nan"))
        assert torch.equal(net(ids), before) and net(torch.full((1, 2), N)).isnan().all()
    assert net.head_parameters()[0].shape == rows.shape and net.num_tokens == N
    total = net(ids).sum()
    assert torch.equal(torch.autograd.grad(total, net.mask)[0], torch.zeros_like(net.mask))


def test_the_weights_are_the_bases_and_one_row_for_mask():
    for base in BASES:
        net, theirs = network(base, live=False), original(base)
        assert sum(p.numel() for p in net.parameters()) == sum(
            p.numel() for p in theirs.parameters()
        ) + len(net.mask)


@pytest.mark.parametrize("use_cache", [False, True])
@each_base
def test_quenched_ar_is_transformers_greedy_generate(base, use_cache):
    theirs, prompt = original(base), tokens()[:, :3]
    given = torch.cat([prompt, torch.full((B, L - 3), N)], -1)
    found = denoise(
        network(base, live=False),
        Absorbing(),
        QuenchedAR(),
        Ancestral(),
        Noise(0, torch.arange(B)),
        given,
        filter=lambda logits, where: logits * 1e6,
        use_cache=use_cache,
    )
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(
        pad(prompt, (1, 0), value=BOS), max_new_tokens=L - 3, do_sample=False
    )
    assert torch.equal(found.ids, expected[:, 1:])


# --- the rest of the package holds


@each_schedule
@each_base
def test_42_two_stream_logits_are_those_of_each_windows_own_call(base, schedule):
    net, x = network(base, sees_time=True), tokens()
    tiling = schedule.plan(L).tiling(torch.arange(B)[:, None] % schedule.T)
    t = tiling.level / schedule.T
    z = torch.where(
        (t == 1) | (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3),
        N,
        (x + 1) % N,
    )
    with torch.no_grad():
        together = training_call(net, schedule, x, z, t, tiling=tiling).hidden(net)
        for row in range(B):
            for k in range(row % schedule.T, schedule.calls(L), schedule.T):
                settled, window = schedule.settled(k, L), schedule.window(k, L)
                own = torch.where(settled, x[row], torch.where(window, z[row], N))[None]
                times = torch.where(settled, 0.0, torch.where(window, t[row], 1.0))[None]
                call, active = generation_call(net, schedule, k, own, times)
                torch.testing.assert_close(
                    call.hidden(net)[0], together[row, active], atol=1e-5, rtol=0
                )


class Recorder(Ancestral):
    """Ancestral that keeps the logits it is given."""

    def move(self, step, rows, logits, filter):
        self.seen.append(logits)
        return super().move(step, rows, logits, filter)


def recorder():
    found = Recorder()
    object.__setattr__(found, "seen", [])
    return found


@each_schedule
@each_base
def test_38_cached_is_uncached(base, schedule):
    net, process, given = network(base, sees_time=True), GammaHybrid(0.3), torch.full((B, L), N)
    given[1, :4] = 2
    runs = []
    for use_cache in (False, True):
        sampler = recorder()
        done = denoise(
            net, process, schedule, sampler, Noise(0, torch.arange(B)), given, use_cache=use_cache
        )
        runs.append((sampler.seen, done))
    (plain, expected), (cached, found) = runs
    assert (
        max(float((a - b).abs().max()) for a, b in zip(plain, cached, strict=True) if len(a)) < 1e-5
    )
    assert torch.equal(expected.ids, found.ids) and found.body_rows <= expected.body_rows


def test_the_cache_holds_the_groups_not_the_heads():
    from textdiff.denoiser.cache import Cache

    sizes = []
    for base in ("llama", "llama, 2 groups"):
        cache, net = Cache(4), network(base)
        generation_call(net, QuenchedAR(), 0, torch.full((1, 4), N), torch.ones(1, 4))[0].hidden(
            net, cache
        )
        sizes.append(sum(x.nbytes for pair in cache._layers.values() for x in pair))
    assert sizes[0] == 2 * sizes[1]


@one_of_each
def test_a_conditioned_network_sees_each_rows_own_time(base):
    net, ids = network(base, sees_time=True), tokens(1)
    t = torch.full(ids.shape, 0.5)
    later = t.clone()
    later[:, 5:] = 0.9
    with torch.no_grad():
        a, b = net(ids, t), net(ids, later)
    assert torch.equal(a[:, :5], b[:, :5]) and (a[:, 5:] - b[:, 5:]).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("schedule", [Block(4, 3), Slide(4, 2)], ids=str)
@one_of_each
def test_gradients_reach_every_weight_with_and_without_recomputation(base, schedule):
    found = []
    for recompute in (False, True):
        net = Pretrained(source(base), checkpoint=recompute).build(N, False, BOS).double().train()
        assert all(block.gradient_checkpointing == recompute for block in net.blocks)
        batch, process = Batch(tokens(), torch.arange(B), torch.arange(B)), EpsilonHybrid(0.3)
        draw = Stratified()(batch, process, schedule, N, Noise(0, batch.example))
        a_bound(process, schedule).at(net, batch, draw).total.backward()
        found.append({name: parameter.grad for name, parameter in net.named_parameters()})
    assert all(grad is not None and grad.abs().max() > 0 for grad in found[0].values())
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-8, rtol=1e-6)


# --- what is refused


def test_positions_that_were_never_learnt_are_refused():
    net = network("gpt2", live=False)
    assert net(torch.zeros(1, 24, dtype=torch.int64)).shape[1] == 24
    with pytest.raises(ValueError, match="position 24 is past the 24"):
        net(torch.zeros(1, 25, dtype=torch.int64))


def test_other_bases_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.*local folder"):
        Pretrained(str(tmp_path / "nowhere")).build(N, False, 0)
    GPTNeoConfig().save_pretrained(tmp_path / "neo")
    with pytest.raises(ValueError, match="'gpt_neo', not one of gpt2, llama"):
        Pretrained(str(tmp_path / "neo")).build(N, False, 0)
    moving = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}
    LlamaConfig(vocab_size=N, **LLAMA, **moving).save_pretrained(tmp_path / "dynamic")
    with pytest.raises(ValueError, match="cannot be cached"):
        Pretrained(str(tmp_path / "dynamic")).build(N, False, 0)
    with pytest.raises(
        ValueError, match=r"has 7 tokens, the data's tokenizer 9.*PretrainedTokenizer"
    ):
        Pretrained(source("llama")).build(9, False, 0)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (Gemma3TextConfig(vocab_size=N, **LLAMA, sliding_window=8), "sliding_attention"),
        (MistralConfig(vocab_size=N, **LLAMA, sliding_window=8), "sliding_attention"),
        (
            Qwen2Config(vocab_size=N, **LLAMA, use_sliding_window=True, max_window_layers=1),
            "sliding_attention",
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_layers_that_do_not_see_all_are_named(config, kind, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"layers of '{kind}'.*full_attention"):
        Pretrained(str(tmp_path)).build(N, False, 0)


@each_base
def test_the_gradient_is_the_bases(base):
    """Of the mean cross-entropy of quenched AR, at every weight of the base."""
    net, theirs, x = network(base, live=False), original(base), tokens()
    ids = pad(x[:, :-1], (1, 0), value=BOS)
    cross_entropy(theirs(ids).logits.transpose(1, 2), x, reduction="sum").backward()
    batch = Batch(x, torch.arange(B), torch.arange(B))
    a_bound(Absorbing(), QuenchedAR()).nats(net, batch, Noise(0, batch.example)).total.backward()
    ours = dict(net.base.named_parameters())
    for name, weight in theirs.base_model.named_parameters():
        mine = ours[name].grad
        torch.testing.assert_close(mine, weight.grad, atol=1e-4, rtol=1e-4, msg=name)


@one_of_each
def test_an_aligned_base_predicts_in_place_cached_as_uncached(base):
    net = Pretrained(source(base), layout="aligned").build(N, False, BOS).eval().double()
    assert not net.shifted
    noise = Noise(3, torch.arange(B))
    drawn = [
        denoise(
            net,
            Absorbing(),
            Block(4, 3),
            Ancestral(),
            noise,
            torch.full((B, L), N),
            use_cache=cached,
        ).ids
        for cached in (True, False)
    ]
    assert torch.equal(*drawn)
    with pytest.raises(ValueError, match="layout must be 'aligned' or 'shifted', got 'both'"):
        Pretrained(source(base), layout="both")


def padded(base, to, rows):
    """A base with `rows` rows of embeddings, whose tokenizer has N tokens, 5 of them with a name
    and 2 gaps between their ids.
    """
    vocabulary = {"<eos>": 0, "<unk>": 1, "a": 2, "b": 4, "c": N - 1}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    assert len(tokenizer) == 5
    AutoModelForCausalLM.from_pretrained(source(base, rows)).save_pretrained(to)
    tokenizer.save_pretrained(to)
    return str(to)


@each_base
def test_rows_that_stand_for_no_token_are_left_out(base, tmp_path):
    folder = padded(base, tmp_path, N + 9)
    net = Pretrained(folder).build(N, False, BOS)
    x = tokens()
    assert net.num_tokens == N and net.head_parameters()[0].shape[0] == N
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()(x).logits[..., :N]
        torch.testing.assert_close(net.eval()(x), theirs, atol=1e-5, rtol=1e-5)
    assert net.config.base["vocab_size"] == N
    with pytest.raises(ValueError, match=f"has {N + 9} tokens, the data's tokenizer {N - 1}"):
        Pretrained(folder).build(N - 1, False, BOS)  # not its own tokenizer


def test_fewer_rows_than_tokens_are_refused_with_a_remedy_that_helps(tmp_path):
    folder = padded("llama", tmp_path, N - 1)
    with pytest.raises(ValueError, match=r"6 rows .*resize_token_embeddings.*save it"):
        Pretrained(folder).build(N, False, BOS)
    larger = AutoModelForCausalLM.from_pretrained(folder)
    larger.resize_token_embeddings(N)
    larger.save_pretrained(folder)
    assert Pretrained(folder).build(N, False, BOS).num_tokens == N


def test_the_tokens_that_end_a_text_are_taken_over(tmp_path):
    folder = padded("llama", tmp_path, N + 9)
    base = AutoModelForCausalLM.from_pretrained(folder)
    base.generation_config.eos_token_id = [4, 2, N + 3]
    base.save_pretrained(folder)
    net = Pretrained(folder).build(N, False, BOS)
    tokenizer = PretrainedTokenizer(folder).load()
    model = Model(net, Absorbing(), Slide(4, 2), tokenizer, L)
    assert model.ends == (0, 4, 2)  # the tokenizer's own first; N + 3 is no token
    run = textdiff.save(model, tmp_path / "run")
    assert textdiff.load(run).ends == model.ends
    main(["sample", str(run), "--stop-at-eos", "--output", str(tmp_path / "x.json")])
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["generation_config"]["eos_token_id"] == [0, 4, 2]


def test_missing_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(source("llama"), tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights \(model.layers.1.mlp.up_proj.weight\)"):
        Pretrained(str(folder)).build(N, False, 0)


# --- training through the command line, and the model folder


def base_with_tokenizer(to):
    """A random Llama that has a tokenizer, in a folder of its own."""
    tokenizer = BPE(270).build(Files(str(tiny.text())))
    tokenizer.save_pretrained(to)
    AutoModelForCausalLM.from_pretrained(source("llama, 2 groups", len(tokenizer))).save_pretrained(
        to
    )
    return to


def words(base, run, config, *extra):
    small = [word for word in tiny.toy(run) if not word.startswith("--model.network.")]
    text = [
        word for word in tiny.text_files(tiny.text()) if not word.startswith("--data.tokenizer")
    ]
    return [
        "fit",
        *tiny.configs("trainer/quick", f"adapt/{config}"),
        *text,
        *small,
        f"--model.network.source={base}",
        *extra,
    ]


FRESH = """
import sys, torch, textdiff
model = textdiff.load(sys.argv[1])
with torch.no_grad():
    logits = model.network(torch.arange(8)[None]).double().flatten().tolist()
    print([x.hex() for x in logits], model.generate("the ", seed=3).texts)
"""


@pytest.mark.parametrize("config", sorted(path.stem for path in tiny.CONFIGS.glob("adapt/*.yaml")))
def test_training_goes_on_and_the_folder_needs_no_base(config, tmp_path):
    base, run = base_with_tokenizer(tmp_path / "base"), tmp_path / "run"
    steps = [
        "--trainer.max_steps=30",
        "--model.warmup=2",
        "--model.lr=0.01",
        "--trainer.val_check_interval=30",
    ]
    main(words(base, run, config, *steps, "--trainer.log_every_n_steps=1"))
    named = yaml.safe_load((tiny.CONFIGS / f"adapt/{config}.yaml").read_text())["model"]["network"][
        "class_path"
    ]
    assert (
        yaml.safe_load((run / "config.yaml").read_text())["model"]["network"]["class_path"] == named
    )
    with next(run.glob("logs/version_*/metrics.csv")).open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    vocabulary = PreTrainedTokenizerFast.from_pretrained(base).get_vocab()
    shutil.rmtree(base)
    model = textdiff.load(run)
    assert model.tokenizer.get_vocab() == vocabulary
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(run)], capture_output=True, text=True, check=True
    )
    with torch.no_grad():
        logits = [x.hex() for x in model.network(torch.arange(8)[None]).double().flatten().tolist()]
    assert done.stdout.splitlines()[-1] == f"{logits} {model.generate('the ', seed=3).texts}"


def test_a_checkpoint_needs_no_base(tmp_path):
    """To be opened, exported, rebuilt or gone on with; the same comes out as with the base."""
    base, run, again = base_with_tokenizer(tmp_path / "base"), tmp_path / "run", tmp_path / "again"
    main(words(base, run, "block", "--trainer.max_steps=2"))
    shutil.copytree(run, again)
    last, on = "checkpoints/last.ckpt", "--trainer.max_steps=4"
    config = ["fit", "--config", str(run / "config.yaml"), f"--trainer.default_root_dir={run}"]
    main([*config, "--ckpt_path", str(run / last), on])
    base.rename(tmp_path / "gone")
    model, net = textdiff.load(again), textdiff.load(again / last).network.state_dict()
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(net[name], tensor)
    textdiff.export(again / last, tmp_path / "out")
    module = TextDiffusion.load_from_checkpoint(again / last, map_location="cpu")
    assert torch.equal(module.network.mask, net["mask"])
    config[2:] = [str(again / "config.yaml"), f"--trainer.default_root_dir={again}"]
    main([*config, "--ckpt_path", str(again / last), on])
    with_base, without = (textdiff.load(folder).network.state_dict() for folder in (run, again))
    assert all(torch.equal(with_base[name], without[name]) for name in with_base)
    network = yaml.safe_load((again / "config.yaml").read_text())["model"]["network"]["init_args"]
    assert network["source"] == str(base) and network["config"] is None


def test_a_checkpoint_of_another_base_is_refused(tmp_path, capsys):
    base = base_with_tokenizer(tmp_path / "base")
    main(words(base, tmp_path / "run", "block", "--trainer.max_steps=2"))
    last = str(tmp_path / "run/checkpoints/last.ckpt")
    other = shutil.copytree(base, tmp_path / "other")
    line = tiny.refused(capsys, words(other, tmp_path / "new", "block", "--ckpt_path", last))
    assert f"source {base} here {other}" in line


def test_resuming_is_not_interrupting(tmp_path):
    base = base_with_tokenizer(tmp_path / "base")
    main(words(base, tmp_path / "whole", "block", "--trainer.max_steps=4"))
    every = ("--checkpoint.every_n_train_steps=2", "--checkpoint.save_top_k=-1")
    main(words(base, tmp_path / "parts", "block", "--trainer.max_steps=4", *every))
    middle = tmp_path / "parts/checkpoints/step-2.ckpt"
    main(
        words(
            base, tmp_path / "parts", "block", "--trainer.max_steps=4", "--ckpt_path", str(middle)
        )
    )
    states = [textdiff.load(tmp_path / run).network.state_dict() for run in ("whole", "parts")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_training_begins_from_an_adapted_model(tmp_path):
    base = base_with_tokenizer(tmp_path / "base")
    main(words(base, tmp_path / "block", "block", "--trainer.max_steps=2", "--model.lr=0.01"))
    begin = (
        f"--model.init_from={tmp_path / 'block'}",
        "--trainer.max_steps=2",
        "--model.lr=1e-9",
        "--model.warmup=1",
    )
    main(words(base, tmp_path / "slide", "slide", *begin))
    first, second = (textdiff.load(tmp_path / run) for run in ("block", "slide"))
    assert isinstance(second.hyperschedule, Slide)
    for name, tensor in first.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], tensor, atol=1e-6, rtol=0)
    assert not torch.equal(
        first.network.mask, Pretrained(str(base)).build(first.network.num_tokens, False, 0).mask
    )


def test_another_tokenizer_is_refused_with_the_remedy(tmp_path, capsys):
    base = base_with_tokenizer(tmp_path / "base")
    line = tiny.refused(
        capsys, words(base, tmp_path / "run", "block", "--data.tokenizer=textdiff.data.Characters")
    )
    assert f"--data.tokenizer.name_or_path {base}" in line
    assert not (tmp_path / "run").exists()


@each_base
def test_a_folder_keeps_every_kind_of_base(base, tmp_path):
    tokenizer = BPE(300).build(Files(str(tiny.text())))
    net = Pretrained(source(base, len(tokenizer))).build(len(tokenizer), True, BOS)
    folder = textdiff.save(
        Model(net, GammaHybrid(0.3), Slide(4, 2), tokenizer, L), tmp_path / "run"
    )
    again = textdiff.load(folder).network
    assert type(again) is type(net) and (again.bos, again.sees_time) == (BOS, True)
    theirs = AutoModel.from_pretrained(folder).eval()  # made without memory first, and filled
    with torch.no_grad():
        expected = net.eval()(tokens())
        assert torch.equal(again(tokens()), expected) and torch.equal(theirs(tokens()), expected)
    config = json.loads((folder / "config.json").read_text())
    assert config["base"] == net.config.base  # plain values that JSON leaves as they are
    assert str(tiny.folder()) not in json.dumps(config)


@pytest.mark.parametrize(
    "change",
    [{"model_type": "llama"}, {"model_type": "nothing"}, {"model_type": ["textdiff"]}],
    ids=str,
)
def test_folders_of_other_kinds_are_refused(change, tmp_path):
    folder = shutil.copytree(tiny.run(), tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match="describes no textdiff model"):
        textdiff.load(folder)


# --- real weights


def test_stories260k_gives_its_known_likelihood(shared_file, tmp_path):
    """1.54 nats a token at the beginning of the held-out stories, in windows of 255 tokens, through
    our own evaluation.
    """
    folder = shared_file("models", "stories260K")
    text = tmp_path / "valid.txt.xz"
    shutil.copyfile(shared_file("tinystories", "tinystories.valid.head.txt.xz"), text)
    corpus = Files(train=str(text), validation=str(text), test=str(text))
    data = TextData(corpus, PretrainedTokenizer(str(folder)), length=255, batch_size=32)
    net = (
        Pretrained(str(folder))
        .build(len(data.tokenizer), False, data.tokenizer.bos_token_id)
        .eval()
    )
    rows = torch.from_numpy(data.packed("validation").ids[:64].astype("int64"))
    found = perplexity.measure(
        Model(net, Absorbing(), QuenchedAR(), data.tokenizer, 255),
        lambda: iter([Batch(rows, torch.arange(64), torch.arange(64))]),
    )[0]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(
            pad(rows[:, :-1], (1, 0), value=1)
        ).logits
    assert found.name == "exact -log p" and abs(found.nats - 1.54) < 0.01
    assert abs(found.nats - float(cross_entropy(logits.transpose(1, 2), rows))) < 1e-5
