"""The quickstart, tiny: it leaves two whole models, shows what they give, and fails where nothing
was learnt.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

import textdiff
from textdiff.hyperschedule import Block, QuenchedAR
from textdiff.process import Absorbing, EpsilonHybrid

ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / "experiments/quickstart/run.py")
TINY = [
    "--rows=4",
    "--trainer.max_steps=10",
    "--trainer.val_check_interval=10",
    "--trainer.limit_val_batches=1",
    "--model.network.layers=1",
    "--model.network.width=16",
    "--model.network.heads=2",
    "--model.warmup=1",
    "--data.batch_size=2",
    "--data.length=32",
]


def quickstart(monkeypatch, run):
    """Run the script in this process, as `make quickstart` does; ten steps teach nothing."""
    monkeypatch.setattr(sys, "argv", ["run.py", f"--run={run}", *TINY])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(SCRIPT, run_name="__main__")
    return str(stopped.value)


def test_it_makes_a_gpt_and_a_hybrid_and_shows_them(tmp_path, monkeypatch, capsys):
    run = tmp_path / "quickstart"
    assert "has learnt nothing" in quickstart(monkeypatch, run)
    out, err = capsys.readouterr()
    assert err.count(" left\n") == 20  # ten lines of progress for each training

    gpt, hybrid = textdiff.load(run / "gpt"), textdiff.load(run)
    assert (gpt.process, gpt.hyperschedule) == (Absorbing(), QuenchedAR())
    assert (hybrid.process, hybrid.hyperschedule) == (EpsilonHybrid(0.01), Block(4, 4))
    assert gpt.network.config.shifted and hybrid.network.config.shifted
    pictures = [line.split()[1] for line in out.splitlines() if line.startswith("picture")]
    assert len(pictures) == 4 and all(Path(path).stat().st_size for path in pictures)

    result = json.loads((run / "results/quickstart.json").read_text())
    assert result["gpt"]["bounds"][0]["name"] == "exact -log p"
    assert [bound["name"][:2] for bound in result["bounds"]] == ["B3", "B1", "B2"]
    ar, block, slide = result["samples"].values()
    assert ar["tokens_per_forward"] == 1.0
    assert block["nfe"] < ar["nfe"] <= slide["nfe"]  # of four calls each, one a token
    for shown in (f"{result['gpt']['bounds'][0]['nats']:.3f}", "bits/byte", "ROMEO:", "slide"):
        assert shown in out

    monkeypatch.syspath_prepend(str(ROOT / "experiments"))  # as `python` does
    table = runpy.run_path(str(ROOT / "experiments/readme.py"))["quickstart"](result)
    for bound in (*result["gpt"]["bounds"], *result["bounds"]):
        assert f"| {bound['name']} | {bound['nats']:.3f} ± " in table
    assert block["texts"][0].rstrip() in table


def test_every_bound_must_be_below_the_unigram_entropy():
    learnt = runpy.run_path(SCRIPT)["learnt"]
    learnt([2.9, 3.1], 3.2)
    for bounds in ([2.9, 3.2], [3.3, 2.9], [2.9, float("nan")]):
        with pytest.raises(SystemExit, match="has learnt nothing"):
            learnt(bounds, 3.2)


def test_it_removes_no_folder_that_is_not_its_own(tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "not the folder of a quickstart" in quickstart(monkeypatch, tmp_path)
    assert (tmp_path / "thesis.tex").exists()
