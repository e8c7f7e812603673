"""Quality of samples: the measures against their definitions, judges against networks called by
hand, MAUVE, and the command.
"""

import copy
import json
import math
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch

import textdiff
from textdiff.commands.cli import main
from textdiff.data import TinyShakespeare
from textdiff.evaluation import mauve_score, quality, texts
from textdiff.evaluation.judge import Judge, Scores, open_judge
from textdiff.evaluation.tables import Table, plus_minus
from textdiff.files import slug
from textdiff.generation.config import GenerationConfig
from textdiff.hyperschedule import Flat
from textdiff.model.text import running

WORDS = (
    "the quick brown fox jumps over the lazy dog and packs a box with five dozen liquor jugs "
    "tonight"
).split()
TEXTS = [
    " ".join(WORDS[(7 * i + 3 * j * (i + 1)) % len(WORDS)] for j in range(6 + i % 3))
    for i in range(24)
]


def _tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<s>", "[UNK]", *sorted(set(WORDS))])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="[UNK]")


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory):
    """A random Llama of one layer with a tokenizer of words."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("judge"), _tokenizer()
    torch.manual_seed(0)
    size = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
    }
    network = LlamaForCausalLM(
        LlamaConfig(
            **size, num_attention_heads=2, max_position_embeddings=16, initializer_range=0.5
        )
    )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A random BERT of one layer."""
    from transformers import BertConfig, BertModel

    folder, tokenizer = tmp_path_factory.mktemp("encoder"), _tokenizer()
    torch.manual_seed(0)
    size = {
        "vocab_size": len(tokenizer),
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
    }
    BertModel(
        BertConfig(**size, num_attention_heads=2, max_position_embeddings=16)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def judge(judge_folder) -> Judge:
    return open_judge(str(judge_folder))


# --- judges


@pytest.mark.parametrize("bos", [False, True])
def test_scores_are_the_networks_cross_entropy(judge, bos):
    found = judge.score(TEXTS, bos=bos, batch_size=5)
    for number, text in enumerate(TEXTS):
        ids = torch.tensor(
            [[*([0] if bos else []), *judge.tokenizer.encode(text, add_special_tokens=False)]]
        )
        expected = torch.nn.functional.cross_entropy(
            judge.network(ids).logits[0, :-1], ids[0, 1:], reduction="sum"
        )
        assert found.nats[number].item() == pytest.approx(expected.item(), rel=1e-5)
        assert found.scored[number] == ids.shape[1] - 1


def test_truncation_and_texts_that_cannot_be_scored(judge):
    found = judge.score(["the fox", "fox", "", TEXTS[0]], max_tokens=4)
    assert (
        found.scored.tolist() == [1, 0, 0, 3]
        and found.truncated == 1
        and found.nats[1:3].tolist() == [0, 0]
    )
    assert judge.score(["fox", ""], bos=True).scored.tolist() == [1, 0]
    with pytest.raises(ValueError, match="reads up to 16 tokens, not 17"):
        judge.score(TEXTS, max_tokens=17)
    with pytest.raises(ValueError, match="reads up to 16 tokens, not 20"):
        judge.score(["fox " * 20])


def test_the_context_holds_the_judges_own_marks_too(judge, encoder_folder, monkeypatch):
    long = ["fox " * 40] * 2
    assert judge.score(long, 16).scored.tolist() == [15, 15]
    assert judge.score(long, 15, bos=True).scored.tolist() == [15, 15]
    with pytest.raises(ValueError, match="up to 15 tokens beside 1 of its own, not 16"):
        judge.score(long, 16, bos=True)
    encoder = open_judge(str(encoder_folder))
    monkeypatch.setattr(encoder.tokenizer, "num_special_tokens_to_add", lambda: 2)
    assert encoder.features(long, 14).shape == (2, 8)
    with pytest.raises(ValueError, match="up to 14 tokens beside 2 of its own, not 15"):
        encoder.features(long, 15)
    encoder.network.embeddings.position_embeddings.padding_idx = 1  # as RoBERTa counts
    with pytest.raises(ValueError, match="up to 12 tokens beside 2 of its own, not 13"):
        encoder.features(long, 13)


def test_features(judge, encoder_folder):
    found = judge.features(TEXTS, 5, batch_size=7)
    ids = torch.tensor([judge.tokenizer.encode(TEXTS[3], add_special_tokens=False)[:5]])
    last = judge.network(ids, output_hidden_states=True).hidden_states[-1][0, -1]
    torch.testing.assert_close(found[3], last, rtol=1e-4, atol=1e-5)
    encoder = open_judge(str(encoder_folder))
    mean = encoder.network(ids).last_hidden_state[0].mean(0)
    torch.testing.assert_close(
        encoder.features(TEXTS, 5, batch_size=7)[3], mean, rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="is an encoder and gives no likelihood"):
        encoder.score(TEXTS)
    with pytest.raises(ValueError, match="1 of 2 texts are empty"):
        judge.features(["fox", ""], 5)


def test_a_judge_that_is_not_there(tmp_path):
    for name in ("nobody/nothing", str(tmp_path), f"{tmp_path}:no.gguf"):
        with pytest.raises(ValueError, match=r"judge .* cannot be opened"):
            open_judge(name)
    with pytest.raises(ValueError, match="unknown precision 'int8'"):
        open_judge(str(tmp_path), dtype="int8")


def test_a_trained_judge(shared_file):
    """The tiny Llama of children's stories: it has learnt its own kind of text, and word order."""
    judge = open_judge(str(shared_file("models", "stories260K")))
    story = (
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
        "park."
    )
    mixed = " ".join(sorted(story.split()))
    found = judge.score([story, mixed], bos=True)
    assert found.nats[0] / found.scored[0] < 1.5 < 4 < found.nats[1] / found.scored[1]


# --- measures


def scores(nats, tokens):
    return Scores(
        torch.tensor(nats, dtype=torch.float64), torch.tensor(tokens), [[0]] * len(nats), 0
    )


def test_both_definitions_of_perplexity():
    each, corpus = quality.perplexities(scores([2.0, 9.0, 0.0], [2, 3, 0]))
    assert each.value == pytest.approx(
        (math.exp(1) + math.exp(3)) / 2
    ) and corpus.value == pytest.approx(math.exp(11 / 5))
    for found, tokens in (([2.0, 0.0], [2, 0]), ([0.0], [0])):
        with pytest.raises(ValueError, match="can be scored"):
            quality.perplexities(scores(found, tokens))


def test_the_bootstrap_error_of_a_mean_is_the_known_one():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64).exp()
    value, error = quality._mean(values)
    assert value == pytest.approx(values.mean().item())
    assert error == pytest.approx(values.std().item() / 20, rel=0.1)


