"""What was written to disk before the modules moved still opens, and gives the same numbers.

`fixtures/before_the_house` was written by commit 693fcbe; its make.py says how, and what is what.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

import textdiff
from textdiff.commands.cli import main
from textdiff.data import Corpus, TokenizerSpec
from textdiff.estimator import Estimator
from textdiff.hyperschedule import Hyperschedule
from textdiff.model.reference import compute
from textdiff.network import Architecture
from textdiff.objective import Objective
from textdiff.process import Process
from textdiff.samplers import Remasking, Sampler, Score, Selection
from textdiff.spec import build

BEFORE = Path(__file__).parent / "fixtures" / "before_the_house"
BASES = {
    base.__name__: base
    for base in (
        *(Process, Hyperschedule, Objective, Estimator, Architecture, Corpus, TokenizerSpec),
        *(Sampler, Score, Selection, Remasking),
    )
}
"""The bases by the names that they had."""


def read(path: str | Path) -> Any:
    """The content of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


OBJECTS = read(BEFORE / "described.json")
EXPECTED = read(BEFORE / "expected.json")
NETWORKS = [f"networks/{folder.name}" for folder in sorted(BEFORE.glob("networks/*"))]
CHECKPOINTS = ["run/checkpoints/last.ckpt", "run/step-2.ckpt"]
FOLDERS = ["folder", "export", "run", *NETWORKS]
RESUMED = ["--config", "run/config.yaml", "--ckpt_path", "run/checkpoints/last.ckpt"]


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything, as the working directory: paths in the run are relative to it."""
    copy = shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(copy)
    return copy


inside = pytest.mark.usefixtures("before")


def inverse_cdf(logits: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """How that commit drew tokens: one inverse CDF over the vocabulary, in float64."""
    cdf = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(cdf, u[..., None] * cdf[..., -1:], right=True).squeeze(-1)


def rank_of(score: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """How that commit ranked confidences: to four decimals."""
    return score.mul(1e4).round().argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


@pytest.fixture
def drawn_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens drawn and ranked as that commit did, so that what it drew shows all else to be the
    same: since then they are drawn down a tree (`maths.md` 5.7) and ranked by log-odds.
    """
    monkeypatch.setattr("textdiff.samplers.selection.rank_of", rank_of)
    for name in ("base", "acs", "confidence", "analytic"):
        monkeypatch.setattr(f"textdiff.samplers.{name}.categorical", inverse_cdf)


as_before = pytest.mark.usefixtures("before", "drawn_as_before")


# ----------------------------------------------------------------------------------------- objects


def same(made: Any, written: Any) -> bool:
    """Whether an object has the arguments that were written, whatever its class is called now."""
    if isinstance(written, dict):
        arguments = written["init_args"].items()
        return all(same(getattr(made, name), argument) for name, argument in arguments)
    return (list(made) if isinstance(made, tuple) else made) == written


@pytest.mark.parametrize("entry", OBJECTS, ids=lambda entry: entry["repr"])
def test_an_object_is_built_from_where_it_was_defined_and_from_where_it_was_documented(entry):
    base, value = BASES[entry["base"]], entry["value"]
    made = build(value, base)
    assert same(made, value)
    assert build(value | {"class_path": entry["public"]}, base) == made
    if entry["default"]:
        assert build({"class_path": entry["public"]}, base) == made
        assert build({"class_path": value["class_path"]}, base) == made


def test_no_two_classes_have_become_one():
    made = {e["public"]: type(build(e["value"], BASES[e["base"]])) for e in OBJECTS}
    assert len(set(made.values())) == len(made)


@pytest.mark.parametrize("option", ["sampler", "hyperschedule"])
def test_what_was_written_as_on_the_command_line_is_read(option):
    """As in the files of `evaluate frontier`, and in scripts that call `generate`."""
    config = textdiff.load(BEFORE / "folder").generation_config
    entries = [entry for entry in OBJECTS if entry["base"] == option.capitalize()]
    for entry in entries:
        read = getattr(config.but(**{option: entry["repr"]}), option)
        assert read == build(entry["value"], BASES[entry["base"]])
    assert entries


def test_the_class_that_configs_for_fsdp_name_is_that_of_the_blocks():
    block = import_module("textdiff.network.transformer").Block
    network = textdiff.load(BEFORE / "folder").network
    assert {type(each) for each in network.blocks} == {block}


# ------------------------------------------------------------------------------------------ models


def expected_of(source: str) -> dict[str, Any]:
    """What a model drew and measured."""
    return EXPECTED[source] if source in EXPECTED else read(Path(source, "expected.json"))


@as_before
@pytest.mark.parametrize("source", [*FOLDERS, *CHECKPOINTS])
def test_a_model_draws_and_measures_what_it_did(source):
    """In float64, with the options of its own generation_config.json."""
    model, expected = textdiff.load(source), expected_of(source)
    model.network.double()
    found = model.generate(expected["prompts"], **expected["options"])
    assert [row.tolist() for row in found.ids] == expected["ids"]
    assert found.nfe == expected["nfe"]
    assert compute(model) == pytest.approx(expected["bounds"], rel=1e-6)


