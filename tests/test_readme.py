"""The README is executed: its shell commands in their order, its Python, its table (the two make
targets apart).
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from textdiff.commands.cli import main
from textdiff.data import TinyShakespeare

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOY = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--model.network.layers=1",
    "--model.network.width=16",
    "--model.network.heads=2",
    "--data.length=32",
    "--model.warmup=1",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[list[str]]:
    """Every line of the shell blocks as words, continued lines joined, comments dropped."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the repository's configs, a text of one's own, and a quickstart run of a few
    steps.
    """
    here, before, argv = tmp_path_factory.mktemp("readme"), Path.cwd(), sys.argv
    for name in ("configs", "experiments", "benchmarks"):
        (here / name).symlink_to(ROOT / name)
    text = next(TinyShakespeare().documents("train"))
    (here / "my.txt").write_text(text[:60000], encoding="utf-8")
    os.chdir(here)
    sys.argv = ["run.py", "--rows=4", "--run=runs/quickstart", *TOY]
    with pytest.raises(
        SystemExit, match="has learnt nothing"
    ):  # two steps teach nothing, and the job says so
        runpy.run_path("experiments/quickstart/run.py", run_name="__main__")
    yield here
    os.chdir(before)
    sys.argv = argv


def test_the_quickstart_leaves_a_run(workplace):
    for name in (
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "config.yaml",
        "loss.png",
        "hyperschedule.png",
    ):
        assert (workplace / "runs/quickstart" / name).stat().st_size > 0
    assert (workplace / "runs/quickstart/results/quickstart.json").exists()


def test_every_command_runs(workplace):
    done = 0
    for words in commands():
        if words[0] == "make" or words[0] == "pip":
            continue
        if words[0] == "echo":
            assert words[-2] == ">"
            Path(words[-1]).write_text(" ".join(words[1:-2]) + "\n", encoding="utf-8")
            continue
        assert words[0] == "textdiff", words
        toy = TOY if words[1] in ("fit", "validate", "predict") else []
        if "--ckpt_path" in words and words[1] == "fit":
            toy = [*TOY, "--trainer.max_steps=4"]
        if "text_files.yaml" in " ".join(words):
            toy = [*toy, "--data.tokenizer.vocab_size=300"]
        main([*words[1:], *toy])
        done += 1
    assert done >= 8
    assert Path("runs/gamma/predictions.jsonl").read_text(encoding="utf-8").strip()


def test_the_python_runs(workplace, capsys):
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "ROMEO:" in capsys.readouterr().out


def test_the_tables_are_those_of_the_results():
    render = runpy.run_path(str(ROOT / "experiments/readme.py"))["render"]
    assert render(README) == README, "run: python experiments/readme.py"
