"""Bounds and samples against languages whose truth is known."""

import json
import math

import pytest
import tiny
import torch

import textdiff
from textdiff.commands.cli import main
from textdiff.data import Addition, Characters, SmallSudoku, Truth
from textdiff.evaluation.audit import audit_bound, audit_samples

GRIDS = list(SmallSudoku().documents("test"))


def truth(language):
    return Truth(language, Characters().build(language))


def test_the_truth_itself_has_no_gap_and_all_the_mass():
    known = truth(SmallSudoku())
    found = audit_bound(lambda ids: -known.log_prob(ids), known, GRIDS)
    assert found.is_bound and found.gap == pytest.approx(0) and found.mass == pytest.approx(1)
    assert found.repeated == found.alone == 0


def test_a_model_that_knows_the_marginals_alone_is_a_bound_by_their_total_correlation():
    known = truth(SmallSudoku())
    found = audit_bound(lambda ids: torch.full((len(ids),), 16 * math.log(4)), known, GRIDS)
    assert found.is_bound
    assert found.gap == pytest.approx(16 * math.log(4) - math.log(288))


@pytest.mark.parametrize("language", [SmallSudoku(), Addition(2)], ids=str)
def test_one_rate_of_masks_without_weights_is_no_bound(language):
    """Reconstruction of half of the tokens from the others, by the best of networks: free where
    the rest says them. Of sums: the second number and the sum, of which a carry says all.
    """
    known = truth(language)
    texts = list(language.documents("test"))
    below = math.log(10) if language.letters == 9 else math.log(4)
    found = audit_bound(lambda ids: torch.full((len(ids),), below), known, texts)
    assert not found.is_bound
    assert str(found) == f"not a bound: {known.entropy - below:.3f} nats below the entropy"


def test_too_much_mass_is_no_bound_though_the_mean_is_high():
    known = truth(SmallSudoku())

    def claimed(ids):
        nats = torch.full((len(ids),), 9.0, dtype=torch.float64)
        return torch.where(ids[:, 0] == ids.min(), 1.0, nats)

    found = audit_bound(claimed, known, GRIDS)
    assert found.gap > 0 and found.mass > 1 and not found.is_bound
    assert "above 1" in str(found)


def test_what_depends_on_the_batch_or_on_chance_is_told():
    known = truth(SmallSudoku())
    generator = torch.Generator().manual_seed(0)
    found = audit_bound(
        lambda ids: 44 + torch.rand(len(ids), generator=generator), known, GRIDS[:20]
    )
    assert found.repeated > 0 and math.isnan(found.mass) and found.standard_error > 0
    crowd = audit_bound(lambda ids: torch.full((len(ids),), 44.0 + len(ids)), known, GRIDS[:20])
    assert crowd.alone == 19
    with pytest.raises(ValueError, match=r"shape \(20, 16\) for 20 texts"):
        audit_bound(lambda ids: ids.double(), known, GRIDS[:20])
    with pytest.raises(ValueError, match="no text to score"):
        audit_bound(lambda ids: ids.double(), known, [])


def test_samples_are_judged_by_share_and_law():
    known = truth(SmallSudoku())
    good = known.encode(GRIDS[:2])
    bad = good[:1].clone()
    bad[0, 0] = bad[0, 1]
    found = audit_samples(torch.cat((good, good, bad)), known)
    assert (found.samples, found.valid, found.distinct) == (5, 0.8, 2)
    assert found.entropy_of_valid == pytest.approx(math.log(2) + 1 / 8)
    assert found.wrong == pytest.approx(float(known.wrong(bad)[0]) / 5)
    none = audit_samples(bad, known)
    assert none.valid == 0 and math.isnan(none.kl)
    with pytest.raises(ValueError, match="no sample to judge"):
        audit_samples(good[:0], known)


def test_the_entropy_of_samples_of_the_language_is_near_its_own():
    known = truth(SmallSudoku())
    rows = torch.randint(288, (3000,), generator=torch.Generator().manual_seed(0))
    found = audit_samples(known.encode(GRIDS)[rows], known)
    assert abs(found.kl) < 0.02  # without the correction 0.05


def test_a_run_is_audited_by_the_command(tmp_path, capsys):
    run = tmp_path / "run"
    main(
        [
            "fit",
            *tiny.configs("trainer/quick", "model/epsilon"),
            "--data.corpus=textdiff.data.Addition",
            "--data.tokenizer=textdiff.data.Characters",
            *tiny.toy(run),
            "--data.length=10",
        ]
    )
    capsys.readouterr()
    words = ["evaluate", "audit", str(run), "--samples=8", "--limit=8", "--draws=2"]
    main([*words, "--language=Addition", "--sampler=ACS(rate=8.0)"])
    shown = capsys.readouterr().out
    assert "nats above the entropy" in shown and "valid" in shown
    (path,) = (run / "results").glob("audit*.json")
    result = json.loads(path.read_text())
    assert result["language"]["class_path"].endswith("Addition")
    assert all(one["nats"] > one["entropy"] for one in result["bounds"].values())
    assert result["samples"]["samples"] == 8
    assert textdiff.load(run).length == 10
    with pytest.raises(SystemExit):
        main([*words, "--language=SmallSudoku"])
    assert "--data.length 17" in capsys.readouterr().err
