"""The READMEs are executed: their shell commands in their order, then their Python, page by page;
their tables are those of the results, and their links lead somewhere.

The two make targets and downloads are left out; trainings are shrunk to two steps of a toy.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import filterfalse
from pathlib import Path

import pytest
import torch
from ddit_reference import published
from safetensors.torch import save_file
from tiny import LINE
from transformers import GPT2Config, GPT2LMHeadModel

from textdiff.commands.cli import main
from textdiff.data import Characters, TinyShakespeare
from textdiff.network import Transformer

ROOT = Path(__file__).parents[1]
PAGES = (
    *("README.md", "configs/README.md", "configs/serve/README.md"),
    *("experiments/README.md", "benchmarks/README.md"),
)
TOY = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--model.network.layers=1",
    "--model.network.width=16",
    "--model.network.heads=2",
    "--data.length=64",
    "--model.warmup=1",
]
SMALLER = {  # in Python blocks
    "length=128, batch_size=32": "length=64, batch_size=8",
    "max_steps=600": "max_steps=2, limit_val_batches=1, enable_progress_bar=False",
    "levels=16))": "levels=16), network=Transformer(1, 16, 2), warmup=1)",
    "gpt2-large": "judge",
}


OWN, SERVING = "configs/README.md", "configs/serve/README.md"


def is_mine(block: str) -> bool:
    """A part of the user's own module, or of a client, which runs while the server does."""
    return block.startswith(("# mine.py\n", "# client.py\n"))


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(page), re.S)


def commands(page: str) -> list[list[str]]:
    """Every line of the shell blocks as words, continued lines joined, comments dropped."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def judge(folder: Path) -> None:
    """A random GPT-2 over characters."""
    tokenizer = Characters().build(TinyShakespeare())
    size = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 256}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def published_mdlm(folder: Path) -> None:
    """A random MDLM checkpoint over characters, in the layout of the published one."""
    tokenizer = Characters().build(TinyShakespeare())
    N = len(tokenizer)
    folder.mkdir()
    save_file(published(N + 1), folder / "model.safetensors")
    tokenizer.save_pretrained(folder)
    config = {"vocab_size": N + 1, "model_length": 6, "n_heads": 2, "time_conditioning": False}
    (folder / "config.json").write_text(json.dumps(config))


def benchmarks(folder: Path) -> None:
    """The four texts of the zero-shot table, a few lines each."""
    files = (
        "wikitext/wikitext-2-raw/wiki.valid.raw",
        "lambada/lambada_test.jsonl",
        "scientific_papers/pubmed.validation.first100.jsonl",
        "scientific_papers/arxiv.validation.first100.jsonl",
    )
    row = json.dumps({"text": LINE, "article": LINE}) + "\n"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text((LINE if name.endswith(".raw") else row) * 20)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the repository's configs, a text of one's own, a judge and a checkpoint."""
    here, before = tmp_path_factory.mktemp("readme"), Path.cwd()
    for name in ("configs", "experiments", "benchmarks"):
        (here / name).symlink_to(ROOT / name)
    shakespeare = next(TinyShakespeare().documents("train"))
    (here / "my.txt").write_text(shakespeare[:60000], encoding="utf-8")
    benchmarks(here / "data")
    torch.manual_seed(0)
    judge(here / "judge")
    published_mdlm(here / "mdlm-owt")
    os.chdir(here)
    with pytest.MonkeyPatch.context() as patch:
        (here / "mine.py").write_text("\n".join(filter(is_mine, blocks(OWN, "python"))))
        patch.syspath_prepend(str(here))  # as `python` does with the folder that it starts in
        patch.setenv("TEXTDIFF_DATA", str(here / "data"))
        yield here
    os.chdir(before)


def toy(words: list[str]) -> list[str]:
    """What shrinks a command to a toy."""
    if words[1] not in ("fit", "validate", "predict"):
        return []
    more = ["--data.tokenizer.vocab_size=300"] if "text_files" in words else []
    steps = "--ckpt_path" in words and words[1] == "fit"
    return [*TOY, *more, *(["--trainer.max_steps=4"] if steps else [])]


@contextlib.contextmanager
def served(words: list[str]) -> Iterator[int]:
    """A `textdiff serve` in a process of its own, until the block ends; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(port) if word == "8000" else word for word in words]
    server = subprocess.Popen([sys.executable, "-m", *words])
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10).read()
                break
            assert server.poll() is None, words
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(60)


def run(words: list[str]) -> None:
    """One line of a shell block."""
    if words[0] in ("make", "pip", "hf"):
        return
    if words[0] == "serve" or "--ray" in words:  # tests/serving/test_cluster.py
        return
    if words[1] == "serve":
        with served(words) as port:
            for block in blocks(SERVING, "python"):
                exec(block.replace("8000", str(port)), {})
        return
    if words[0] == "echo":
        assert words[-2] == ">"
        Path(words[-1]).write_text(" ".join(words[1:-2]) + "\n", encoding="utf-8")
    elif words[0] == "python":
        if words[1].endswith("mauve.py") and importlib.util.find_spec("mauve") is None:
            return  # needs textdiff[eval]
        before, sys.argv = sys.argv, [SMALLER.get(word, word) for word in words[1:]]
        try:
            runpy.run_path(words[1], run_name="__main__")
        finally:
            sys.argv = before
    else:
        assert words[0] == "textdiff", words
        words = [SMALLER.get(word, word) for word in words]
        main([*words[1:], *toy(words)])


def test_every_command_and_all_python_runs(workplace, capsys):
    """All pages in one test: the others go on with the first one's runs."""
    for page in PAGES:
        for words in commands(page):
            run(words)
        for block in filterfalse(is_mine, blocks(page, "python")):
            for whole, small in SMALLER.items():
                block = block.replace(whole, small)
            exec(compile(block, page, "exec"), {"Transformer": Transformer})
        if page == "README.md":
            assert len(commands(page)) >= 10 and "ROMEO:" in capsys.readouterr().out
            assert (workplace / "runs/gamma/model.safetensors").stat().st_size > 0
        if page == OWN:
            filled = (workplace / "runs/gamma/predictions.jsonl").read_text(encoding="utf-8")
            assert filled.strip() and "[MASK]" not in filled


@pytest.mark.parametrize("page", ("experiments/README.md", "benchmarks/README.md"))
def test_the_tables_are_those_of_the_results(page, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))  # as `python` does
    render = runpy.run_path(str(ROOT / "experiments/readme.py"))["render"]
    assert render(page, text(page)) == text(page), "run: python experiments/readme.py"


def anchors(path: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", text(page)):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_the_front_page_is_short_and_its_picture_small():
    assert len(text("README.md").splitlines()) <= 160
    assert (ROOT / "experiments/picture/picture.png").stat().st_size < 150_000


def test_every_config_is_explained():
    for path in (ROOT / "configs").glob("*/*.yaml"):
        name = f"{path.parent.name}/{path.stem}"
        explained = f"`{name}`" in text("configs/README.md")
        assert explained, f"configs/README.md does not mention {name}"
