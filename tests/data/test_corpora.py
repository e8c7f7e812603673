import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow
import pytest
import yaml
from pyarrow import parquet
from tiny import CONFIGS

from textdiff.data import Corpus, Files, HubDataset, Mixture, TinyShakespeare
from textdiff.data.corpora import SPLITS
from textdiff.spec import build, describe

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is missing")
ODD = "one\u2028two\u0085three\r\nfour"  # str.splitlines would cut this


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_tiny_shakespeare_is_whole_and_cut_at_lines():
    parts = ["".join(TinyShakespeare().documents(split)) for split in SPLITS]
    assert [len(part) for part in parts] == [1003836, 55762, 55796]
    assert all(part.endswith("\n") for part in parts)
    assert len({TinyShakespeare().provenance(split)["sha256"] for split in SPLITS}) == 3


@needs_shared
def test_tiny_shakespeare_is_the_shared_file():
    packed = SHARED / "tinyshakespeare" / "input.txt.xz"
    parts = [part for split in SPLITS for part in TinyShakespeare().documents(split)]
    assert "".join(parts) == lzma.open(packed, "rt", encoding="utf-8", newline="").read()


def test_txt_is_one_document_and_keeps_every_character(tmp_path):
    (tmp_path / "a.txt").write_bytes(("\ufeff" + ODD).encode())
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(ODD.encode()))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(ODD.encode()))
    assert list(Files("-", test=str(tmp_path / "*")).documents("test")) == [ODD] * 3


