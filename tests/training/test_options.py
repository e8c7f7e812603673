"""What a training is asked for is what it does: options on resume, finders, devices."""

import pytest
import tiny
import torch
from lightning.pytorch.accelerators import MPSAccelerator

from textdiff.training.module import TextDiffusion
from textdiff.training.optimiser import Optimiser


def test_a_resume_has_the_optimisers_numbers_of_its_own_command(tmp_path, monkeypatch):
    run = tiny.fit(tmp_path / "run", "--model.lr=0.02", max_steps=4)
    last = run / "checkpoints" / "last.ckpt"
    first = []
    step = TextDiffusion.training_step

    def seen(module, batch, index):
        group = module.trainer.optimizers[0].param_groups[0]
        first.append((module.global_step, group["lr"], group["weight_decay"], group["betas"]))
        return step(module, batch, index)

    monkeypatch.setattr(TextDiffusion, "training_step", seen)
    words = ["--model.lr=0.003", "--model.weight_decay=0.5", "--model.betas=[0.8, 0.95]"]
    tiny.fit(run, f"--ckpt_path={last}", *words, max_steps=6)
    optimiser = Optimiser(0.003, (0.8, 0.95), 0.5, warmup=1, final_lr=0.1)
    assert first == [
        (number, 0.003 * optimiser.share(number, 6), 0.5, (0.8, 0.95)) for number in (4, 5)
    ]
    saved = torch.load(last, weights_only=True)
    assert [g["weight_decay"] for g in saved["optimizer_states"][0]["param_groups"]] == [0.5, 0.0]
    assert saved["lr_schedulers"][0]["base_lrs"] == [0.003, 0.003]


@pytest.mark.parametrize(
    "finder, option", [("LearningRateFinder", "model.lr"), ("BatchSizeFinder", "data.batch_size")]
)
def test_finders_are_refused(finder, option, tmp_path, capsys):
    words = [
        "fit",
        *tiny.configs("trainer/quick", "model/epsilon"),
        *tiny.text_files(tiny.text()),
        *tiny.toy(tmp_path / "run"),
        f"--trainer.callbacks=lightning.pytorch.callbacks.{finder}",
    ]
    assert f"set {option}" in tiny.refused(capsys, words)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_mac_trains_on_its_cpu_and_says_so(tmp_path, monkeypatch, capsys):
    devices = []
    started = TextDiffusion.on_fit_start

    def seen(module):
        devices.append(module.device.type)
        started(module)

    monkeypatch.setattr(TextDiffusion, "on_fit_start", seen)
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    run = tiny.fit(tmp_path / "run", accelerator="auto")
    assert devices == ["cpu"] and (run / "model.safetensors").exists()
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert said == ["textdiff: warning: this runs on the CPU, because Apple's MPS has no float64"]
