import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from textdiff.data import BPE, Characters, Files, Packed, TextData, pack, tokenizer_hash
from textdiff.data.loading import EvalBatches, TrainBatches, share
from textdiff.noise import permutation

LINE = "the quick brown fox jumps over the lazy dog\n"


def rows(n, length=3):
    return Packed(np.arange(n * length, dtype=np.uint16).reshape(n, length))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for name, count in (("train", 30), ("validation", 4), ("test", 3)):
        (folder / f"{name}.txt").write_text(LINE * count)
    return Files(*(str(folder / f"{name}.txt") for name in ("train", "validation", "test")))


def pretend(data, rank, world_size, root, sampler=False):
    """A data module that believes to be one rank of several; they train in the folder `root`."""
    data.trainer = SimpleNamespace(
        global_rank=rank,
        local_rank=rank,
        world_size=world_size,
        default_root_dir=root,
        state=SimpleNamespace(fn="fit"),
        limit_val_batches=1,
        is_global_zero=rank == 0,
        _accelerator_connector=SimpleNamespace(use_distributed_sampler=sampler),
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(
                batch_progress=SimpleNamespace(total=SimpleNamespace(processed=0))
            )
        ),
    )
    return data


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_batch_is_a_pure_function_of_its_number(world_size):
    packed, size = rows(22), 8
    ranks = [TrainBatches(packed, size, 3, rank, world_size) for rank in range(world_size)]
    assert len(ranks[0]) == 2
    for number in (5, 0, 3, 1):  # any order
        epoch, within = divmod(number, 2)
        expected = permutation(3, epoch, 22)[within * size : (within + 1) * size]
        parts = [rank[number] for rank in ranks]
        assert [len(part["ids"]) for part in parts] == [size // world_size] * world_size
        assert torch.equal(torch.cat([part["example"] for part in parts]), expected)
        assert torch.cat([part["slot"] for part in parts]).tolist() == list(
            range(number * size, (number + 1) * size)
        )
        assert np.array_equal(torch.cat([part["ids"] for part in parts]), packed.ids[expected])


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [5, 14, 15, 16, 17, 29, 30, 31])
def test_evaluation_sees_every_row_once_in_equally_many_batches(n, world_size):
    ranks = [EvalBatches(rows(n), 15, rank, world_size) for rank in range(world_size)]
    batches = [list(rank) for rank in ranks]
    assert len({len(b) for b in batches}) == 1
    assert all(len(batch["ids"]) for b in batches for batch in b)
    seen = [
        row
        for number in range(len(batches[0]))
        for b in batches
        for row in b[number]["example"].tolist()
    ]
    assert seen == list(range(n))


def test_shares_cover():
    for count in range(9):
        parts = [range(count)[share(count, rank, 4)] for rank in range(4)]
        assert [i for part in parts for i in part] == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batch_contents(corpus):
    for documents, padding, keys in (
        ("joined", "learnt", {"counted"}),
        ("separate", "learnt", {"document", "counted"}),
        ("single", "ignored", {"valid"}),
    ):
        data = TextData(corpus, BPE(270), 16, 4, documents=documents, padding=padding)
        batch = next(iter(data.train_dataloader()))
        assert set(batch) == {"ids", "example", "slot"} | keys
        for key, value in batch.items():
            assert value.dtype == (torch.bool if key in ("valid", "counted") else torch.int64)
            assert value.shape == ((4,) if key in ("example", "slot") else (4, 16))


def test_the_text_comes_back_from_the_rows(corpus):
    data = TextData(corpus, Characters(), 16, 4, eval_batch_size=3)
    ids = torch.cat([batch["ids"] for batch in data.test_dataloader()]).flatten()
    assert data.tokenizer.decode(ids, skip_special_tokens=True) == LINE * 3
    assert [len(b["ids"]) for b in data.test_dataloader()] == [3, 3, 3]
    assert [len(b["ids"]) for b in data.val_dataloader()] == [3, 3, 3, 3]


def test_world_size_two_shares_the_same_batches(corpus, tmp_path):
    def epoch(data):
        return [batch["ids"] for batch in data.train_dataloader()]

    def make(rank, world_size):
        return pretend(TextData(corpus, Characters(), 16, 4), rank, world_size, tmp_path)

    make(0, 2).prepare_data()
    whole, first, second = epoch(make(0, 1)), epoch(make(0, 2)), epoch(make(1, 2))
    for batch, *parts in zip(whole, first, second, strict=True):
        assert torch.equal(batch, torch.cat(parts))
    with pytest.raises(ValueError, match=r"batch_size 4 .* multiple of 3"):
        make(0, 3).train_dataloader()
    with pytest.raises(ValueError, match="use_distributed_sampler=False"):
        data = TextData(corpus, Characters(), 16, 4)
        pretend(data, 0, 2, tmp_path, sampler=True).val_dataloader()