@inside
@pytest.mark.parametrize("source", [*FOLDERS, *CHECKPOINTS])
def test_a_model_scores_a_text_as_it_did(source):
    """Through the command line, in float32, under noise that masks and corrupts."""
    words = ["--corpus", "run/text.txt", "--limit", "4", "--draws", "2", "--output", "again.json"]
    main(["evaluate", "perplexity", source, *words])
    found = read("again.json")["bounds"]
    for name, expected in expected_of(source)["scored"].items():
        assert [bound[name] for bound in found] == pytest.approx(expected, rel=1e-5)


@inside
@pytest.mark.parametrize("source", FOLDERS)
def test_transformers_knows_the_network(source):
    ours = textdiff.load(source).network.state_dict()
    theirs = AutoModel.from_pretrained(source).state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


# ------------------------------------------------------------------------------------ command line


@as_before
def test_sample_draws_the_same_texts():
    # that commit's command had a seed of its own before the model's
    main(["sample", "folder", "--prompt", "ROME", "--seed", "0", "--output", "again.json"])
    stored, again = read("folder/results/samples.json"), read("again.json")
    assert again["samples"] == stored["samples"]
    assert again["nfe_of_samples"] == stored["nfe_of_samples"]


@inside
@pytest.mark.parametrize("source", ["folder", "export"])
def test_evaluate_perplexity_measures_the_same_on_the_text_of_training(source):
    (path,) = Path(source, "results").glob("perplexity-*.json")
    words = ["--limit", "4", "--draws", "2", "--output", "again.json"]
    main(["evaluate", "perplexity", source, *words])
    for stored, again in zip(read(path)["bounds"], read("again.json")["bounds"], strict=True):
        assert (again["tokens"], again["draws"]) == (stored["tokens"], stored["draws"])
        for name in ("nats", "standard_error"):
            assert again[name] == pytest.approx(stored[name], rel=1e-5)


@inside
def test_an_export_verifies_and_travels_on():
    textdiff.load("export", verify=True)
    main(["export", "export", "again"])
    stored, again = (read(f"{folder}/reference.json")["bounds"] for folder in ("export", "again"))
    assert again == pytest.approx(stored, rel=1e-5)
    assert "license: apache-2.0" in Path("again/README.md").read_text(encoding="utf-8")
    stored, again = (sorted(os.listdir(f"{folder}/results")) for folder in ("export", "again"))
    assert again == stored


@inside
def test_report_reads_the_results():
    main(["report", "folder"])
    told = Path("folder/report.md").read_text()
    assert all(path.name in told for path in Path("folder/results").iterdir())


# --------------------------------------------------------------------------------------------- run


def losses(run: str) -> list[float]:
    """The losses of the newest log of a run."""
    newest = max(Path(run).glob("logs/version_*/metrics.csv"))
    with newest.open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


@inside
def test_a_run_is_resumed(monkeypatch):
    """Weights, averages, moments, place in the data and noise: all were kept.

    That commit took the first learning rate from the end of the shorter training; with it, instead
    of the one that the longer training has there, all losses are the same.
    """
    monkeypatch.setattr("textdiff.training.optimiser.Optimiser.resume", lambda *_: None)
    expected = EXPECTED["resumed"]
    assert losses("run") == EXPECTED["run"]["losses"]
    main(["fit", *RESUMED, "--trainer.max_steps", str(expected["max_steps"])])
    assert losses("run") == pytest.approx(expected["losses"], rel=1e-4)
    model = textdiff.load("run")
    model.network.double()
    assert compute(model) == pytest.approx(expected["bounds"], rel=1e-4)


@inside
def test_a_resumed_run_knows_its_data(capsys):
    """The data module's own state is found in the checkpoint, where its class's name is the key."""
    main(["fit", *RESUMED, "--trainer.max_steps=6", "--data.batch_size=2"])
    assert "batch_size 4 -> 2" in capsys.readouterr().err


@as_before
def test_predict_fills_the_same_tokens():
    main(["predict", *RESUMED, "--data.predict", "run/gaps.txt"])
    lines = Path("run/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == EXPECTED["resumed"]["predicted"]


@inside
def test_validate_measures_the_bounds_of_the_log(capsys):
    main(["validate", *RESUMED])
    told = capsys.readouterr().out
    assert all(name in told for name in ("val/nelbo", "val/b1", "val/b2"))


@inside
@pytest.mark.parametrize("origin", ["run", "run/step-2.ckpt"])
def test_another_training_begins_from_the_weights(origin):
    words = [f"--model.init_from={origin}", "--model.lr=1e-9", "--trainer.max_steps=2"]
    words += ["--trainer.default_root_dir=tuned", "--checkpoint.dirpath=tuned/checkpoints"]
    main(["fit", "--config", "run/config.yaml", *words])
    first, second = (textdiff.load(source).network.state_dict() for source in (origin, "tuned"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-6, rtol=0)