def test_rows_of_jsonl_csv_and_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [ODD, 'a "quoted", line', "x" * 200_000]
    lines = (
        "\n".join(json.dumps({"body": row, "id": 1}, ensure_ascii=False) for row in rows) + "\n\n"
    )
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8", newline="")
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(lines.encode()))
    quoted = "".join('7,"{}"\r\n'.format(row.replace('"', '""')) for row in rows)
    (tmp_path / "a.csv").write_text("id,body\r\n" + quoted, encoding="utf-8", newline="")
    pyarrow.parquet.write_table(pyarrow.table({"body": rows}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.xz", "a.csv", "a.parquet"):
        corpus = Files("-", test=str(tmp_path / name), column="body")
        assert list(corpus.documents("test")) == rows, name
        with pytest.raises(ValueError, match=r"no column 'text'; set column to one of .*body"):
            list(Files("-", test=str(tmp_path / name)).documents("test"))


@pytest.mark.parametrize("count, held_out", [(2, [1]), (7, [6]), (20, [19]), (45, [19, 39])])
def test_held_out_documents(tmp_path, count, held_out):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": str(i)}) + "\n" for i in range(count))
    )
    corpus = Files(str(tmp_path / "a.jsonl"))
    assert list(corpus.documents("validation")) == [str(i) for i in held_out]
    assert list(corpus.documents("train")) == [str(i) for i in range(count) if i not in held_out]
    with pytest.raises(ValueError, match="set test to a file"):
        corpus.documents("test")


@pytest.mark.parametrize("text", ["ab\n" * 400, "x" * 1000])
def test_held_out_end_of_a_single_document(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    corpus = Files(str(tmp_path / "a.txt"))
    (train,), (validation,) = corpus.documents("train"), corpus.documents("validation")
    assert train + validation == text and 0.05 <= len(validation) / len(text) < 0.06


def test_given_validation_leaves_train_whole(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    corpus = Files([str(tmp_path / "a.txt")], validation=str(tmp_path / "b.txt"))
    assert list(corpus.documents("train")) == ["a"] and list(corpus.documents("validation")) == [
        "b"
    ]
    assert corpus.provenance("train")["sha256"] != corpus.provenance("validation")["sha256"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("missing.txt", None, "no file matches .*missing.txt.*check the path"),
        ("empty.txt", b"", "empty.txt holds no text"),
        ("empty.jsonl", b"\n\n", "holds no text"),
        ("a.pdf", b"x", "unknown kind of file; use .txt"),
        ("a.csv.xz", b"x", "cannot be read .*whole"),
        ("a.parquet.gz", b"x", "unknown kind of file"),
        ("cut.jsonl.bz2", bz2.compress(b'{"text": "a"}' * 99)[:50], "cannot be read .*whole"),
        ("plain.txt.zst", b"abc", "cannot be read"),
        ("latin.txt", b"caf\xe9", "not UTF-8 .*iconv"),
        ("latin.jsonl", b'{"text": "caf\xe9"}', "not UTF-8"),
        ("cut.txt.xz", lzma.compress(b"abc" * 1000)[:60], "cannot be read .*whole"),
        ("plain.txt.gz", b"abc", "cannot be read"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', r"bad.jsonl, line 2 is not JSON .*mend"),
        ("list.jsonl", b'["a"]', r"line 1 is \['a'\], not an object"),
        ("word.jsonl", b'"a"', "line 1 .* not an object"),
        ("null.jsonl", b'{"text": null}\n{"text": null}', "holds no text"),
        ("number.jsonl", b'{"text": "a"}\n{"text": 1}', "line 2: 'text' is 1, not text"),
        ("half.jsonl", b'{"text": "a"}\n{"text": "b\\ud800"}', "line 2: character 1 .*surrogates"),
        ("long.json", b'[{"text": ["' + b"x" * 999 + b'"]}]', r"element 1: .{,120}, not text"),
        ("names.json", b'{"a": {"b": "x"}, "c": 1}', "no column 'text'; set column to .*a.b, c"),
        ("bad.json", b'[{"text": "a"},', "line 1 is not JSON"),
        ("bad.parquet", b"x" * 100, "not a parquet file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(Files("-", test=str(tmp_path / name)).documents("test"))


TEXTS = ["one\n", "two", "drei \u2028 ü"]
ROWS = [{"text": text, "meta": {"body": text.upper()}} for text in TEXTS]
JSON = json.dumps(ROWS).encode()
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = "n{0}text\n" + "".join(f'1{{0}}"{text}"\n' for text in TEXTS)


def zstd(data: bytes) -> bytes:
    return bytes(pyarrow.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", JSON),
        ("a.json", LINES),  # as the Hub has many
        ("texts.json", json.dumps(TEXTS).encode()),
        ("a.jsonl", LINES),
        ("a.tsv", TABLE.format("\t").encode()),
        ("a.csv", TABLE.format(",").encode()),
    ],
)
@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", zstd),
    ],
)
def test_kinds_and_compressions(tmp_path, name, data, suffix, pack):
    (tmp_path / (name + suffix)).write_bytes(pack(data))
    assert list(Files("-", test=str(tmp_path / (name + suffix))).documents("test")) == TEXTS


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
def test_columns_in_objects(tmp_path, name):
    if name == "a.parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(JSON if name == "a.json" else LINES)
    corpus = Files("-", test=str(tmp_path / name), column="meta.body")
    assert list(corpus.documents("test")) == [text.upper() for text in TEXTS]
    with pytest.raises(ValueError, match=r"no column 'meta.bod'; set column to one of .*meta"):
        list(Files("-", test=str(tmp_path / name), column="meta.bod").documents("test"))


def test_rows_without_text_are_left_out_and_counted(tmp_path):
    rows = [{"text": "a"}, {"text": None}, {"text": "b"}, {"text": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    for name in ("a.jsonl", "b.parquet"):
        with pytest.warns(UserWarning, match=f"{name}: 2 rows have null in 'text'"):
            assert list(Files("-", test=str(tmp_path / name)).documents("test")) == ["a", "b"]


def test_a_folder_is_all_its_texts(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt", "deep/er/d.txt", ".hidden/x.txt", "deep/.y.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.warns(UserWarning, match="1 files without text, .*empty.txt first"):
        found = list(Files("-", test=str(tmp_path)).documents("test"))
    assert found == ["a.txt", "b.txt", "deep/c.txt", "deep/er/d.txt"]
    with pytest.warns(UserWarning, match="without text"):
        assert list(Files("-", test=str(tmp_path / "*.txt")).documents("test")) == found[:2]
    sources = Files("-", test=str(tmp_path)).provenance("test")["source"]
    assert len(sources) == 5


def test_shares_of_a_mixture(tmp_path):
    for name, size in (("long", 50), ("short", 5)):
        rows = [{"text": f"{name} {i} ".ljust(size, name[0])} for i in range(400)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    parts = [Files("-", test=str(tmp_path / f"{name}.jsonl")) for name in ("long", "short")]
    mixed = Mixture(parts, [3, 1])
    found = list(mixed.documents("test"))
    sizes = [sum(len(t) for t in found if t.startswith(name)) for name in ("long", "short")]
    assert 2.9 < sizes[0] / sizes[1] < 3.1
    for part in parts:  # each in its own order, none twice
        own = list(part.documents("test"))
        mine = [text for text in found if text.startswith(own[0].split()[0])]
        assert mine == own[: len(mine)]
    assert found == list(mixed.documents("test"))
    assert build(describe(mixed), Corpus) == Mixture(tuple(parts), (3, 1))
    assert mixed.provenance("test")["parts"][0]["corpus"] == "Files"
    for corpora, weights in ((parts, [1]), (parts[:1], [1]), (parts, [1, 0]), (parts, [1, -2])):
        with pytest.raises(ValueError, match="weight"):
            Mixture(corpora, weights)


def test_folder_and_unknown_split(tmp_path):
    with pytest.raises(ValueError, match=r"the folder .* has no .txt, .jsonl"):
        list(Files(str(tmp_path)).documents("train"))
    for corpus in (Files("-"), HubDataset("-"), TinyShakespeare()):
        with pytest.raises(ValueError, match="unknown split 'dev'"):
            list(corpus.documents("dev"))


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 5), ("validation", 2)):
        rows = "".join(json.dumps({"text": f"{split} {i}"}) + "\n" for i in range(count))
        (tmp_path / f"{split}.jsonl").write_text(rows)
    return str(tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_hub_dataset_reads_a_local_folder(folder, streaming):
    corpus = HubDataset(folder, streaming=streaming)
    assert list(corpus.documents("train")) == [f"train {i}" for i in range(5)]
    assert list(corpus.documents("validation")) == ["validation 0", "validation 1"]
    assert (corpus.provenance("train")["fingerprint"] is None) == streaming
    json.dumps(corpus.provenance("train"))


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_are_lines_become_documents_under_their_headings(tmp_path, streaming):
    """With the heading of configs/data/hub.yaml: sections and equations begin no article."""
    config = yaml.safe_load((CONFIGS / "data" / "hub.yaml").read_text())
    heading = config["data"]["corpus"]["init_args"]["heading"]
    rows = ["", " = First = \n", "", " one = 1 \n", " = = Section = = \n", " two \n"]
    rows += [" = Second = \n", " three \n", ""]
    lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text(lines)
    corpus = HubDataset(str(tmp_path), streaming=streaming, heading=heading)
    first = " = First = \n one = 1 \n = = Section = = \n two \n"
    assert list(corpus.documents("train")) == [first, " = Second = \n three \n"]
    assert corpus.provenance("train")["heading"] == heading
    with pytest.raises(ValueError, match="heading must be a regular expression, got '\\('"):
        HubDataset("x", heading="(")


def test_hub_dataset_errors_teach(folder):
    with pytest.raises(ValueError, match=r"no readable 'test'.*set config and test"):
        next(HubDataset(folder).documents("test"))
    with pytest.raises(ValueError, match=r"no column 'body'; set column to one of text"):
        next(HubDataset(folder, column="body").documents("train"))
    with pytest.raises(ValueError, match=r"'nobody/nothing' cannot be reached .*HF_HUB_OFFLINE"):
        next(HubDataset("nobody/nothing").documents("train"))
