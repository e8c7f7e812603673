"""Log-likelihoods and continuations as a harness asks for them: against the network called by hand,
and through the harness itself.
"""

import json
import sys
from dataclasses import replace

import pytest
import tiny
import torch
import yaml

import textdiff
from textdiff.commands.cli import main
from textdiff.denoiser.generation_rows import generation_call
from textdiff.denoiser.head import logits_of
from textdiff.denoiser.prediction import Prediction
from textdiff.evaluation import harness
from textdiff.evaluation.harness import Question
from textdiff.hyperschedule import Block, Flat, Slide

CONTEXT, CONTINUATION = "the quick br", "own"


def model(name="mdlm", **changed):
    return replace(textdiff.load(tiny.run(name)), **changed)


def answer(of, question, **options):
    return harness.log_likelihoods(of, [question], **options)[0]


def log_p(of, question, masked, position):
    """log p(x^position | the other tokens, `masked` ones hidden) in one call of a flat network that
    does not see t.
    """
    ids = torch.tensor([question.ids])
    z = ids.clone()
    z[0, masked] = of.network.num_tokens
    t = torch.zeros(z.shape, dtype=torch.float64)
    t[0, masked] = 1.0
    call, _ = generation_call(of.network, of.hyperschedule, 0, z, t)
    return (
        logits_of(of.network, call.hidden(of.network)[0])
        .log_softmax(-1)[position, ids[0, position]]
        .item()
    )


def test_tokens_of_context_and_continuation():
    of = model()
    question = harness.encode(of, CONTEXT, CONTINUATION)
    assert (
        of.decode(torch.tensor(question.context)) == CONTEXT
        and of.decode(torch.tensor(question.continuation)) == CONTINUATION
    )
    blank = harness.encode(of, "the ", "fox")
    assert of.decode(torch.tensor(blank.continuation)) == " fox"
    assert harness.encode(of, "", "fox").context == ()
    long = harness.encode(of, "the quick brown fox jumps", " over")
    assert (
        len(long.ids) == of.length == 16 and of.decode(torch.tensor(long.ids)) == "n fox jumps over"
    )
    for text in ("", "the quick brown fox"):
        with pytest.raises(ValueError, match=r"has \d+ tokens: 1..16 can be scored"):
            harness.encode(of, "the ", text) if text else harness.encode(of, "the", "")


def test_autoregression_is_exact():
    of = model("ar")
    question = harness.encode(of, CONTEXT, CONTINUATION)
    ids = torch.tensor([question.ids])
    logits = of.network(
        torch.cat([torch.tensor([[of.tokenizer.bos_token_id]]), ids[:, :-1]], 1)
    ).log_softmax(-1)
    steps = logits[0].gather(-1, ids[0, :, None]).squeeze(-1)
    found = answer(of, question)
    assert found.nats == pytest.approx(steps[len(question.context) :].sum().item(), rel=1e-5)
    assert (found.standard_error, found.tokens) == (0.0, 3) and harness.described(
        of, 16
    ) == "exact log p (chain rule)"
    assert answer(of, Question((), question.ids)).nats == pytest.approx(
        steps.sum().item(), rel=1e-5
    )


def test_one_masked_token_is_exact():
    of = model()
    question = harness.encode(of, CONTEXT, "o")
    found = answer(of, question, draws=2)
    assert (
        found.nats == pytest.approx(log_p(of, question, [12], 12), rel=1e-5)
        and found.standard_error == 0
    )


def test_two_masked_tokens_are_the_mean_over_orders():
    """Of masking in the limit of many steps, the bound is the mean over orders of the chain rule
    along each.
    """
    of = model()
    question = harness.encode(of, CONTEXT, "ow")
    orders = [
        log_p(of, question, [12, 13], a) + log_p(of, question, [b], b)
        for a, b in ((12, 13), (13, 12))
    ]
    found = torch.tensor(
        [answer(of, question, draws=8, seed=seed).nats for seed in range(60)]
    ).double()
    assert abs(found.mean().item() - sum(orders) / 2) < 4 * found.std().item() / 60**0.5 + 1e-5
    assert "of many steps with clamped context: -NELBO, mean of 8 draws" in harness.described(of, 8)


