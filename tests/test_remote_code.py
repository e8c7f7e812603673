"""Nothing that is opened is ever run: code in a folder, and kernels that a config names."""

import json
import shutil

import pytest
import tiny
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.integrations import hub_kernels

import textdiff
from textdiff.convert import convert
from textdiff.data import PretrainedTokenizer
from textdiff.evaluation.judge import open_judge
from textdiff.network import Pretrained

SHAPE = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16}


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A folder whose classes are in its own evil.py, and the file that evil.py writes."""
    folder, marker = tmp_path / "foreign", tmp_path / "marker"
    textdiff.load(tiny.run()).tokenizer.save_pretrained(folder)
    (folder / "evil.py").write_text(
        f"import pathlib; pathlib.Path({str(marker)!r}).touch()\nclass Evil: pass\n"
    )
    named = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")} | {
        "AutoTokenizer": [None, "evil.Evil"]
    }
    edit(folder / "config.json", model_type="foreign", auto_map=named)
    edit(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer", auto_map=named)
    # Who is asked says yes.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    yield folder
    assert not marker.exists()


def edit(path, **values):
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | values))


OPENED = {
    "network": lambda folder: Pretrained(str(folder)).build(5, False, 0),
    "judge": lambda folder: open_judge(str(folder)),
    "tokenizer": lambda folder: PretrainedTokenizer(str(folder)).load(),
    "convert": lambda folder: convert("mdlm", folder, str(folder)),
    "load": textdiff.load,
}


@pytest.mark.parametrize("name", OPENED)
def test_code_of_a_folder_is_refused(name, foreign):
    with pytest.raises(ValueError) as refusal:
        OPENED[name](foreign)
    assert "trust_remote_code" not in str(refusal.value)
    if name in ("network", "judge", "tokenizer"):
        assert "needs Python code of its own, which textdiff never runs" in str(refusal.value)


@pytest.fixture
def kernel(monkeypatch):
    """A kernel's name; whoever would fetch it from the Hub fails."""

    def fetched(*_, **__):
        raise AssertionError("a kernel was fetched")

    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda *_, **__: True)
    monkeypatch.setattr(hub_kernels, "get_kernel_hub", fetched, raising=False)
    return {"attn_implementation": "kernels-community/flash-attn2"}


def test_a_model_folder_names_no_kernel(kernel, tmp_path):
    from transformers import AutoModel

    folder = shutil.copytree(tiny.run(), tmp_path / "run")
    edit(folder / "config.json", **kernel)
    assert textdiff.load(folder).network.num_tokens == textdiff.load(tiny.run()).network.num_tokens
    AutoModel.from_pretrained(folder)


def test_a_base_and_a_judge_name_no_kernel(kernel, tmp_path):
    tokenizer = textdiff.load(tiny.run()).tokenizer
    N = len(tokenizer)
    GPT2LMHeadModel(GPT2Config(vocab_size=N, **SHAPE)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **kernel)
    network = Pretrained(str(tmp_path)).build(N, False, 0)
    open_judge(str(tmp_path))
    again = type(network)(type(network.config)(network.config.base | kernel))
    assert again.num_tokens == N
