"""Corpora by name: detokenisers on real sentences, counts of the real texts, a local folder instead
of the network.
"""

import gzip
import json
import lzma

import numpy as np
import pytest
import tiny

from textdiff.commands.cli import main
from textdiff.data import Benchmark, PretrainedTokenizer, TextData, detokenisers, pack, tokenise
from textdiff.data.benchmarks import BENCHMARKS


@pytest.mark.parametrize(
    "rule, text, expected",
    [
        (
            "wikitext",
            ' He had a guest @-@ starring role as " Craig " in 2 @,@ 000 shows ( 3 @.@ 5 of them ; '
            "all [ sic ] ) . Was it 20 ° C ? \n",
            ' He had a guest-starring role as "Craig" in 2,000 shows (3.5 of them; all [sic]). '
            "Was it 20°C?\n",
        ),
        ("wikitext", " = = Early life = = \n", " == Early life ==\n"),
        ("wikitext", " the actors ' guild \n", " the actors' guild\n"),
        # The suite takes two apostrophes for a pair of quotes; numbers depend on it, so it stays.
        (
            "wikitext",
            " the actors ' guild and Teddy 's Story \n",
            " the actors'guild and Teddy's Story\n",
        ),
        ("wikitext", " Homarus gammarus , known as \n", " Homarus gammarus, known as\n"),
        (
            "scientific_papers",
            "parkinson 's disease ( pd ) more so than overall status , motor deficits [ 13 ] "
            ".\nalthough pd , yet ,",
            "parkinson's disease (pd) more so than overall status, motor deficits [13] "
            ".\nalthough pd, yet ,",
        ),
        (
            "ptb",
            "mr. <unk> 's N N million does n't cut the workers ' pay of $ N",
            "mr. ?'s 1 1 million doesn't cut the workers' pay of $ N",
        ),
        (
            "ptb",
            "about $ N a share or # N on N N N stocks",
            "about $1 a share or #1 on 1 1 1 stocks",
        ),
        (
            "lm1b",
            'He said , " It is the owners \' $ 5 , is it ? "',
            'He said, "It is the owners \' $5, is it?"',
        ),
        (
            "lm1b",
            "See http : / / a.com ( or b ) : yes ; no / maybe .",
            "See http://a.com (or b): yes; no/maybe.",
        ),
        ("lm1b", "They 're here ! Who ?", "They're here! Who?"),
        ("lambada", " “Stop,” he said to Shane \n", '\n"Stop," he said to Shane'),
        ("plain", " as it is . ", " as it is . "),
    ],
)
def test_detokenisers(rule, text, expected):
    assert getattr(detokenisers, rule)(text) == expected


def test_every_source_is_whole():
    assert set(BENCHMARKS) >= {
        "wikitext2",
        "wikitext103",
        "lambada",
        "pubmed",
        "arxiv",
        "ptb",
        "lm1b",
        "ag_news",
        "openwebtext",
    }
    for name, source in BENCHMARKS.items():
        assert source.scored in source.splits and set(source.local) <= set(source.splits), name
        assert (
            source.hub.revision
            and source.license
            and source.hub.column in ("text", "article", "sentence")
        ), name
        pinned = len(source.hub.revision) == 40
        assert pinned or (source.hub.revision == "refs/convert/parquet" and source.hub.files), name


@pytest.fixture
def real(shared_data):
    return lambda which, **options: Benchmark(which, str(shared_data), **options)


def test_rows_are_those_of_the_hub(real):
    rows = list(real("wikitext2", detokenise=False).documents("test"))
    assert len(rows) == 4358 and rows[:3] == ["", " = Robert Boulter = \n", ""]
    assert len(list(real("wikitext103").documents("validation"))) == 3760
    assert list(real("wikitext103").documents("test")) == list(real("wikitext2").documents("test"))
    passages = list(real("lambada").documents("test"))
    assert len(passages) == 5153
    assert passages[0].startswith("\nIn my palm is a clear stone") and passages[0].endswith(
        "I don't care about signs"
    )
    assert (
        len(list(real("arxiv").documents("validation")))
        == len(list(real("pubmed").documents("test")))
        == 100
    )


# GPT-2 tokens as they are, which ../shared/data/README.md counts too (None: not the same rows), and
# detokenised
COUNTS = {
    ("wikitext2", "test"): (None, 274_796),
    ("lambada", "test"): (430_230, 428_743),
    ("pubmed", "test"): (410_863, 406_406),
    ("arxiv", "test"): (728_381, 720_634),
}