@pytest.mark.parametrize("name", ["mdlm", "epsilon"])
def test_in_one_step_a_bound_is_the_law_of_generate(name):
    """T = 1, a context that ends inside a block: tokens of a block are independent given what
    stands before them.
    """
    of = model(name, hyperschedule=Block(4, 1))
    question = harness.encode(of, "the qu", "ick")  # blocks: "the ", "qu|ic", "k"
    expected, ids = 0.0, torch.tensor([question.ids])
    for k, drawn in ((1, [6, 7]), (2, [8])):
        z, t = ids.clone(), torch.zeros(ids.shape, dtype=torch.float64)
        z[0, drawn], t[0, drawn] = of.network.num_tokens, 1.0
        call, active = generation_call(of.network, of.hyperschedule, k, z, t)
        logits = logits_of(of.network, call.hidden(of.network)[0]).log_softmax(-1)
        expected += sum(logits[active.tolist().index(i), ids[0, i]].item() for i in drawn)
    found = answer(of, question, draws=2)
    assert found.nats == pytest.approx(expected, rel=1e-3)
    assert "of 1 steps" in harness.described(of, 2)


@pytest.mark.parametrize("name", ["epsilon", "gamma", "gidd"])
def test_answers_do_not_depend_on_the_other_questions(name):
    of = model(name)
    questions = [harness.encode(of, context, "fox") for context in ("the ", "brown ", "a br", "")]
    together = harness.log_likelihoods(of, questions, draws=4, batch_size=3)
    for question, found in zip(questions, together, strict=True):
        assert found.nats < 0
        assert answer(of, question, draws=4).nats == pytest.approx(found.nats, rel=1e-5)
    assert any(found.standard_error > 0 for found in together)
    assert harness.log_likelihoods(of, questions[::-1], draws=4)[-1].nats == pytest.approx(
        together[0].nats, rel=1e-5
    )


@pytest.mark.parametrize("name", ["epsilon", "gamma"])
def test_the_standard_error_is_right(name):
    of = model(name)
    question = harness.encode(of, CONTEXT, CONTINUATION)
    found = [answer(of, question, draws=8, seed=seed) for seed in range(80)]
    nats = torch.tensor([one.nats for one in found]).double()
    stated = torch.tensor([one.standard_error**2 for one in found]).double().mean().item()
    assert 0.5 < nats.var().item() / stated < 2


def test_a_long_text_in_windows():
    of = model("ar")
    pieces = harness.windows(of, tiny.LINE)
    assert [len(piece.ids) for piece in pieces] == [16] * (len(tiny.LINE) // 16) + [
        len(tiny.LINE) % 16
    ]
    answers = harness.log_likelihoods(of, pieces)
    whole = harness.total(answers)
    assert whole.tokens == len(tiny.LINE) and whole.nats == pytest.approx(
        sum(one.nats for one in answers)
    )
    assert harness.windows(of, "") == [] and harness.total([]).nats == 0


@pytest.mark.parametrize("name", ["ar", "mdlm"])
def test_greedy_is_what_generate_gives_when_cold(name):
    of = model(name)
    text = of.generate(CONTEXT + "[MASK][MASK]", temperature=harness.GREEDY).texts[0]
    assert harness.greedy(of, harness.encode(of, CONTEXT, text.removeprefix(CONTEXT)))
    assert not harness.greedy(of, harness.encode(of, CONTEXT, "zz"))


def test_continuations():
    of = model("ar")
    (text,) = harness.continuations(
        of, ["the quick brown fox jumps over the "], 6, [], harness.GREEDY
    )
    assert len(text) == 6
    stopped = harness.continuations(
        of, ["the quick brown fox jumps over the "], 6, [text[2], text[4:]], harness.GREEDY
    )
    assert stopped == [text[: text.find(text[2])]]


