"""One network under several schedules: which trains a batch, what is reported, what is drawn."""

import csv

import pytest
import tiny
import torch
import yaml

import textdiff
from textdiff.hyperschedule import Block, Flat, Hyperschedule, Mixture, QuenchedAR
from textdiff.objective import Bound
from textdiff.samplers import Ancestral, SelfSpeculative
from textdiff.spec import build, describe, parse
from textdiff.training.mixing import schedule_of_batch

BOTH = Mixture((QuenchedAR(), Block(4, 4)))


def trained_under(seed, number):
    """The schedule of a batch of three rows."""
    return schedule_of_batch(BOTH, seed, torch.tensor([3 * number + 1]), batch_size=3)


def test_each_member_trains_its_share_by_hash():
    chosen = [trained_under(1, number) for number in range(2000)]
    assert abs(chosen.count(QuenchedAR()) / 2000 - 0.5) < 0.05
    assert chosen != [trained_under(2, number) for number in range(2000)]
    assert Flat(3).members == (Flat(3),) and BOTH.members == BOTH.schedules


def test_it_is_written_and_read():
    assert build(describe(BOTH), Hyperschedule) == BOTH
    assert parse(str(BOTH), Hyperschedule) == BOTH


@pytest.mark.parametrize(
    "schedules", [(), (Flat(3),), (Flat(3), Flat(3)), (Flat(3), BOTH), (Flat(3), "Flat(4)")]
)
def test_what_is_no_mixture_is_refused(schedules):
    with pytest.raises(ValueError, match="a mixture"):
        Mixture(schedules)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A toy that was trained for both."""
    folder = tmp_path_factory.mktemp("mixture")
    described = {"model": {"hyperschedule": describe(BOTH)}}
    (folder / "both.yaml").write_text(yaml.safe_dump(described))
    return tiny.fit(folder / "run", "--config", str(folder / "both.yaml"), model="mdlm")


def test_training_under_both_reports_both(run):
    with next(run.glob("logs/version_*/metrics.csv")).open(newline="") as file:
        names = set(next(csv.reader(file)))
    assert {"val/nelbo", "val/nelbo Block(width=4, levels=4, block_causal=False)"} <= names
    model = textdiff.load(run)
    assert model.hyperschedule == BOTH
    first, second = model.measure("the quick brown fox jumps over the lazy dog")
    assert first.name == "exact -log p, QuenchedAR()" and first.standard_error == 0
    assert second.name == "NELBO, Block(width=4, levels=4, block_causal=False)"
    alone = model.measure("the quick brown fox jumps over the lazy dog", hyperschedule=Block(4, 4))
    assert [bound.nats for bound in alone] == [second.nats]


@pytest.mark.filterwarnings("error:this model was trained under")
def test_members_are_known_and_the_first_is_drawn(run):
    model = textdiff.load(run)
    assert (
        model.generate("the ", seed=1).texts
        == model.generate("the ", seed=1, hyperschedule=QuenchedAR()).texts
    )
    model.generate("the ", seed=1, hyperschedule=Block(4, 4))
    with pytest.raises(UserWarning, match="this model was trained under Mixture"):
        model.generate("the ", seed=1, hyperschedule=Flat(4))


def test_its_drafts_are_quenched_ars_tokens_in_fewer_calls(run):
    model = textdiff.load(run)
    model.network.double()
    asked = {"seed": 2, "hyperschedule": QuenchedAR(), "num_return_sequences": 4}
    drafts = model.generate("the ", sampler=SelfSpeculative(width=4), **asked)
    alone = model.generate("the ", sampler=Ancestral(), **asked)
    assert drafts.texts == alone.texts and alone.tokens_per_forward == 1


def test_batch_after_batch_is_trained_under_the_one_that_the_hash_says(tmp_path, monkeypatch):
    trained = []
    nats = Bound.nats

    def watched(bound, *arguments):
        if bound.name == "loss":
            trained.append(bound.hyperschedule)
        return nats(bound, *arguments)

    monkeypatch.setattr(Bound, "nats", watched)
    (tmp_path / "both.yaml").write_text(
        yaml.safe_dump({"model": {"hyperschedule": describe(BOTH)}})
    )
    tiny.fit(
        tmp_path / "run",
        "--config",
        str(tmp_path / "both.yaml"),
        "--trainer.accumulate_grad_batches=2",
        "--trainer.max_steps=6",
        model="mdlm",
    )
    seed = textdiff.load(tmp_path / "run").data.get("seed", 0)
    assert len(trained) == 12
    assert trained == [trained_under(seed, number) for number in range(len(trained))]
