"""How documents were put into rows is part of a model's law: every way to keep a model keeps it."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny
import torch
from torch.nn.functional import linear

import textdiff
from textdiff.denoiser.visibility import Visibility
from textdiff.model.measuring import measure_rows
from textdiff.objective.batch import Batch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of an autoregressive toy whose documents are kept apart."""
    to = tmp_path_factory.mktemp("separate") / "run"
    return tiny.fit(to, "--data.documents=separate", model="ar")


@pytest.mark.parametrize("kept", ["run", "checkpoint", "saved", "exported"])
def test_documents_are_kept(kept, run, tmp_path):
    if kept == "run":
        source = run
    elif kept == "checkpoint":
        source = run / "checkpoints" / "last.ckpt"
    elif kept == "saved":
        source = textdiff.save(textdiff.load(run), tmp_path / "copy")
    else:
        source = tmp_path / "exported"
        textdiff.export(run, source)
    model = textdiff.load(source)
    assert model.documents == "separate"
    assert model.apart == model.tokenizer.eos_token_id


def _older(run, to, change=lambda config: None):
    """A copy of a run as the versions wrote it that did not say `documents` of a model."""
    old = shutil.copytree(run, to)
    config = json.loads((old / "config.json").read_text())
    for name in ("documents", "bos_at_borders"):
        del config["textdiff"][name]
    change(config)
    (old / "config.json").write_text(json.dumps(config))
    return old


def test_a_model_that_does_not_say_is_opened_as_before_with_a_warning(tmp_path):
    def told(config):
        config["textdiff"]["data"]["documents"] = "separate"

    with pytest.warns(UserWarning, match="was trained with documents: separate"):
        model = textdiff.load(_older(tiny.run(), tmp_path / "old", told))
    assert model.documents == "joined" and model.data["documents"] == "joined"


def test_quenched_ar_kept_its_documents_apart_by_what_had_settled(run, tmp_path, recwarn):
    """Nothing changes, so nothing is said."""
    model = textdiff.load(_older(run, tmp_path / "old"))
    assert model.documents == "separate" and not model.bos_at_borders
    assert not recwarn


def test_quenched_ar_whose_bos_is_no_eos_keeps_a_bos_at_each_border(run, tmp_path):
    eos = textdiff.load(run).tokenizer.eos_token_id
    bos = eos + 1
    model = textdiff.load(_older(run, tmp_path / "old", lambda config: config.update(bos=bos)))
    assert model.documents == "separate" and model.bos_at_borders
    again = textdiff.load(textdiff.save(model, tmp_path / "again"))
    replace(model, length=model.length)  # of the same network, which is not told twice
    assert len(model.network.get_input_embeddings()._forward_pre_hooks) == 1
    first, second = "the cat", "a dog"
    for opened in (model, again):
        ids = [[*model.tokenizer(text).input_ids, eos] for text in (first, second)]
        x = torch.tensor([ids[0] + ids[1]])
        rows = Batch(x, example=torch.tensor([0]), slot=torch.tensor([0]))
        batches = [rows.apart(eos)]
        [bound] = measure_rows(opened, batches.copy)
        expected = 0.0
        begins = 0
        for tokens in ids:  # each begins with BOS, at its place in the row
            rows = torch.tensor([[bos, *tokens[:-1]]])
            places = torch.arange(begins, begins + len(tokens))
            hidden = opened.network.body(
                rows, places, torch.zeros(rows.shape), Visibility(context=len(tokens))
            )
            logits = linear(hidden, *opened.network.head_parameters())
            expected -= logits.log_softmax(-1)[0, range(len(tokens)), tokens].sum().item()
            begins += len(tokens)
        assert bound.nats * bound.tokens == pytest.approx(expected, rel=1e-5)