def test_draws_are_checked():
    for draws in (0, 1, 3):
        with pytest.raises(ValueError, match="draws must be even and >= 2"):
            answer(model(), harness.encode(model(), "a", "b"), draws=draws)


# --- the harness itself


def test_without_the_harness(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    words = ["evaluate", "harness", str(tiny.run("ar")), "--tasks", "lambada"]
    assert "lm-evaluation-harness is not installed" in tiny.refused(capsys, words)


def tasks(folder):
    """Three tasks on the same two lines, one for each kind of request."""
    (folder / "lines.jsonl").write_text(
        "".join(json.dumps({"text": f"{line} fox"}) + "\n" for line in ("the quick brown", "a box"))
    )
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "lines.jsonl")}},
        "test_split": "test",
    }
    texts = {"doc_to_text": "{{text[:-4]}}", "doc_to_target": "{{text[-4:]}}"}
    metric = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    exact = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    made = {
        "toy_likelihood": {"output_type": "loglikelihood", **texts, "metric_list": metric},
        "toy_rolling": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        },
        "toy_generation": {
            "output_type": "generate_until",
            **texts,
            "metric_list": exact,
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
        },
    }
    for name, task in made.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **common, **task}))
    return ",".join(made)


@pytest.mark.parametrize("name", ["ar", "epsilon"])
def test_tasks_from_local_files(tmp_path, capsys, name):
    pytest.importorskip("lm_eval", reason="needs textdiff[harness]")
    output = tmp_path / "out.json"
    words = [
        "--tasks",
        tasks(tmp_path),
        "--include",
        str(tmp_path),
        "--draws",
        "4",
        "--output",
        str(output),
    ]
    main(["evaluate", "harness", str(tiny.run(name)), *words])
    found = json.loads(output.read_text())
    of, lines = model(name), [f"{line} fox" for line in ("the quick brown", "a box")]
    pieces = [harness.log_likelihoods(of, harness.windows(of, line), draws=4) for line in lines]
    bits = (
        -sum(harness.total(piece).nats for piece in pieces)
        / sum(map(len, lines))
        / torch.tensor(2.0).log().item()
    )
    assert found["harness"]["toy_rolling"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-5)
    assert (
        0 <= found["harness"]["toy_likelihood"]["acc,none"] <= 1
        and "exact_match,none" in found["harness"]["toy_generation"]
    )
    assert found["likelihood"] == harness.described(of, 4) and found["requests"] == 4
    assert (found["standard_error_of_a_request"] == 0) == (name == "ar")
    assert found["likelihood"] in capsys.readouterr().out
    assert "the harness has no task nope" in tiny.refused(
        capsys, ["evaluate", "harness", str(tiny.run(name)), "--tasks", "nope"]
    )


@pytest.mark.parametrize("schedule", [Flat(8), Block(4, 4), Slide(8, 2)], ids=str)
def test_log_scores_have_the_bound_of_many_steps_under_every_schedule(schedule):
    """Their steps of finite length have none: harness and `score` say so, and agree."""
    of = model("gamma_score", hyperschedule=schedule)
    assert of.prediction == Prediction.LOG_SCORE
    question = harness.encode(of, CONTEXT, CONTINUATION)
    assert "of the chain of many steps" in harness.described(of, 16)
    found = [answer(of, question, draws=16, seed=seed).nats for seed in range(24)]
    scores = [
        of.score([list(question.context)], [list(question.continuation)], draws=16, seed=seed)[0]
        for seed in range(24)
    ]
    assert all("a bound of the chain of many steps" in score.law for score in scores)
    one, other = torch.tensor(found), torch.tensor([score.nats for score in scores])
    error = ((one.var() + other.var()) / 24).sqrt()
    assert error.isfinite() and abs(one.mean() + other.mean()) < 4 * error