@dataclass(frozen=True)
class Counted(Files):
    """Notes who reads it."""

    read: tuple = ()

    def documents(self, split):
        self.read[0].append(split)
        return super().documents(split)


@pytest.mark.parametrize("cached", [False, True])
def test_one_process_reads_the_corpus_and_the_others_its_rows(corpus, tmp_path, cached):
    reads = [[], []]
    first, second = (
        pretend(
            TextData(
                Counted(corpus.train, corpus.validation, corpus.test, read=(read,)),
                BPE(270),
                16,
                4,
                documents="separate",
                cache_dir=str(tmp_path / "cache") if cached else None,
            ),
            rank,
            2,
            tmp_path / "run",
        )
        for rank, read in enumerate(reads)
    )
    for ask in (lambda: second.tokenizer, lambda: second.packed("train")):
        with pytest.raises(ValueError, match="first process of this machine was to write the tok"):
            ask()
    first.prepare_data()
    mine, theirs = second.packed("train"), first.packed("train")
    assert isinstance(mine.ids, np.memmap) and isinstance(theirs.ids, np.memmap)
    assert np.array_equal(mine.ids, theirs.ids) and np.array_equal(mine.document, theirs.document)
    assert next(iter(second.val_dataloader()))["ids"].shape == (2, 16)
    assert tokenizer_hash(second.tokenizer) == tokenizer_hash(first.tokenizer)
    assert reads == [["train", "train", "validation"], []]  # the tokenizer is trained on it, too
    with pytest.raises(ValueError, match="was to write the test split"):
        second.packed("test")
    second.teardown("fit")
    assert (tmp_path / "run" / ".textdiff-shared").is_dir()
    first.teardown("fit")
    assert not (tmp_path / "run" / ".textdiff-shared").exists()
    assert np.array_equal(mine.ids, theirs.ids)  # still mapped


def test_one_process_alone_shares_nothing(corpus, tmp_path):
    data = pretend(TextData(corpus, Characters(), 16, 4), 0, 1, tmp_path)
    (tmp_path / ".textdiff-shared").mkdir()  # of a run on several that was killed
    data.prepare_data()
    data.teardown("fit")
    assert not list(tmp_path.iterdir())


def test_too_little_text_and_bad_settings(corpus, tmp_path):
    alone = pretend(TextData(corpus, Characters(), 500), 0, 2, tmp_path)
    with pytest.raises(
        ValueError, match=r"only 2 rows of 1000 tokens, fewer than a batch of 32: lower batch_size"
    ):
        TextData(corpus, Characters(), 1000).train_dataloader()
    (tmp_path / "one.txt").write_text("x")
    with pytest.raises(ValueError, match=r"train split of Files: no document to pack"):
        TextData(Files(str(tmp_path / "one.txt")), Characters()).train_dataloader()
    with pytest.raises(ValueError, match="only 1 rows for 2 ranks"):
        alone.val_dataloader()
    for wrong in (
        {"length": 0},
        {"batch_size": 0},
        {"eval_batch_size": -1},
        {"documents": "x"},
        {"padding": "x"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TextData(corpus, **wrong)


def test_a_ready_tokenizer_replaces_the_spec(corpus):
    data = TextData(corpus, Characters(), 16)
    before = data.packed("test")
    data.tokenizer = BPE(270).build(corpus)
    assert len(data.tokenizer) == 270 and len(data.packed("test")) < len(before)


@pytest.mark.parametrize(
    "documents, padding", [("joined", "learnt"), ("separate", "learnt"), ("single", "ignored")]
)
def test_cache(corpus, tmp_path, monkeypatch, documents, padding):
    def make(length=16):
        data = TextData(
            corpus, BPE(270), length, documents=documents, padding=padding, cache_dir=str(tmp_path)
        )
        return data.packed("validation")

    plain = TextData(corpus, BPE(270), 16, documents=documents, padding=padding).packed(
        "validation"
    )
    made = make()
    # a second time nothing is packed
    monkeypatch.setattr("textdiff.data.packing.pack_pieces", None)
    read = make()
    for name in ("ids", "document", "valid"):
        for packed in (made, read):
            one, other = getattr(plain, name), getattr(packed, name)
            assert (one is None and other is None) or (
                np.array_equal(one, other) and one.dtype == other.dtype
            )
    with pytest.raises(TypeError):
        make(length=8)  # another length is another entry
    assert len(list(tmp_path.iterdir())) == 1


def test_import_is_light():
    program = (
        "import sys, textdiff.data;print(sorted({'torch', 'lightning', 'transformers', 'datasets', "
        "'tokenizers', 'tqdm'} & set(sys.modules)))"
    )
    light = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert light.stdout.strip() == "[]"


def test_pack_is_exported():
    assert len(pack([np.array([1, 0])], 2, 0, "joined", "learnt")) == 1