@pytest.mark.parametrize("which, split", COUNTS)
def test_tokens_and_blocks(real, shared_data, which, split):
    tokenizer = PretrainedTokenizer(str(shared_data / "tokenizers/gpt2")).build(real(which))
    raw, detokenised = COUNTS[which, split]
    if raw is not None:
        rows = list(tokenise(tokenizer, real(which, detokenise=False).documents(split)))
        assert sum(len(row) - 1 for row in rows) == raw
    rows = list(tokenise(tokenizer, real(which).documents(split)))
    assert sum(len(row) for row in rows) == detokenised
    packed = pack(rows, 1024, tokenizer.eos_token_id, "joined", "ignored")
    assert len(packed) == -(-detokenised // 1024) and int(packed.valid.sum()) == detokenised
    assert np.array_equal(packed.ids[packed.valid], np.concatenate(rows))
    assert int((packed.ids[packed.valid] == tokenizer.eos_token_id).sum()) == len(rows)


def test_blocks_by_hand(real, shared_data):
    """The first two rows of WikiText-2 (test): nothing, then a title; each ended by EOS, cut
    without regard to either.
    """
    tokenizer = PretrainedTokenizer(str(shared_data / "tokenizers/gpt2")).build(real("wikitext2"))
    data = TextData(real("wikitext2"), length=4, padding="ignored")
    data.tokenizer = tokenizer
    eos, title = "<|endoftext|>", [" =", " Robert", " B", "oul", "ter", " =", "\n"]
    text = [tokenizer.decode([token]) for token in data.packed("test").ids[:3].reshape(-1)]
    assert text == [eos, *title, eos, eos, *[" Robert", " B"]]


# --- a folder instead of the network


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TEXTDIFF_DATA", raising=False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    (tmp_path / "ptb").mkdir()
    rows = json.dumps({"sentence": "it does n't"}) + "\n"
    (tmp_path / "ptb" / "test.jsonl").write_text(rows)
    (tmp_path / "ptb" / "train.jsonl.gz").write_bytes(gzip.compress(rows.encode() * 2))
    raw = tmp_path / "wikitext" / "wikitext-2-raw"
    raw.mkdir(parents=True)
    (raw / "wiki.train.raw").write_text(" \n = A = \n \n Text\u2028 , more . \n", encoding="utf-8")
    (raw / "wiki.test.raw.xz").write_bytes(lzma.compress(b" \n one \n"))
    return tmp_path


def test_a_folder_stands_in_for_the_network(folder, monkeypatch):
    assert list(Benchmark("ptb", str(folder)).documents("test")) == ["it doesn't"]
    monkeypatch.setenv("TEXTDIFF_DATA", str(folder))
    assert list(Benchmark("ptb", detokenise=False).documents("train")) == ["it does n't"] * 2
    assert list(Benchmark("wikitext2").documents("train")) == [
        "",
        " = A =\n",
        "",
        " Text\u2028, more.\n",
    ]
    assert list(Benchmark("wikitext2").documents("test")) == ["", " one\n"]
    found = Benchmark("ptb").provenance("test")
    assert (found["corpus"], found["source"], found["detokeniser"]) == (
        "ptb",
        "ptb/test.jsonl",
        "ptb",
    ) and len(found["sha256"]) == 64
    assert found["hub"] == {
        "path": "ptb-text-only/ptb_text_only",
        "config": None,
        "column": "sentence",
        "revision": "refs/convert/parquet",
        "files": "penn_treebank/{split}/*.parquet",
        "pinned": False,
    }
    assert Benchmark("ptb", detokenise=False).provenance("test")["detokeniser"] == "plain"


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda data: Benchmark("wikitext"),
            "unknown benchmark 'wikitext': use one of wikitext2, wikitext103",
        ),
        (lambda data: Benchmark("ptb", str(data / "nope")), "is not there: mend data_dir"),
        (
            lambda data: next(Benchmark("lambada", str(data)).documents("validation")),
            "lambada has no validation split, only test",
        ),
        (lambda data: next(Benchmark("ptb").documents("dev")), "unknown split 'dev'"),
        (
            lambda data: next(Benchmark("ptb").documents("test")),
            r"cannot be reached .*HF_HUB_OFFLINE=1.*put the rows into DATA/ptb/test.jsonl "
            r"\(field 'sentence'\).*TEXTDIFF_DATA=DATA",
        ),
        (
            lambda data: next(Benchmark("wikitext103", str(data)).documents("train")),
            r"has no wikitext/wikitext-103-raw/wiki.train.raw .*\(a line each\)",
        ),
    ],
)
def test_what_is_not_there_is_said_with_its_remedy(folder, make, message):
    with pytest.raises(ValueError, match=message):
        make(folder)


def test_a_broken_file_is_named(folder):
    (folder / "wikitext/wikitext-2-raw/wiki.test.raw.xz").write_bytes(b"no xz")
    with pytest.raises(ValueError, match=r"wiki\.test\.raw\.xz cannot be read"):
        list(Benchmark("wikitext2", str(folder)).documents("test"))


def test_a_benchmark_trains(folder, tmp_path):
    """--data.corpus takes it like any other."""
    (folder / "ptb" / "validation.jsonl").write_text(
        (folder / "ptb" / "test.jsonl").read_text() * 9
    )
    (folder / "ptb" / "train.jsonl").write_text((folder / "ptb" / "test.jsonl").read_text() * 9)
    words = [
        "fit",
        *tiny.configs("trainer/quick", "model/epsilon"),
        *tiny.toy(tmp_path / "run"),
        "--data.tokenizer=textdiff.data.Characters",
    ]
    main(
        [
            *words,
            "--data.corpus=textdiff.data.Benchmark",
            "--data.corpus.which=ptb",
            f"--data.corpus.data_dir={folder}",
        ]
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["textdiff"]["data"]["corpus"]["init_args"]["which"] == "ptb"
