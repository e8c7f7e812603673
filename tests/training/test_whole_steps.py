"""A run that is cut anywhere inside an accumulation, and cut again, ends in the weights of one that
never was; signals stop it with all its steps saved.
"""

import os
import signal

import lightning
import pytest
import tiny
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from textdiff.data import BPE, Characters, Files, HubDataset, TextData
from textdiff.network import Transformer
from textdiff.process import EpsilonHybrid
from textdiff.training.module import TextDiffusion

PARTS = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers")


class Cut(lightning.Callback):
    """Raises in training batch `train`, or while it validates after batch `validation`."""

    def __init__(self, train=None, validation=None, error=KeyError):
        self.train, self.validation, self.error = train, validation, error

    def count(self, trainer):
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def on_train_batch_start(self, trainer, *_):
        if self.count(trainer) == self.train:
            raise self.error("cut")

    def on_validation_batch_end(self, trainer, *_):
        if self.count(trainer) == self.validation:
            raise self.error("cut")


def batches(stream):
    if stream is None:
        return TextData(
            Files(*[str(tiny.text())] * 2), Characters(), length=16, batch_size=8, seed=5
        )
    corpus = HubDataset(str(stream), streaming=True)
    return TextData(corpus, BPE(270, documents=40), length=16, batch_size=4)


def train(folder, accumulate, ckpt=None, cut=None, stream=None, **options):
    """Six steps of a tiny network; the last checkpoint."""
    saver = ModelCheckpoint(
        folder,
        "{step}",
        every_n_train_steps=1,
        save_last=True,
        save_on_exception=True,
        enable_version_counter=False,
    )
    defaults = {"val_check_interval": 3, "check_val_every_n_epoch": None, "limit_val_batches": 2}
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        max_steps=6,
        max_epochs=-1,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        accumulate_grad_batches=accumulate,
        callbacks=[EMAWeightAveraging(decay=0.8), saver, *([cut] if cut else [])],
        **(defaults | options),
    )
    module = TextDiffusion(
        EpsilonHybrid(0.1),
        network=Transformer(layers=1, width=8, heads=1, dropout=0.1),
        warmup=2,
        lr=0.05,
        seed=3,
    )
    try:
        trainer.fit(module, batches(stream), ckpt_path=ckpt, weights_only=True)
    except (KeyError, OSError):
        assert cut is not None
    return folder / "last.ckpt"


def weights(path):
    saved = torch.load(path, weights_only=True)
    return saved["global_step"], {part: saved[part] for part in PARTS}


def leaves(value):
    """All tensors and numbers of nested containers."""
    if isinstance(value, dict | list | tuple):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for part in inner for leaf in leaves(part)]
    return [value]


def assert_same(one, other):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)) if a is not None else b is None


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    text = "".join(tiny.LINE[: 20 + 11 * i % 60] + "\n" for i in range(60))
    (folder / "train.txt").write_text(text)
    (folder / "validation.txt").write_text(tiny.LINE * 3)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, stream):
    made = {}

    def get(accumulate, kind):
        if (accumulate, kind) not in made:
            folder = tmp_path_factory.mktemp("whole")
            text = stream if kind == "stream" else None
            made[accumulate, kind] = weights(train(folder, accumulate, stream=text))
        return made[accumulate, kind]

    return get


@pytest.mark.parametrize("kind", ["map", "stream"])
@pytest.mark.parametrize(
    "accumulate, cuts",
    [
        (2, [Cut(train=4), Cut(train=6)]),  # in the second micro-batch of a step, twice
        (2, [Cut(validation=3), Cut(validation=6)]),  # while it validates, in mid-step and after
        (4, [Cut(train=10), Cut(train=12), Cut(train=9), Cut(validation=15)]),
    ],
    ids=["train", "validation", "four"],
)
def test_cut_inside_an_accumulation_and_resumed(accumulate, cuts, kind, tmp_path, whole, stream):
    last = None
    text = stream if kind == "stream" else None
    for number, cut in enumerate([*cuts, None]):
        # a new folder each time, so that what is gone on from is what this session wrote
        folder = tmp_path / str(number)
        made = train(folder, accumulate, ckpt=last, cut=cut, stream=text)
        last = made if made.exists() else last
    steps, parts = weights(last)
    assert steps == 6
    assert_same(parts, whole(accumulate, kind)[1])


def test_an_exception_saves_all_whole_steps_but_not_what_diverged(tmp_path):
    last = train(tmp_path / "cut", 2, cut=Cut(train=8))
    assert weights(last)[0] == 3


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_with_its_code_and_all_steps_saved(number, code, tmp_path, monkeypatch):
    """The validation, which saves, is far away; the signal comes in the third step of five."""
    step = TextDiffusion.training_step

    def killed(module, batch, index):
        if (
            module.global_step == 2
            and module.trainer.fit_loop.epoch_loop._accumulated_batches_reached()
        ):
            os.kill(os.getpid(), number)
        return step(module, batch, index)

    options = {"max_steps": 5, "val_check_interval": 20, "accumulate_grad_batches": 2}
    whole = weights(tiny.fit(tmp_path / "whole", **options) / "checkpoints" / "last.ckpt")
    handlers = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stop:
        patched.setattr(TextDiffusion, "training_step", killed)
        tiny.fit(tmp_path / "run", **options)
    assert stop.value.code == code
    assert handlers == [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert weights(last)[0] == 3
    tiny.fit(tmp_path / "run", f"--ckpt_path={last}", **options)
    assert_same(weights(last), whole)
