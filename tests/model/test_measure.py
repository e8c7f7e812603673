"""`Model.measure`: the bounds of some texts in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

import textdiff
from textdiff.commands.cli import main
from textdiff.hyperschedule import Block, QuenchedAR

TEXTS = ["the quick brown fox", "jumps over", "the lazy dog; pack my box " * 3]


@pytest.fixture(scope="module", params=["epsilon", "ar"])
def run(request) -> Path:
    """The folder of a toy that is measured with draws, and of one that is measured exactly."""
    return tiny.run(request.param)


@pytest.mark.parametrize("packing", [{}, {"padding": "ignored"}], ids=str)
@pytest.mark.parametrize("options", [[], ["--hyperschedule", "Block(4, 3)", "--draws", "2"]])
def test_it_is_evaluate_perplexity_on_the_same_documents(run, options, packing, tmp_path):
    model = textdiff.load(run)
    if packing:  # only a schedule from left to right can stop at the end of a row
        schedule = model.hyperschedule if model.hyperschedule == QuenchedAR() else Block(4, 3)
        model = replace(
            model, hyperschedule=schedule, documents="single", data=model.data | packing
        )
    copy = tmp_path / "run"
    textdiff.save(model, copy)
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    words = [str(copy), "--corpus", str(file), "--output", str(tmp_path / "out.json")]
    words += ["--device", "cpu"]  # as the model here
    main(["evaluate", "perplexity", *words, *options])
    there = json.loads((tmp_path / "out.json").read_text())["bounds"]
    ours = {"hyperschedule": Block(4, 3), "draws": 2} if options else {}
    here = [json.loads(json.dumps(bound.as_dict())) for bound in model.measure(TEXTS, **ours)]
    assert here == there
    assert textdiff.measure(copy, TEXTS, **ours) == textdiff.measure(model, TEXTS, **ours)


def test_numbers_do_not_depend_on_the_batch_size(run):
    model = textdiff.load(run)
    one, all_rows = (model.measure(TEXTS, batch_size=size) for size in (1, 64))
    assert len(one) == len(all_rows) > 0
    for a, b in zip(one, all_rows, strict=True):
        assert a.nats == pytest.approx(b.nats, rel=1e-6)
        assert a.standard_error == pytest.approx(b.standard_error, rel=1e-4, abs=1e-12)
        assert (a.tokens, a.text_bytes) == (b.tokens, b.text_bytes)


def test_one_text_is_a_list_of_one(run):
    model = textdiff.load(run)
    assert model.measure(TEXTS[0]) == model.measure(TEXTS[:1])
    assert model.measure(TEXTS[0])[0].text_bytes == len(TEXTS[0])


def test_what_is_refused(run):
    model = textdiff.load(run)
    with pytest.raises(ValueError, match="no document to pack"):
        model.measure([])
    with pytest.raises(ValueError, match="draws must be an even number"):
        model.measure(TEXTS, draws=3)
