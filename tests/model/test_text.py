"""Texts cut into tokens and put together again, with tokenizers that write a token differently at
the beginning of a text.
"""

import io

import pytest
import tiny
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from textdiff.evaluation.last_word import cut
from textdiff.generation.state import Frame
from textdiff.hyperschedule import QuenchedAR
from textdiff.model import text
from textdiff.model.model import Model
from textdiff.network import TransformerConfig, TransformerDenoiser
from textdiff.process import Absorbing
from textdiff.viewer import Watcher

LINES = ["once upon a time there was a dog. the dog ran", "a dog was there, once more; play"]


def metaspace(kind: str) -> PreTrainedTokenizerFast:
    """A tiny tokenizer of words with their space, as SentencePiece or the older Llama writes it."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    scheme = "always" if kind == "llama" else kind
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    words = trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "</s>"])
    made.train_from_iterator(LINES * 3, words)
    if kind == "llama":
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    options = {"eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=made, **options)


@pytest.fixture(params=["always", "first", "llama"])
def sentencepiece(request):
    return metaspace(request.param)


@pytest.fixture(params=["gpt2", "bert-base-uncased"])
def published(request, shared_file):
    return AutoTokenizer.from_pretrained(str(shared_file("tokenizers", request.param)))


def model_of(tokenizer) -> Model:
    torch.manual_seed(0)
    shape = TransformerConfig(num_tokens=len(tokenizer), layers=1, width=16, heads=2, shifted=True)
    network = TransformerDenoiser(shape).eval()
    torch.nn.init.normal_(network.output.weight)
    return Model(network, Absorbing(), QuenchedAR(), tokenizer, 12)


def check(tokenizer):
    """The last word, gaps, pieces and single tokens: as in the whole text."""
    whole = tokenizer.encode(LINES[0], add_special_tokens=False)
    for length in (99, 5):
        ids, last = cut(tokenizer, LINES[0] + " ", length)
        assert ids == whole[-length:]
        assert text.added(tokenizer, whole[:-last], ids[-last:]) == " ran"
    model = model_of(tokenizer)
    for given in ("once upon a[MASK] there was[MASK][MASK]", "[MASK] dog", "a dog[MASK]. the dog"):
        assert model.decode(model.encode(given)) == given
    gap = model.encode("once upon a[MASK] there was a dog").tolist()
    begin = gap.index(model.mask_id)
    before = tokenizer.encode("once upon a", add_special_tokens=False)
    after = tokenizer.encode("once upon a time there was a dog", add_special_tokens=False)
    assert gap[:begin] == before and gap[begin + 1 :] == after[1 - len(gap) + begin :]
    assert "".join(map(model.decode_token, whole)).lstrip() == LINES[0]


def test_pieces_are_encoded_as_in_the_whole(sentencepiece):
    check(sentencepiece)


def test_published_tokenizers(published):
    check(published)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_given_text_comes_back(sentencepiece):
    model = model_of(sentencepiece)
    found = model.generate("  a Ünknown dog", max_new_tokens=3, suffix=" the end é")
    (whole,) = found.texts
    assert whole == "  a Ünknown dog" + found.completions[0] + " the end é"
    filled = model.generate("é[MASK] dog[MASK][MASK] é").texts[0]
    assert filled.startswith("é") and " dog" in filled and filled.endswith(" é")
    ids = model.generate(model.encode("a dog"), max_new_tokens=3)
    assert ids.texts == ["a dog" + ids.completions[0]]
    assert ids.texts[0] == model.decode(ids.ids[0])


def test_the_watcher_keeps_spaces(sentencepiece):
    model = model_of(sentencepiece)
    ids = model.encode(LINES[0])[None]
    zero = torch.zeros(ids.shape)
    printed = io.StringIO()
    with Watcher(model.decode_token, model.mask_id, printed) as watcher:
        watcher(Frame(0, ids, zero, zero, torch.ones(1, dtype=torch.bool)))
    assert LINES[0] in printed.getvalue()


def test_a_tokenizer_of_characters_without_any_anchor():
    made = Tokenizer(models.WordLevel({"b": 0, " ": 1, "</s>": 2}, unk_token="</s>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    model = model_of(PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>"))
    assert model.encode("b[MASK] b").tolist() == [0, 3, 1, 0]
    assert model.decode(model.encode("b[MASK] b")) == "b[MASK] b"


def test_half_a_character_is_refused(capsys):
    tokenizer = metaspace("first")
    with pytest.raises(ValueError, match="invalid character at 2 "):
        text.encode(tokenizer, "a \udc80")
    assert "invalid character at 0" in tiny.refused(
        capsys, ["sample", str(tiny.run()), "--prompt", "\udcff"]
    )
