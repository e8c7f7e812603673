"""Null rows draw from the training text and from nothing else."""

import pytest
import torch
from test_quality import TEXTS, judge, judge_folder  # noqa: F401

from textdiff.data import Corpus
from textdiff.evaluation import null_rows
from textdiff.evaluation.null_rows import bigram, training_ids, unigram

IDS = torch.tensor([0, 1, 0, 2, 0, 1, 3])
COUNT, TOKENS = 400, 50


class Lines(Corpus):
    """The sentences of the other tests."""

    streaming = False
    name = "lines"

    def documents(self, split):
        return iter(TEXTS)

    def provenance(self, split):
        return {"corpus": self.name}


def near(share: float, truth: float, n: int) -> bool:
    """Within five standard errors."""
    return abs(share - truth) < 5 * (truth * (1 - truth) / n) ** 0.5


def test_unigrams_come_by_their_frequency():
    drawn = unigram(IDS, COUNT, TOKENS)
    for token in range(4):
        share = float((drawn == token).double().mean())
        assert near(share, float((IDS == token).double().mean()), drawn.numel())


def test_bigrams_come_by_how_often_they_follow():
    drawn = bigram(IDS, COUNT, TOKENS)
    followers = {0: {1: 2 / 3, 2: 1 / 3}, 1: {0: 1 / 2, 3: 1 / 2}, 2: {0: 1.0}, 3: {0: 1.0}}
    for token, law in followers.items():
        after = drawn[:, 1:][drawn[:, :-1] == token]
        assert set(after.tolist()) == set(law)
        for other, truth in law.items():
            share = float((after == other).double().mean())
            assert share == truth == 1 or near(share, truth, len(after))


@pytest.mark.parametrize("chain", (unigram, bigram))
def test_a_text_depends_on_its_number_and_the_seed_only(chain):
    few, many = chain(IDS, 3, 8), chain(IDS, 5, 8)
    assert torch.equal(many[:3], few)
    assert torch.equal(chain(IDS, 3, 5), few[:, :5])
    assert not torch.equal(chain(IDS, 3, 8, seed=1), few)


def test_null_rows_are_texts_of_the_judge(judge):  # noqa: F811
    rows = null_rows.null_rows(judge, Lines(), "train")
    assert list(rows) == ["unigram", "bigram", "training text"]
    for name, draw in rows.items():
        texts = draw(4, 6)
        lengths = [len(ids) for ids in judge.encode(texts, None)[0]]
        assert lengths == [6] * 4, name
    joined = "\n".join(TEXTS)  # running text; this judge has no EOS
    assert all(text in joined for text in rows["training text"](4, 6))
    assert len(training_ids(judge, Lines(), "train")) == sum(len(text.split()) for text in TEXTS)


def test_a_training_text_without_tokens_is_refused(judge, monkeypatch):  # noqa: F811
    monkeypatch.setattr(Lines, "documents", lambda self, split: iter(["fox"]))
    with pytest.raises(ValueError, match="the train split of lines has 1 tokens"):
        training_ids(judge, Lines(), "train")
