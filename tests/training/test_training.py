"""Training: interrupted and resumed equals uninterrupted, bit for bit; the log; the optimiser."""

import math
from pathlib import Path

import lightning
import pytest
import tiny
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy

from textdiff.commands.cli import main
from textdiff.data import BPE, Characters, Files, HubDataset, TextData
from textdiff.hyperschedule import Block, Flat, QuenchedAR
from textdiff.network import Transformer
from textdiff.objective import Nelbo, Stratified, WeightedCrossEntropy
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid
from textdiff.training.module import TextDiffusion

SHAPE = Transformer(layers=1, width=16, heads=2, dropout=0.2)


class Losses(lightning.Callback):
    """Every micro-batch's loss and the learning rate it was made with."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.seen.append((outputs["loss"].item(), trainer.optimizers[0].param_groups[0]["lr"]))


def train(folder, module, data, ckpt=None, **options):
    """Train with a checkpoint every 3 steps; what was seen, and the folder's last checkpoint."""
    losses, saver = (
        Losses(),
        ModelCheckpoint(folder, "{step}", every_n_train_steps=3, save_top_k=-1),
    )
    defaults = {
        "max_steps": 8,
        "max_epochs": -1,
        "gradient_clip_val": 1.0,
        "accumulate_grad_batches": 2,
    }
    defaults |= {
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
    }
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[EMAWeightAveraging(decay=0.8), saver, losses],
        **(defaults | options),
    )
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    trainer.save_checkpoint(folder / "end.ckpt")
    return losses.seen, torch.load(folder / "end.ckpt", weights_only=True), trainer


