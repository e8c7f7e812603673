"""How documents were put into rows is part of a model's law: every way to keep a model keeps it."""

import json
import shutil

import pytest
import tiny

import textdiff


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


def test_a_model_that_does_not_say_is_opened_as_before_with_a_warning(run, tmp_path):
    old = shutil.copytree(run, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    ours = config if "documents" in config else config["textdiff"]
    assert ours.pop("documents") == "separate" and ours["data"]["documents"] == "separate"
    (old / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="was trained with documents: separate"):
        model = textdiff.load(old)
    assert model.documents == "joined" and model.data["documents"] == "joined"
