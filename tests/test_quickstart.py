"""The quickstart runs, leaves a whole run, and says so when nothing was learnt."""

from __future__ import annotations

import runpy
import sys

import pytest
from tiny import ROOT

TOY = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--model.network.layers=1",
    "--model.network.width=16",
    "--model.network.heads=2",
    "--data.length=32",
    "--model.warmup=1",
]


def test_the_quickstart_leaves_a_run(tmp_path, monkeypatch):
    run = tmp_path / "quickstart"
    monkeypatch.setattr(sys, "argv", ["run.py", "--rows=4", f"--run={run}", *TOY])
    with pytest.raises(SystemExit, match="has learnt nothing"):  # two steps teach nothing
        runpy.run_path(str(ROOT / "experiments/quickstart/run.py"), run_name="__main__")
    whole = ("model.safetensors", "config.json", "tokenizer.json", "config.yaml")
    for name in (*whole, "loss.png", "hyperschedule.png", "results/quickstart.json"):
        assert (run / name).stat().st_size > 0