def assert_same(a, b, where=""):
    """Equality of nested plain values and tensors, bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


def map_style():
    return TextData(Files(*[str(tiny.text())] * 2), Characters(), length=16, batch_size=8, seed=5)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    (folder / "train.txt").write_text(
        "".join(tiny.LINE[: 20 + 11 * i % 60] + "\n" for i in range(60))
    )
    (folder / "validation.txt").write_text(tiny.LINE * 3)
    return lambda: TextData(
        HubDataset(str(folder), streaming=True), BPE(270, documents=40), length=16, batch_size=4
    )


CHOICES = {
    "epsilon": (EpsilonHybrid(0.1), WeightedCrossEntropy(), {}),
    "gamma, block": (
        GammaHybrid(0.3),
        Nelbo(),
        {"hyperschedule": Block(4, 4), "estimator": Stratified()},
    ),
}


ENDS = {
    "steps": {},
    "steps and epochs": {"max_epochs": 1000},
    "epochs": {"max_epochs": 2, "max_steps": -1},
}


@pytest.mark.parametrize(
    "choice, kind, end",
    [
        ("epsilon", "map-style", "steps"),
        ("epsilon", "map-style", "steps and epochs"),
        ("gamma, block", "map-style", "epochs"),
        ("epsilon", "stream", "steps and epochs"),
        ("gamma, block", "stream", "steps"),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(choice, kind, end, tmp_path, stream):
    """Cut at step 3 of 8, in mid-epoch, with accumulation, dropout, clipping and EMA; map-style
    data has 8 batches an epoch.
    """
    make = map_style if kind == "map-style" else stream
    process, objective, more = CHOICES[choice]
    ends = ENDS[end]

    def module():
        return TextDiffusion(
            process, objective=objective, network=SHAPE, warmup=2, lr=0.02, seed=3, **more
        )

    whole, last, _ = train(tmp_path / "whole", module(), make(), **ends)
    (cut,) = (tmp_path / "whole").glob("step=3.ckpt")
    torch.manual_seed(99)  # whatever the global generator is
    rest, again, _ = train(tmp_path / "rest", module(), make(), ckpt=str(cut), **ends)
    assert len(whole) == 16 and rest == whole[6:]
    assert len({loss for loss, _ in whole}) == 16
    parts = (
        "state_dict",
        "current_model_state",
        "averaging_state",
        "optimizer_states",
        "lr_schedulers",
        "hyper_parameters",
    )
    one, other = (
        torch.load(tmp_path / name / "step=6.ckpt", weights_only=True) for name in ("whole", "rest")
    )
    for part in parts:
        assert_same(one[part], other[part], part)
        assert_same(last[part], again[part], part)
    assert not torch.equal(
        one["state_dict"]["network.embedding.weight"],
        one["current_model_state"]["network.embedding.weight"],
    )


def test_resuming_through_the_command_line(tmp_path):
    """`fit --ckpt_path`: the same folder bit for bit, and the logs go on."""
    extra = [
        "--model.network.dropout=0.2",
        "--checkpoint.every_n_train_steps=2",
        "--checkpoint.save_top_k=-1",
    ]
    extra += ["--model.lr=0.02", "--model.warmup=2"]
    whole = tiny.fit(tmp_path / "whole", *extra, max_steps=6, accumulate_grad_batches=2)
    cut = whole / "checkpoints" / "step-4.ckpt"
    rest = tiny.fit(
        tmp_path / "rest", *extra, "--ckpt_path", str(cut), max_steps=6, accumulate_grad_batches=2
    )
    assert (whole / "model.safetensors").read_bytes() == (rest / "model.safetensors").read_bytes()
    one, other = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, rest)
    )
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        assert_same(one[part], other[part], part)
    first, second = (
        (run / "logs/version_0/metrics.csv").read_text().splitlines() for run in (whole, rest)
    )
    assert (
        len(second) > 3
        and first[0] == second[0]
        and second[1:] == first[len(first) - len(second) + 1 :]
    )


def test_results_do_not_depend_on_how_a_step_is_cut(tmp_path):
    """Rows are named by their place in the run: 1 batch of 8 and 2 of 4 see the same rows and
    noise, and make the same step.
    """
    quiet = Transformer(layers=1, width=16, heads=2)
    states = []
    for size, parts in ((8, 1), (4, 2)):
        data = TextData(
            Files(*[str(tiny.text())] * 2), Characters(), length=16, batch_size=size, seed=5
        )
        module = TextDiffusion(Absorbing(), network=quiet, warmup=1, lr=0.01)
        train(
            tmp_path / str(size),
            module,
            data,
            max_steps=4,
            accumulate_grad_batches=parts,
            limit_val_batches=0,
        )
        states.append(module.state_dict())
    for name in states[0]:
        assert torch.allclose(states[0][name], states[1][name], atol=2e-4), name


def validated(module, data, method="validate", **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    return getattr(trainer, method)(module, data, verbose=False)[0]


def trained(process, objective=Nelbo(), **options):  # noqa: B008
    torch.manual_seed(1)
    module = TextDiffusion(
        process, objective=objective, network=SHAPE, num_tokens=32, bos=0, **options
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def texts(batch=8, **options):
    return TextData(
        Files(*[str(tiny.text())] * 3),
        Characters(),
        length=16,
        batch_size=8,
        eval_batch_size=batch,
        **options,
    )


def test_the_named_bounds_of_validation_and_test():
    module = trained(EpsilonHybrid(0.1), WeightedCrossEntropy())
    assert set(validated(module, texts())) == {"val/nelbo", "val/b1", "val/b2"}
    assert set(validated(module, texts(), "test")) == {"test/nelbo", "test/b1", "test/b2"}
    for process in (Absorbing(), GammaHybrid(0.2)):
        assert set(validated(trained(process), texts())) == {"val/nelbo"}


@pytest.mark.parametrize("padding", ["learnt", "ignored"])
def test_validation_does_not_depend_on_the_batch(padding):
    schedule = Block(4, 3) if padding == "ignored" else Flat()
    module = trained(EpsilonHybrid(0.1), hyperschedule=schedule).double()
    one, seven = (
        validated(module, texts(size, documents="single", padding=padding)) for size in (1, 7)
    )
    for name in one:
        assert one[name] == pytest.approx(
            seven[name], rel=1e-7
        )  # Lightning hands the mean on in float32


def test_autoregression_validates_its_cross_entropy():
    module = trained(Absorbing(), hyperschedule=QuenchedAR())
    module = TextDiffusion(
        Absorbing(),
        QuenchedAR(),
        network=Transformer(layers=1, width=16, heads=2, layout="shifted"),
        num_tokens=32,
        bos=0,
    )
    torch.manual_seed(0)
    torch.nn.init.normal_(module.network.output.weight)
    data = texts()
    found = validated(module, data)["val/nelbo"]
    packed = data.packed("validation")
    ids = torch.from_numpy(packed.ids.astype("int64"))
    logits = module.network(
        torch.cat([torch.zeros(len(ids), 1, dtype=torch.int64), ids[:, :-1]], 1)
    )
    nats = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids.flatten(), reduction="sum"
    ).item()
    tokens = int(packed.counted.sum())  # the filler's nats are in the sum, it is no token
    assert tokens < ids.numel()
    assert found == pytest.approx(nats / tokens, rel=1e-6)


def test_log_and_last_learning_rate(tmp_path):
    module = TextDiffusion(Absorbing(), network=SHAPE, lr=0.5, warmup=3, final_lr=0.2)
    seen, _, trainer = train(tmp_path, module, map_style(), accumulate_grad_batches=1)
    rates = [rate for _, rate in seen]  # already that of the next step
    assert rates[:2] == [pytest.approx(0.5 * 2 / 3), pytest.approx(0.5)]
    progress = [(step - 3) / 5 for step in range(4, 9)]
    expected = [0.5 * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * p))) for p in progress]
    assert rates[3:] == pytest.approx(expected) and rates[-1] == pytest.approx(0.1)
    assert {"loss", "val/nelbo"} <= set(trainer.logged_metrics)
    decayed = trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in decayed] == [0.01, 0.0]
    assert all(p.ndim >= 2 for p in decayed[0]["params"]) and all(
        p.ndim < 2 for p in decayed[1]["params"]
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_every_precision(precision, tmp_path):
    """Lightning refuses to clip for a fused optimiser under mixed precision; all of full.yaml needs
    both.
    """
    module, norms = TextDiffusion(Absorbing(), network=SHAPE, warmup=1), []
    clip = module.configure_gradient_clipping

    def clipped(*arguments, **options):
        clip(*arguments, **options)
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in module.parameters()]).item())

    module.configure_gradient_clipping = clipped
    train(tmp_path, module, map_style(), max_steps=2, gradient_clip_val=1e-3, precision=precision)
    assert norms == [pytest.approx(1e-3, rel=1e-2)] * 2


def test_a_diverged_loss_is_an_error(tmp_path):
    module = TextDiffusion(Absorbing(), network=SHAPE, lr=1e30, warmup=1)
    with pytest.raises(
        ValueError, match=r"the loss is nan at step \d+: lower lr or clip gradients"
    ):
        train(tmp_path, module, map_style(), gradient_clip_val=None)


def test_a_loss_that_diverged_on_another_rank_is_an_error_here(tmp_path, monkeypatch):
    monkeypatch.setattr(
        SingleDeviceStrategy, "reduce_boolean_decision", lambda self, decision, all=True: False
    )
    with pytest.raises(ValueError, match="the loss is"):
        train(tmp_path, TextDiffusion(Absorbing(), network=SHAPE, warmup=1), map_style())


@pytest.mark.parametrize(
    "option",
    [
        {"lr": -1.0},
        {"lr": math.nan},
        {"betas": (0.9, 1.0)},
        {"betas": (0.9,)},
        {"final_lr": 1.5},
        {"warmup": -1},
        {"weight_decay": -1.0},
    ],
)
def test_what_the_optimiser_cannot_use_is_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} must be"):
        TextDiffusion(**option)


def test_a_warmup_without_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="warmup 8 leaves none of the 8 steps"):
        train(tmp_path, TextDiffusion(Absorbing(), network=SHAPE, warmup=8), map_style())


def test_another_tokenizer_of_the_same_size_is_refused(tmp_path):
    module = TextDiffusion(Absorbing(), network=SHAPE, warmup=1)
    train(tmp_path, module, map_style(), max_steps=3)
    other = tmp_path / "other.txt"
    letters = sorted(set(tiny.text().read_text()))
    other.write_text(tiny.text().read_text().translate({ord(letters[-1]): "é"}))
    data = TextData(Files(*[str(other)] * 2), Characters(), length=16, batch_size=8)
    with pytest.raises(ValueError, match="another tokenizer"):
        train(
            tmp_path / "on",
            TextDiffusion(Absorbing(), network=SHAPE, warmup=1),
            data,
            ckpt=str(tmp_path / "end.ckpt"),
        )


def test_a_stream_has_one_worker():
    with pytest.raises(ValueError, match="num_workers to 0 or 1 instead of 2"):
        TextData(HubDataset("x", streaming=True), BPE(270), num_workers=2)


def test_training_leaves_the_global_generator_of_a_network_without_dropout_alone(tmp_path):
    torch.manual_seed(4)
    state = torch.get_rng_state()
    train(
        tmp_path,
        TextDiffusion(Absorbing(), network=Transformer(1, 16, 2), warmup=1),
        map_style(),
        max_steps=2,
    )
    assert torch.equal(state, torch.get_rng_state())


def checkpoint(run: Path) -> str:
    return str(run / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--model.network.width=32"], "another architecture: width 16 here 32"),
        (["--model.network.layers=2"], "another architecture: layers 1 here 2"),
        (["--model.network.heads=4"], "another architecture: heads 2 here 4"),
        (
            [
                "--model.process=textdiff.process.GammaHybrid",
                "--model.estimator=textdiff.estimator.Stratified",
            ],
            "sees t False here True",
        ),
        (
            ["--data.tokenizer=textdiff.data.BPE", "--data.tokenizer.vocab_size=270"],
            "the tokenizer has 270 tokens, larger than",
        ),
    ],
)
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_checkpoint_of_another_network_is_refused(command, words, message, tmp_path, capsys):
    start = [
        command,
        *tiny.configs("trainer/quick", "model/epsilon"),
        *tiny.text_files(tiny.text()),
        *tiny.toy(tmp_path / "run"),
    ]
    said = tiny.refused(capsys, [*start, "--ckpt_path", checkpoint(tiny.run()), *words])
    assert message in said and not (tmp_path / "run").exists()


def test_options_of_the_command_are_not_overruled_by_the_checkpoint(tmp_path, capsys):
    """Lightning would fill the config with the checkpoint's hyper-parameters, sampler included."""
    start = [
        "validate",
        *tiny.configs("trainer/quick", "model/epsilon"),
        *tiny.text_files(tiny.text()),
        *tiny.toy(tmp_path),
    ]
    for words, b1 in (
        ([], True),
        (
            [
                "--model.process=textdiff.process.Absorbing",
                "--model.objective=textdiff.objective.Nelbo",
            ],
            False,
        ),
    ):
        capsys.readouterr()
        main([*start, "--ckpt_path", checkpoint(tiny.run()), *words])
        assert ("val/b1" in capsys.readouterr().out) is b1
