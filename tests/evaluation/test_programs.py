"""benchmarks/perplexity.py and mauve.py: one command each on any model, nothing measured twice."""

import argparse
import importlib
import json
import math

import pytest
import tiny
from test_quality import judge_folder  # noqa: F401


@pytest.fixture
def program(monkeypatch):
    """A program of benchmarks/ by name."""
    monkeypatch.syspath_prepend(str(tiny.ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def texts(folder):
    """The four texts of the zero-shot table, a few lines each."""
    rows = "".join(json.dumps({"text": tiny.LINE, "article": tiny.LINE}) + "\n" for _ in range(4))
    for name in ("lambada/lambada_test", "scientific_papers/pubmed.validation.first100"):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rows)
    (folder / "scientific_papers/arxiv.validation.first100.jsonl").write_text(rows)
    path = folder / "wikitext/wikitext-2-raw/wiki.valid.raw"
    path.parent.mkdir(parents=True)
    path.write_text(tiny.LINE * 4)
    return folder


def refused(capsys, main, arguments):
    """The last line of a program that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_the_zero_shot_table(program, tmp_path, capsys, monkeypatch):
    perplexity, data = program("perplexity"), texts(tmp_path / "data")
    runs, output = [tiny.run(), tiny.run("mdlm") / "checkpoints/last.ckpt"], tmp_path / "results"
    words = [*runs, "--data-dir", data, "--limit", 2, "--draws", 2, "--output", output]
    words = [str(word) for word in words]
    perplexity.main(words)
    shown = capsys.readouterr().out
    lines = shown[shown.index("\nperplexity\n") :].splitlines()
    assert len(lines) == 2 + 2 + 3 + 1 + len(perplexity.PUBLISHED) + 1  # three bounds, and one
    assert "ε-Hybrid" in shown and "published" in shown and "mdlm/last.ckpt" in shown
    found = json.loads((output / "perplexity.json").read_text())
    assert list(found["epsilon"]) == list(perplexity.TEXTS)
    assert "by_level" not in found["epsilon"]["arxiv"]["bounds"][0]
    assert len(list(output.glob("*-draws-2-limit-2.json"))) == 8

    def never(words):
        raise AssertionError(f"measured again: {words}")

    monkeypatch.setattr(perplexity, "textdiff", never)
    perplexity.main([*words, "--unit", "bits-per-byte"])
    assert "published" not in capsys.readouterr().out
    with pytest.raises(AssertionError, match="measured again"):
        perplexity.main([*words[:-1], str(tmp_path / "elsewhere")])


def test_a_cell_is_a_bound_with_its_error(program):
    cell = program("perplexity").cell
    bound = {"nats": 2.0, "standard_error": 0.25, "bits_per_byte": 1.5}
    assert cell(bound, "nats") == "2.000 ± 0.250"
    assert cell(bound, "perplexity") == f"{math.exp(2):.1f} ± {0.25 * math.exp(2):.1f}"
    assert cell(bound, "bits-per-byte") == f"1.500 ± {1.5 * 0.125:.3f}"
    assert cell(bound | {"bits_per_byte": None}, "bits-per-byte") == "" == cell(None, "nats")


def test_a_text_that_is_not_there_is_said_before_the_work(program, tmp_path, capsys):
    data = texts(tmp_path / "data")
    (data / "scientific_papers/arxiv.validation.first100.jsonl").unlink()
    words = [tiny.run(), "--data-dir", data, "--output", tmp_path / "results"]
    said = refused(capsys, program("perplexity").main, words)
    assert "put the rows into DATA/scientific_papers/arxiv.validation.first100.jsonl" in said
    assert "TEXTDIFF_DATA=DATA" in said and not (tmp_path / "results").exists()


def test_the_quality_table(program, tmp_path, capsys, judge_folder, monkeypatch):  # noqa: F811
    pytest.importorskip("mauve", reason="needs textdiff[eval]")
    from textdiff.evaluation import quality

    mauve = program("mauve")
    lines = tmp_path / "lines.txt"
    lines.write_text(tiny.LINE * 12)
    sizes = ["--num-samples", 8, "--max-tokens", 6, "--buckets", 2, "--length", 16]
    output = ["--output", tmp_path / "results"]
    words = [tiny.run(), "--judge", judge_folder, "--reference", lines, *sizes, *output]
    words = [*map(str, words), "--hyperschedule", "Flat(2)", "Flat(4)"]
    mauve.main(words)
    shown = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in shown.splitlines()]
    assert rows.count("epsilon") == 2
    for name in ("null: unigram", "null: bigram", "null: training text", "human"):
        assert name in rows
    found = json.loads((tmp_path / "results/mauve.json").read_text())
    assert set(found["null"]["bigram"]) >= set(mauve.SHOWN) <= set(found["rows"][0])
    monkeypatch.setattr(quality, "quality_of", None)  # nothing is measured again
    mauve.main(words)
    assert shown.splitlines()[-2:] == capsys.readouterr().out.splitlines()[-2:]


def test_the_quality_table_says_what_is_wrong(program, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TEXTDIFF_DATA", raising=False)
    main, output = program("mauve").main, ["--output", tmp_path]
    said = refused(capsys, main, [tiny.run(), "--reference", "nothing", *output])
    assert "there is no corpus 'nothing'" in said
    said = refused(capsys, main, [tiny.run(), "--num-samples", 3, "--buckets", 2, *output])
    assert "3 samples are too few for 2 buckets" in said


def test_speed_is_measured_beside_gpt2(monkeypatch):
    monkeypatch.syspath_prepend(str(tiny.ROOT / "benchmarks"))
    training, generation = map(importlib.import_module, ("training", "generation"))
    shape = {"layers": 1, "width": 16, "heads": 2, "length": 32, "vocabulary": 50, "batch": 2}
    machine = {"device": "cpu", "attention": "sdpa", "bf16": False, "compile": False}
    options = argparse.Namespace(**shape, **machine, rounds=1)
    monkeypatch.setattr(training, "CASES", {"AR": training.CASES["AR"]})
    rows = training.speeds(options)
    assert list(rows) == ["GPT-2", "AR"]
    for row in rows.values():
        assert row["tokens_per_second"] > 0 and 0 < row["body"] + row["head"] < 1
    drawn = generation.speed("block 16 × 4", 2, 0, options)
    assert (drawn["nfe"], drawn["head_rows"]) == (8, 64)  # 4 calls a block, each token once
    assert generation.speed("GPT-2", 2, 0, options)["nfe"] == 32