def test_entropy_and_ngrams_by_hand():
    assert quality.token_entropy([1, 1, 2, 3]) == pytest.approx(1.5 * math.log(2))
    assert quality.token_entropy([]) == 0 == quality.token_entropy([4, 4])
    texts_ = [[1, 2, 1, 2], [1, 2, 3]]
    assert quality.distinct(texts_, 2).value == pytest.approx(3 / 5)  # 12 21 23 of 12 21 12 | 12 23
    assert quality.repetition(texts_, 2).value == pytest.approx((1 / 3 + 0) / 2)
    left = [2 / 2, 2 / 3]  # without the first text, without the second
    expected = math.sqrt(1 / 2 * sum((one - sum(left) / 2) ** 2 for one in left))
    assert quality.distinct(texts_, 2).standard_error == pytest.approx(expected)
    with pytest.raises(ValueError, match="1 text is too few for an error bar"):
        quality.diversity([[1, 2]])


def test_too_short_texts_are_named(judge):
    with pytest.warns(UserWarning, match="1 of 25 texts are too short to be scored"):
        found = quality.quality_of(judge, [*TEXTS, "fox"], None)
    assert found["unscored"] == 1 and found["texts"] == 25


# --- MAUVE


def clouds(n, shift):
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(n, 4, generator=generator), torch.randn(n, 4, generator=generator)
    return p, q + shift


