"""A run that is cut anywhere and resumed sees exactly the remaining batches of an uninterrupted one
(real Trainer).
"""

import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from textdiff.data import BPE, Files, HubDataset, TextData
from textdiff.data.tokenizers import Characters

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n"


class Toy(lightning.LightningModule):
    """Records every batch it trains and validates on."""

    def __init__(self, cut: int | None = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.cut, self.seen, self.validated = cut, [], []

    def training_step(self, batch, index):
        if self.cut == len(self.seen):
            raise RuntimeError("cut")
        self.seen.append({key: value.tolist() for key, value in batch.items()})
        return self.weight * batch["ids"].float().mean()

    def validation_step(self, batch, index):
        self.validated += batch["example"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class SaveEverywhere(lightning.Callback):
    """A checkpoint after every training batch, validation batch, validation and epoch, with the
    batches seen so far.
    """

    def __init__(self, folder: Path):
        self.folder, self.saved = folder, {}

    def save(self, trainer, module, where):
        name = f"{where}-{len(module.seen)}-{len(module.validated)}.ckpt"
        trainer.save_checkpoint(self.folder / name)
        self.saved[name] = len(module.seen)

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.save(trainer, module, "batch")

    def on_validation_batch_end(self, trainer, module, outputs, batch, index, dataloader_idx=0):
        self.save(trainer, module, "validating")

    def on_validation_end(self, trainer, module):
        self.save(trainer, module, "validated")

    def on_train_epoch_end(self, trainer, module):
        self.save(trainer, module, "epoch")


def trainer(callbacks=(), **options):
    defaults = {
        "enable_checkpointing": False,
        "max_epochs": 3,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **(defaults | options),
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "train.txt").write_text(TEXT * 5)
    (folder / "validation.txt").write_text(TEXT)
    return Files(str(folder / "train.txt"), str(folder / "validation.txt"))


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    (folder / "train.txt").write_text("".join(TEXT[: 7 + 11 * i % 60] + "\n" for i in range(40)))
    (folder / "validation.txt").write_text(TEXT)
    return HubDataset(str(folder), streaming=True)


def data(corpus, **options):
    return TextData(corpus, Characters(), **({"length": 16, "batch_size": 4, "seed": 5} | options))


def check_all(make, folder, every=1, **options):
    """Run whole, saving everywhere; resume from every `every`th checkpoint and compare what is
    left.
    """
    whole, saver = Toy(), SaveEverywhere(folder)
    trainer([saver], **options).fit(whole, make())
    assert len(whole.seen) > 6 and whole.validated
    for name, seen in list(saver.saved.items())[::every]:
        rest = Toy()
        trainer(**options).fit(rest, make(), ckpt_path=str(folder / name), weights_only=True)
        assert rest.seen == whole.seen[seen:], name
    return whole.seen


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"val_check_interval": 3},
        {"accumulate_grad_batches": 2},
        {"limit_train_batches": 4},
        {
            "max_epochs": -1,
            "max_steps": 15,
            "val_check_interval": 4,
            "check_val_every_n_epoch": None,
        },
    ],
    ids=str,
)
def test_resume_is_exact_wherever_the_run_was_cut(corpus, tmp_path, options):
    seen = check_all(lambda: data(corpus), tmp_path, **options)
    slots = [slot for batch in seen for slot in batch["slot"]]
    assert slots == list(range(len(slots)))


def test_resume_with_workers(corpus, tmp_path):
    check_all(lambda: data(corpus, num_workers=2), tmp_path, every=7)


def test_resume_after_an_exception(corpus, tmp_path):
    whole = Toy()
    trainer().fit(whole, data(corpus))
    cut = Toy(cut=8)
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_epochs=100, save_on_exception=True)
    with pytest.raises(RuntimeError, match="cut"):
        trainer([saver], enable_checkpointing=True).fit(cut, data(corpus))
    (saved,) = tmp_path.glob("*.ckpt")
    rest = Toy()
    trainer().fit(rest, data(corpus), ckpt_path=str(saved), weights_only=True)
    assert cut.seen + rest.seen == whole.seen


def test_epochs_are_permutations_and_differ(corpus):
    toy = Toy()
    module = data(corpus)
    trainer(max_epochs=2).fit(toy, module)
    n, steps = len(module.packed("train")), len(toy.seen) // 2
    epochs = [
        [row for b in toy.seen[e * steps : (e + 1) * steps] for row in b["example"]] for e in (0, 1)
    ]
    assert steps == n // 4 and epochs[0] != epochs[1]
    assert all(len(set(epoch)) == steps * 4 for epoch in epochs)
    assert toy.validated == list(range(len(module.packed("validation")))) * 2


@pytest.mark.parametrize("documents", ["joined", "separate", "single"])
def test_stream_resumes_at_the_token(stream, tmp_path, documents):
    def make():
        return data_stream(stream, documents=documents, padding="ignored")

    seen = check_all(make, tmp_path, every=3, max_epochs=2)
    half = len(seen) // 2
    assert [b["ids"] for b in seen[:half]] == [
        b["ids"] for b in seen[half:]
    ]  # the second pass starts at the beginning
    assert [b["example"] for b in seen[:half]] == [b["example"] for b in seen[half:]]


def data_stream(stream, **options):
    return TextData(stream, BPE(270, documents=40), **({"length": 16, "batch_size": 4} | options))


def test_stream_with_a_worker_and_short_epochs(stream, tmp_path):
    def make():
        return data_stream(stream, num_workers=1)

    limited = check_all(make, tmp_path, every=19, limit_train_batches=7, max_epochs=6)
    whole = Toy()
    trainer(max_epochs=2).fit(whole, data_stream(stream))
    assert (
        limited[: len(whole.seen)] == whole.seen[: len(limited)]
    )  # an epoch of 7 batches goes on where the last ended


def test_other_settings_are_named(corpus, tmp_path):
    first, saver = Toy(), SaveEverywhere(tmp_path)
    trainer([saver], max_epochs=1).fit(first, data(corpus))
    with pytest.warns(UserWarning, match="batch_size 4 -> 2"):
        trainer(max_epochs=2).fit(
            Toy(),
            data(corpus, batch_size=2),
            ckpt_path=str(tmp_path / "batch-2-0.ckpt"),
            weights_only=True,
        )


def test_no_false_warning(corpus, tmp_path):
    trainer([SaveEverywhere(tmp_path)], max_epochs=1).fit(Toy(), data(corpus))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(max_epochs=1).fit(
            Toy(), data(corpus), ckpt_path=str(tmp_path / "batch-2-0.ckpt"), weights_only=True
        )
    assert not [w for w in caught if "resum" in str(w.message)]


def test_overfitting_repeats_the_same_batches(corpus):
    toy = Toy()
    trainer(overfit_batches=2).fit(toy, data(corpus))
    assert len(toy.seen) == 6 and toy.seen[:2] == toy.seen[2:4] == toy.seen[4:]


def test_the_global_generator_is_left_alone(corpus):
    module = data(corpus)
    loader = module.train_dataloader()
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(before, torch.get_rng_state())
