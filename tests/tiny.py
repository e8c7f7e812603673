"""A toy run: one layer of width 16 on a few lines of text, made through the command line in half a
second.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from textdiff.commands.cli import main

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
LINE = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n"
SHAPE = {"layers": 1, "width": 16, "heads": 2}


def configs(*names: str) -> list[str]:
    """`--config` words for files in configs/, such as "model/epsilon"."""
    return [word for name in names for word in ("--config", str(CONFIGS / f"{name}.yaml"))]


def words(options: dict[str, Any], prefix: str = "") -> list[str]:
    """Options as words of a command line: {"model.lr": 1} -> ["--model.lr=1"]."""
    return [f"--{prefix}{name}={value}" for name, value in options.items()]


def toy(to: Path, **trainer: Any) -> list[str]:
    """Words that shrink any configuration to a toy, train it for two steps on the CPU and keep the
    screen quiet.
    """
    small = {
        "default_root_dir": to,
        "accelerator": "cpu",
        "max_steps": 2,
        "limit_val_batches": 2,
        "precision": "32-true",
    }
    small |= {
        "val_check_interval": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": "false",
        "enable_model_summary": "false",
    }
    return [
        *words(SHAPE, "model.network."),
        "--model.warmup=1",
        "--data.length=16",
        "--data.batch_size=4",
        *words(small | trainer, "trainer."),
    ]


def text_files(path: Path) -> list[str]:
    """Words for the characters of the lines of a file."""
    corpus = [
        "--data.corpus=textdiff.data.Files",
        f"--data.corpus.train={path}",
        f"--data.corpus.validation={path}",
    ]
    return [*corpus, f"--data.corpus.test={path}", "--data.tokenizer=textdiff.data.Characters"]


def fit(to: Path, *extra: str, model: str = "epsilon", **trainer: Any) -> Path:
    """Train a toy in this process; its run folder."""
    main(
        [
            "fit",
            *configs("trainer/quick", f"model/{model}"),
            *text_files(text()),
            *toy(to, **trainer),
            *extra,
        ]
    )
    return to


def module(model: str, num_tokens: int, **options: Any) -> Any:
    """The untrained toy TextDiffusion of a file in configs/model."""
    from textdiff.training.module import TextDiffusion

    named = yaml.safe_load((CONFIGS / "model" / f"{model}.yaml").read_text())["model"]
    made = {
        name: value if isinstance(value, dict) else {"class_path": value}
        for name, value in named.items()
    }
    made["network"]["init_args"] |= SHAPE
    return TextDiffusion(**made, num_tokens=num_tokens, **options)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that ends a command with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert not any(line.startswith(("Traceback", "  File")) for line in lines), "\n".join(lines)
    assert sum("error:" in line for line in lines) == 1 and "error:" in lines[-1], "\n".join(lines)
    return lines[-1]


@cache
def folder() -> Path:
    """A folder for this process, removed at its end."""
    made = Path(tempfile.mkdtemp(prefix="textdiff-tests-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def text() -> Path:
    """A file of text."""
    path = folder() / "lines.txt"
    path.write_text(LINE * 12)
    return path


def run(model: str = "epsilon") -> Path:
    """The folder of a trained toy, made once; not to be changed."""
    return _trained(model)


@cache
def _trained(model: str) -> Path:
    """`run`, once per model and process."""
    return fit(
        folder() / model,
        "--model.lr=0.05",
        "--model.warmup=2",
        model=model,
        max_steps=40,
        val_check_interval=20,
    )