def test_mauve_tells_near_from_far():
    pytest.importorskip("mauve", reason="needs textdiff[eval]")
    near, far = (
        mauve_score.mauve(*clouds(60, 0.0), buckets=4),
        mauve_score.mauve(*clouds(60, 5.0), buckets=4),
    )
    assert 0.8 < near.mauve <= 1 and far.mauve < 0.1 and near.sd > 0
    assert 0.8 < near.star <= 1 and far.star < 0.5


def test_mauve_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(
        ValueError, match=r"MAUVE needs mauve-text .*: pip install 'textdiff\[eval\]'"
    ):
        mauve_score.mauve(*clouds(8, 0.0), buckets=2)


def test_too_few_samples_are_refused_or_named():
    with pytest.raises(ValueError, match="7 samples are too few for 4 buckets"):
        mauve_score.checked_buckets(7, 4, 5)
    with pytest.raises(ValueError, match="4 k-means seeds are too few"):
        mauve_score.checked_buckets(100, 4, 4)
    with pytest.warns(UserWarning, match="take 1000 samples or more"):
        assert mauve_score.checked_buckets(100, None, 5) == 10


def test_samples_that_are_shorter_than_the_human_texts(judge):
    pytest.importorskip("mauve", reason="needs textdiff[eval]")
    with pytest.warns(
        UserWarning, match=r"8 of 24 samples have fewer than the 7 tokens .* at most 6"
    ):
        found = mauve_score.against_humans(judge, TEXTS, TEXTS * 2, 7, buckets=2)
    assert (
        found["shorter_samples"] == 8
        and found["mauve"] == pytest.approx(1)
        and found["human"]["mauve"] == pytest.approx(1)
    )
    with pytest.raises(ValueError, match="24 samples need 48 human texts"):
        mauve_score.against_humans(judge, TEXTS, TEXTS, 6)


def test_features_are_computed_once(judge, tmp_path, monkeypatch):
    first = mauve_score.features(judge, TEXTS, 5, tmp_path)
    monkeypatch.setattr(Judge, "features", None)
    assert torch.equal(mauve_score.features(judge, TEXTS, 5, tmp_path), first)
    for other in ((TEXTS[1:], 5), (TEXTS, 4)):
        with pytest.raises(TypeError):
            mauve_score.features(judge, *other, tmp_path)


# --- texts


def test_human_texts_are_verbatim_and_of_one_length(judge):
    found = texts.human(judge, TinyShakespeare(), "validation", 40, 7)
    whole = next(TinyShakespeare().documents("validation"))
    assert len(set(found)) > 30 and all(text in whole for text in found)
    assert {len(ids) for ids in judge.encode(found, None)[0]} == {7}
    with pytest.raises(ValueError, match=r"has \d+ texts of 7 tokens, but 1000000 are needed"):
        texts.human(judge, TinyShakespeare(), "validation", 1000000, 7)


def ending(judge, eos):
    """The judge with this EOS."""
    tokenizer = copy.deepcopy(judge.tokenizer)
    tokenizer.eos_token = eos
    return replace(judge, tokenizer=tokenizer)


