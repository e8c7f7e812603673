import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import textdiff
from textdiff.data import (
    BPE,
    Characters,
    Files,
    HubDataset,
    PretrainedTokenizer,
    TinyShakespeare,
    tokenizer_hash,
)
from textdiff.data.tokenising import tokenise
from textdiff.data.tokenizers import END, _cut, num_tokens_of

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is missing")
TEXT = (
    "First  Citizen:\n\n\tBefore we proceed ,\r\n any further  \u2028 hear, né 日本 "
    "\U0001f600 me \n"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(TEXT.encode() * 20)
    return Files(str(path), str(path))


@pytest.mark.parametrize("spec", [BPE(300), Characters()])
def test_text_comes_back_and_saving_changes_nothing(corpus, spec, tmp_path):
    tokenizer = spec.build(corpus)
    ids = tokenizer(TEXT)["input_ids"]
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.pad_token == END
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert len(again) == len(tokenizer) and tokenizer_hash(again) == tokenizer_hash(tokenizer)
    assert (
        again(TEXT)["input_ids"] == ids
        and again.decode(ids) == TEXT
        and again.eos_token_id == tokenizer.eos_token_id
    )
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=2)
    assert tokenizer_hash(again) == tokenizer_hash(tokenizer)
    assert tokenizer_hash(spec.build(corpus)) == tokenizer_hash(tokenizer)


def test_bpe_is_the_same_in_another_process():
    program = (
        "from textdiff.data import BPE, TinyShakespeare, tokenizer_hash;"
        "print(tokenizer_hash(BPE(400).build(TinyShakespeare())))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == tokenizer_hash(BPE(400).build(TinyShakespeare()))


def test_bpe_needs_room_for_the_bytes(corpus):
    assert len(BPE(257).build(corpus)) == 257
    with pytest.raises(ValueError, match=r"at least 257 .* got 256"):
        BPE(256).build(corpus)


def test_characters_are_one_token_each_and_unknown_ones_one_id(corpus):
    tokenizer = Characters().build(corpus)
    assert len(tokenizer) == len(set(TEXT)) + 2
    assert len(tokenizer(TEXT)["input_ids"]) == len(TEXT)
    assert tokenizer("ŧ")["input_ids"] == [1] and tokenizer.decode([1]) == "\ufffd"


def test_streams_say_what_they_need():
    stream = HubDataset("x", streaming=True)
    with pytest.raises(ValueError, match="set documents"):
        BPE(300).build(stream)
    with pytest.raises(ValueError, match="use BPE"):
        Characters().build(stream)


@needs_shared
@pytest.mark.parametrize(
    "folder, size, end",
    [
        ("tokenizers/gpt2", 50257, 50256),
        ("tokenizers/bert-base-uncased", 30522, 102),
        ("models/stories260K", 512, 2),
    ],
)
def test_pretrained(folder, size, end):
    tokenizer = PretrainedTokenizer(str(SHARED / folder)).build(TinyShakespeare())
    assert (len(tokenizer), tokenizer.eos_token_id) == (size, end)
    assert tokenizer.bos_token_id < size and tokenizer.pad_token_id < size
    (ids,) = tokenise(tokenizer, ["Hello world"])
    assert ids[-1] == end and (size != 50257 or ids.tolist() == [15496, 995, 50256])


def test_pretrained_errors_teach(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"(?s)'nobody/nothing' cannot be loaded .*local folder"):
        PretrainedTokenizer("nobody/nothing").build(corpus)
    Characters().build(corpus).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="neither an EOS nor a separator"):
        PretrainedTokenizer(str(tmp_path)).build(corpus)


def test_stored_truncation_drops_nothing(corpus):
    tokenizer = Characters().build(corpus)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert [len(ids) for ids in tokenise(tokenizer, ["First Citizen", ""])] == [14, 1]


@needs_shared
@pytest.mark.parametrize(
    "folder", ["tokenizers/gpt2", "tokenizers/bert-base-uncased", "models/stories260K", None]
)
@pytest.mark.parametrize(
    "name", ["tinyshakespeare/input.txt.xz", "wikitext/wikitext-2-raw/wiki.valid.raw.xz"]
)
def test_pieces_of_a_long_document_give_its_tokens(folder, name, monkeypatch):
    monkeypatch.setattr("textdiff.data.tokenising._LONG", 3000)
    monkeypatch.setattr("textdiff.data.tokenising._GROUP", 7)
    text = lzma.open(SHARED / name, "rt").read()[:150_000]
    spec = PretrainedTokenizer(str(SHARED / folder)) if folder else BPE(300)
    tokenizer = spec.build(TinyShakespeare())
    whole = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    pieces, short = tokenise(tokenizer, [text, "short"])
    assert pieces.tolist() == [*whole, tokenizer.eos_token_id] and len(short) < 7


@pytest.fixture
def gap(tmp_path):
    """The folder of a tokenizer of five tokens, whose ids have gaps."""
    vocabulary = {"<eos>": 0, "<unk>": 1, "t": 2, "h": 5, "e": 8}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    folder = tmp_path / "gap"
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(folder)
    return folder


def test_ids_between_tokens_are_tokens_that_no_text_holds(gap, tmp_path):
    """N is the largest id + 1: nothing is out of range in training, drawing or measuring."""
    tokenizer = PretrainedTokenizer(str(gap)).load()
    assert len(tokenizer) == 5 and num_tokens_of(tokenizer) == 9
    named = ["--data.tokenizer=textdiff.data.PretrainedTokenizer"]
    run = tiny.fit(tmp_path / "run", *named, f"--data.tokenizer.name_or_path={gap}")
    model = textdiff.load(run)
    assert model.mask_id == 9 and model.encode("the[MASK]").tolist() == [2, 5, 8, 9]
    assert [model.decode_token(token) for token in (2, 3, 8, 9)] == ["t", "", "e", "[MASK]"]
    assert len(model.generate("the", max_length=8, num_return_sequences=4).texts) == 4
    assert model.measure("the the")[0].nats > 0


def test_text_without_spaces_is_cut_for_training(tmp_path):
    """Else a training costs the square of its length; other text is taken as it is."""
    words = ["It's two words, so. " * 9, "x" * 64 + " 12 " + "7" * 64, "-" * 99]
    assert list(_cut(iter(words))) == words
    text = "ab" * 100 + " " + "漢字" * 70 + "1" * 130
    pieces = list(_cut(iter([text])))
    assert "".join(pieces) == text
    assert [len(piece) for piece in pieces] == [64, 64, 64, 8 + 1 + 64, 64, 12 + 64, 64, 2]
    (tmp_path / "dna.txt").write_text("ACGTTGCA" * 20_000 + "漢字" * 300)
    tokenizer = BPE(300).build(Files(str(tmp_path / "dna.txt")))
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
