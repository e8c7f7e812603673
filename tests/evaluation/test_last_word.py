"""Last-word accuracy: what an argmax by hand gives, for every kind of model, and independent of the
batch.
"""

import json
import shutil

import pytest
import tiny
import torch
from toys import random_transformer

import textdiff
from textdiff.commands.cli import main
from textdiff.evaluation.last_word import Accuracy, _Greedy, cut, last_word
from textdiff.generation.engine import denoise
from textdiff.hyperschedule import Flat
from textdiff.noise import Noise
from textdiff.process import Absorbing

SIX = tiny.ROOT / "experiments/six_models/models"
ENDS = [
    "at the end of the season",
    "a number of the",
    "as well as",
    "the first of the two",
    "In addition to the",
    "the Battle of the Battle of",
]
PASSAGES = [
    f" {text}"
    for text in (
        *ENDS,
        "He was born in New York City in the United States",
        "the two Philippines",
        "a Rhinoceros",
    )
]


def test_an_error_that_is_not_known_is_none():
    assert Accuracy(0, 20, 20).standard_error is Accuracy(20, 20, 20).standard_error is None
    assert Accuracy(5, 20, 20).standard_error == pytest.approx((0.25 * 0.75 / 20) ** 0.5)


def test_a_passage_is_cut_at_its_last_word():
    tokenizer = textdiff.load(tiny.run()).tokenizer
    ids, last = cut(tokenizer, "the quick brown fox ", 100)
    assert tokenizer.decode(ids) == "the quick brown fox" and last == len(" fox")
    ids, last = cut(tokenizer, "the quick brown fox", 7)
    assert tokenizer.decode(ids) == "own fox" and last == 4
    for passage in ("alone", "", "a seven"):
        with pytest.raises(ValueError, match="no last word to predict in rows of 6 tokens"):
            cut(tokenizer, passage, 6)


def test_autoregression_fills_with_the_argmax():
    """Computed again with the network alone: a passage is right if each token of its last word is
    the argmax after the true ones.
    """
    model = textdiff.load(SIX / "ar")
    right = tokens = 0
    for passage in PASSAGES:
        ids, last = cut(model.tokenizer, passage, model.length)
        logits = model.network(torch.tensor([[model.network.bos, *ids[:-1]]]))[0]
        right += bool((logits.argmax(-1)[-last:] == torch.tensor(ids[-last:])).all())
        tokens += last
    assert 0 < right < len(PASSAGES) < tokens
    assert last_word(model, PASSAGES) == Accuracy(right, len(PASSAGES), tokens)


def test_diffusion_fills_the_most_certain_first():
    """Computed again by hand: mask four places, fill the most certain one with its argmax, look
    again.
    """
    torch.manual_seed(0)
    network = random_transformer(7, sees_time=False)
    ids = torch.randint(7, (5, 9))
    given = ids.clone()
    given[:, 3:7] = 7
    expected = given.clone()
    for row in expected:
        for _ in range(4):
            best, token = network(row[None])[0].double().log_softmax(-1).max(-1)
            place = best.masked_fill(row != 7, -torch.inf).argmax()
            row[place] = token[place]
    found = denoise(network, Absorbing(), Flat(6), _Greedy(), Noise(0, torch.arange(5)), given)
    assert torch.equal(found.ids, expected) and torch.as_tensor(found.nfe).max() == 4
    hurried = denoise(network, Absorbing(), Flat(1), _Greedy(), Noise(0, torch.arange(5)), given)
    assert (
        torch.equal(hurried.ids[:, 3:7], network(given).argmax(-1)[:, 3:7])
        and torch.as_tensor(hurried.nfe).max() == 1
    )


@pytest.mark.parametrize("name", ["mdlm", "ar", "epsilon_block", "gamma_slide"])
def test_the_batch_does_not_matter(name):
    model = textdiff.load(SIX / name)
    one, all_ = (last_word(model, PASSAGES, batch_size=size) for size in (1, 64))
    assert one == all_ and 0 < one.correct < one.passages == len(PASSAGES)


def test_nothing_to_complete():
    with pytest.raises(ValueError, match="no passage"):
        last_word(textdiff.load(tiny.run("ar")), [])


def test_log_scores_are_refused():
    with pytest.raises(
        ValueError, match="last-word prediction needs a network that predicts 'cavity'"
    ):
        last_word(textdiff.load(tiny.run("gamma_score")), PASSAGES)


def test_the_command(tmp_path, capsys):
    run = shutil.copytree(
        tiny.run("ar"), tmp_path / "run", ignore=shutil.ignore_patterns("results")
    )
    (tmp_path / "lambada").mkdir()
    lines = "".join(json.dumps({"text": passage}) + "\n" for passage in PASSAGES)
    (tmp_path / "lambada" / "lambada_test.jsonl").write_text(lines)
    main(["evaluate", "lambada", str(run), "--data-dir", str(tmp_path), "--limit", "5"])
    (path,) = (run / "results").iterdir()
    found = json.loads(path.read_text())
    assert path.name == "lambada-first5.json" and found["passages"] == 5
    assert found["accuracy"] == found["correct"] / 5 and found["data"]["detokeniser"] == "lambada"
    assert f"{found['correct']} of 5" in capsys.readouterr().out
    words = ["evaluate", "lambada", str(run), "--data-dir", str(tmp_path), "--limit", "0"]
    assert "--limit must be >= 1" in tiny.refused(capsys, words)


def test_the_seed_is_used(monkeypatch):
    keys = []

    def noise(seed, row):
        keys.append(seed)
        return Noise(seed, row)

    monkeypatch.setattr("textdiff.evaluation.last_word.Noise", noise)
    last_word(textdiff.load(tiny.run()), ["the quick brown"], seed=5)
    assert keys == [5]