@pytest.mark.parametrize("eos", [None, "[UNK]"])
def test_human_texts_go_on_over_the_ends_of_documents(judge, eos):
    """Lines of five words in pieces of 13 tokens: as many as the whole has room for."""
    lines = [" ".join(WORDS[i : i + 5]) for i in range(10)]
    judge = ending(judge, eos)
    corpus = SimpleNamespace(name="lines", documents=lambda split: iter(lines))
    whole = (eos or "\n").join([*lines, ""])
    total = 5 * len(lines) + len(lines) * (eos is not None)
    found = texts.human(judge, corpus, "validation", total // 13, 13)
    assert all(text in whole for text in found) and len(set(found)) == total // 13
    assert {len(ids) for ids in judge.encode(found, None)[0]} == {13}
    with pytest.raises(ValueError, match=f"has {total // 13} texts of 13 tokens"):
        texts.human(judge, corpus, "validation", total // 13 + 1, 13)


def test_samples_keep_their_ends_and_judges_read_their_own(judge):
    tokenizer = textdiff.load(tiny.run()).tokenizer
    eos, mark = tokenizer.eos_token_id, tokenizer.eos_token
    a, b = (tokenizer.encode(text, add_special_tokens=False) for text in ("the", "king"))
    assert running(tokenizer, [], [*a, eos, *b, eos]) == f"the{mark}king{mark}"
    assert running(tokenizer, a, [eos, eos, *b]) == f"{mark}{mark}king"
    assert running(tokenizer, [*a, eos], b) == "king"
    kept = [f"the{mark}king{mark}", "the"]
    judge = ending(judge, "</s>")
    assert texts.read_by(judge, kept, mark) == ["the</s>king</s>", "the"]
    assert texts.read_by(judge, kept, None) == kept


def test_every_eos_that_is_drawn_is_in_the_samples():
    model = textdiff.load(tiny.run("mdlm"))
    eos = model.tokenizer.eos_token_id
    options = {"hyperschedule": Flat(2), "sampler": None, "temperature": 50.0}
    drawn = texts.draw(model, tiny.run("mdlm"), 32, None, **options)
    ids = model.generate(
        None, GenerationConfig(), num_return_sequences=32, temperature=50.0, hyperschedule=Flat(2)
    ).ids
    ends = sum(int((row == eos).sum()) for row in ids)
    assert ends > 3
    assert sum(text.count(drawn["eos"]) for text in drawn["samples"]) == ends


def test_files_of_texts(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\\u2028more"}\n\n"two"\n', encoding="utf-8")
    assert texts.read_texts(path) == ["one\u2028more", "two"]
    for content in ('["one", {"text": "two"}]', '{"samples": ["one", "two"], "settings": {}}'):
        (tmp_path / "a.json").write_text(content)
        assert texts.read_texts(tmp_path / "a.json") == ["one", "two"]
    for content, message in (
        ("[]", "holds no list"),
        ("[1]", "holds no list"),
        ("{", "cannot be read"),
        ("3", "holds no list"),
    ):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            texts.read_texts(tmp_path / "a.json")


def test_tables():
    table = Table(["a", "b"], [["x|y", plus_minus(1.5, 0.25, 2)], ["<", plus_minus(2, None, 0)]])
    assert table.text().splitlines()[2] == "x|y  1.50 ± 0.25"
    assert table.markdown().splitlines()[1:3] == ["| --- | ---: |", "| x\\|y | 1.50 ± 0.25 |"]
    assert "<td>&lt;</td><td>2</td>" in table.html()


# --- the command


def evaluate(tmp_path, *words):
    main(["evaluate", "samples", *map(str, words), "--output", str(tmp_path / "out.json")])
    return json.loads((tmp_path / "out.json").read_text())


def test_a_file_of_samples(tmp_path, judge_folder, capsys):
    pytest.importorskip("mauve", reason="needs textdiff[eval]")
    path = tmp_path / "samples.json"
    path.write_text(json.dumps({"samples": TEXTS, "settings": {"sampler": "mine"}}))
    words = (
        path,
        "--judge",
        judge_folder,
        "--reference",
        "TinyShakespeare",
        "--max-tokens",
        6,
        "--buckets",
        2,
    )
    found = evaluate(tmp_path, *words, "--cache", tmp_path / "features")
    assert (
        found["settings"] == {"sampler": "mine"}
        and len(list((tmp_path / "features").iterdir())) == 2
    )
    assert (
        found["quality"]["max_tokens"] == found["mauve"]["text_length"] == 6
        and found["mauve"]["samples"] == 24
    )
    assert (
        found["mauve"]["kmeans_seeds"] == [0, 1, 2, 3, 4]
        and found["reference"]["split"] == "validation"
    )
    assert (
        0 < found["mauve"]["mauve"] < found["mauve"]["human"]["mauve"] <= 1
    )  # no line of the fox is in the plays
    entropy = next(one for one in found["quality"]["measures"] if one["name"] == "token entropy")
    printed = capsys.readouterr().out
    assert (
        plus_minus(entropy["value"], entropy["standard_error"]) in printed
        and "no BOS, the first token is context only" in printed
    )


def test_a_model_folder(tmp_path, judge_folder):
    words = (
        tiny.run(),
        "--judge",
        judge_folder,
        "--num-samples",
        4,
        "--hyperschedule",
        "Flat(4)",
        "--max-tokens",
        15,
        "--bos",
    )
    found = evaluate(tmp_path, *words)
    assert (
        len(found["samples"]) == found["quality"]["texts"] == 4
        and found["settings"]["hyperschedule"] == "Flat(levels=4)"
    )
    assert (
        found["quality"]["bos"].startswith("BOS in front")
        and found["settings"]["nfe"] <= 4
        and "mauve" not in found
    )


def test_a_checkpoint_and_names_of_results(tmp_path, judge_folder):
    """What stands for a model elsewhere does here, too; each way of measuring has its own file."""
    run = shutil.copytree(tiny.run(), tmp_path / "run")
    words = ["evaluate", "samples", f"{run}/checkpoints/last.ckpt", "--judge", str(judge_folder)]
    words += ["--num-samples", "2", "--max-tokens", "16"]
    for schedule in ("Flat(2)", "Flat(4)"):
        main([*words, "--hyperschedule", schedule])
    names = {path.name for path in (run / "results" / "last").iterdir()}
    judge = slug(str(judge_folder))
    ways = [f"num_samples2-Flat_{levels}_-{judge}-max_tokens16" for levels in (2, 4)]
    assert names == {f"quality-{way}.json" for way in ways}
    (tmp_path / "a.jsonl").write_text('"one two three"\n"four five six"\n')
    main(["evaluate", "samples", str(tmp_path / "a.jsonl"), "--judge", str(judge_folder)])
    assert (tmp_path / f"quality-a-{judge}.json").is_file()


def test_what_is_neither_a_file_nor_a_model_is_refused(tmp_path, judge_folder, capsys):
    words = ["evaluate", "samples", "nowhere", "--judge", str(judge_folder)]
    assert "there is no model folder 'nowhere'" in tiny.refused(capsys, words)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--num-samples", "3"], "--num-samples would draw samples from a model folder"),
        (["--reference", "TinyShakespeare"], "MAUVE sees length: give --max-tokens, at most 6"),
        (
            ["--reference", "TinyShakespeare", "--max-tokens", "6", "--kmeans-seeds", "1"],
            "1 k-means seeds are too few",
        ),
        (["--reference", "nope"], "give --max-tokens"),
        (["--reference", "nope", "--max-tokens", "6"], "there is no corpus 'nope'"),
        (["--buckets", "2"], "are for MAUVE"),
        (["--max-tokens", "0"], "--max-tokens must be >= 1"),
        (["--judge-batch-size", "0"], "--judge-batch-size must be >= 1"),
        (["--judge", "nobody/nothing"], "cannot be opened"),
    ],
)
def test_errors_of_the_command(tmp_path, judge_folder, capsys, words, message):
    path = tmp_path / "samples.json"
    path.write_text(json.dumps(TEXTS))
    assert message in tiny.refused(
        capsys, ["evaluate", "samples", str(path), "--judge", str(judge_folder), *words]
    )
    assert list(tmp_path.iterdir()) == [path]
