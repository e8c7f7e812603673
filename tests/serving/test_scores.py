"""`POST /v1/score` and `/v1/decide`: the numbers are those of `Model.score` and `Model.decide`."""

import pytest

pytest.importorskip("fastapi", reason="needs textdiff[serve]")
from live import NAME, serving

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def live():
    with serving() as server:
        yield server


@pytest.mark.parametrize("schedule", ["QuenchedAR", "Flat(4)"])
def test_scores(live, schedule):
    fields = {"model": NAME, "prompt": "the ", "completions": ["fox", "dog"], "seed": 2}
    status, told, _ = live.ask("/v1/score", fields | {"hyperschedule": schedule, "eos": True})
    assert status == 200
    from textdiff.hyperschedule import Hyperschedule
    from textdiff.spec import parse

    named = parse(schedule, Hyperschedule)
    scores = live.model.score("the ", ["fox", "dog"], seed=2, hyperschedule=named, eos=True)
    for row, score in zip(told["data"], scores, strict=True):
        assert row["nats"] == pytest.approx(score.nats) and row["law"] == score.law
        assert row["exact"] is score.exact is (schedule == "QuenchedAR")
        assert row["bits_per_byte"] == pytest.approx(score.bits_per_byte)


def test_a_decision(live):
    fields = {"model": NAME, "text": "the [GAP] jumps", "options": ["fox", "dog"]}
    status, told, _ = live.ask("/v1/decide", fields | {"hyperschedule": "QuenchedAR"})
    assert status == 200 and sum(told["probabilities"]) == pytest.approx(1)
    assert told["best"] == max(zip(told["probabilities"], told["options"], strict=True))[1]
    prior = {"options": ["ox", "dog"], "lengths": {"2": 0.5, "3": 0.5}, "hyperschedule": "Flat(2)"}
    assert live.ask("/v1/decide", fields | prior)[0] == 200


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/v1/score", {"completions": []}, "at least 1"),
        ("/v1/score", {"completions": [""]}, "no tokens"),
        ("/v1/score", {"completions": ["a"], "draws": 3}, "draws"),
        ("/v1/score", {"completions": ["a"] * 13}, "13 texts are more than the 12 allowed"),
        ("/v1/score", {"completions": ["a" * 100]}, "101 tokens are more than the 64 allowed"),
        ("/v1/score", {"completions": ["a" * 10**4]}, "characters are more than fit"),
        ("/v1/score", {"completions": ["abcd"], "order": "all", "draws": 64}, "more than the 256"),
        ("/v1/score", {"completions": ["a"], "hyperschedule": "Flat(999)"}, "999 is more than"),
        ("/v1/score", {"completions": ["a"], "hyperschedule": "StartSteps(1, (0, 1))"}, ""),
        ("/v1/score", {"completions": [[10**6]]}, "ids"),
        ("/v1/score", {"completions": ["a"], "sed": 1}, "unknown field"),
        ("/v1/decide", {"text": "no gap", "options": ["a", "b"]}, "must have one [GAP]"),
        ("/v1/decide", {"text": "[GAP]", "options": ["a", "a"]}, "different options"),
        ("/v1/decide", {"text": "[GAP]", "options": ["a", "bc"]}, "say how likely each number"),
        (
            "/v1/decide",
            {"text": "[GAP]", "options": ["a", "bc"], "lengths": {"x": 1}},
            "no number of tokens",
        ),
        (
            "/v1/decide",
            {"text": "[GAP]", "options": ["a", "bc"], "lengths": {"1": 1}},
            "says nothing of [2]",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(live, path, fields, message):
    status, told, _ = live.refused(path, **{"hyperschedule": "Flat(4)"} | fields)
    assert status == 400 and message in told
