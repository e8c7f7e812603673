"""On a Mac, whose MPS has no float64, training runs on the CPU and says so (a Mac is made up)."""

import pytest
import tiny
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import MPSAccelerator

from textdiff.training import trainers


def test_fit_takes_the_cpu_and_says_so(tmp_path, monkeypatch, capsys):
    taken = []
    check = trainers.check
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(
        trainers,
        "check",
        lambda trainer: (taken.append(trainer.strategy.root_device.type), check(trainer)),
    )
    tiny.fit(tmp_path / "run", accelerator="auto")
    assert "cpu" in taken and set(taken) == {"cpu"}
    assert "this runs on the CPU, because Apple's MPS has no float64" in capsys.readouterr().err


def test_mps_that_is_asked_for_is_refused(monkeypatch):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(
        type(trainer.strategy), "root_device", property(lambda self: torch.device("mps"))
    )
    with pytest.raises(ValueError, match=r"use trainer\.accelerator cpu"):
        trainers.check(trainer)
