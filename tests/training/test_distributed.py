"""Two CPU processes train what one trains: loss, data order and noise do not depend on the number
of ranks.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from textdiff.training.curves import read_metrics

CONFIGS = Path(__file__).parents[2] / "configs"


def fit(run: Path, model: str, *options: str) -> None:
    """Train a toy through the command line in a process of its own, which starts other ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "textdiff", "fit"]
    command += [
        "--config",
        str(CONFIGS / "trainer/quick.yaml"),
        "--config",
        str(CONFIGS / "data/tinyshakespeare.yaml"),
    ]
    command += [
        "--config",
        str(CONFIGS / f"model/{model}.yaml"),
        f"--trainer.default_root_dir={run}",
        "--trainer.accelerator=cpu",
    ]
    command += [
        "--model.network.layers=1",
        "--model.network.width=16",
        "--model.network.heads=2",
        "--data.length=16",
    ]
    command += [
        "--data.batch_size=8",
        "--trainer.val_check_interval=4",
        "--trainer.limit_val_batches=2",
        "--trainer.log_every_n_steps=1",
        "--model.warmup=2",
    ]
    command += ["--trainer.enable_progress_bar=false", *options]
    environment = os.environ | {
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    there = {"cwd": run.parent, "env": environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **there)
    assert done.returncode == 0, done.stderr[-3000:]


def assert_same(a: Path, b: Path) -> None:
    for name, tensor in load_file(a / "model.safetensors").items():
        torch.testing.assert_close(
            load_file(b / "model.safetensors")[name], tensor, atol=2e-5, rtol=1e-4
        )
    mine, theirs = read_metrics(a), read_metrics(b)
    assert mine.keys() == theirs.keys()
    for name in mine:
        steps, values = zip(*mine[name], strict=True)
        assert steps == tuple(step for step, _ in theirs[name])
        torch.testing.assert_close(
            torch.tensor([v for _, v in theirs[name]]), torch.tensor(values), atol=2e-4, rtol=1e-4
        )


TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
COUNTED = """
import os
from dataclasses import dataclass
from textdiff.data import Files

@dataclass(frozen=True)
class Counted(Files):
    def documents(self, split):
        with open("read.txt", "a") as file:
            file.write(f"{os.getpid()} {split}\\n")
        return super().documents(split)
"""


def test_two_ranks_train_two_streams_shifted_conditioned_on_packed_documents_as_one_does(tmp_path):
    text = tmp_path / "lines.txt"
    text.write_text("".join(tiny.LINE[: 20 + 11 * i % 60] + "\n" for i in range(60)))
    (tmp_path / "counted.py").write_text(COUNTED)
    options = (
        *(
            "--trainer.max_steps=4",
            "--model.network.layout=shifted",
            *tiny.text_files(text),
            "--data.documents=separate",
        ),
        *(
            "--model.hyperschedule=textdiff.hyperschedule.Block",
            "--model.hyperschedule.width=4",
            "--model.hyperschedule.levels=4",
        ),
    )
    fit(tmp_path / "one", "gamma", "--trainer.devices=1", *options)
    counted = [word.replace("textdiff.data.Files", "counted.Counted") for word in options]
    fit(tmp_path / "two", "gamma", *TWO, *counted)
    assert_same(tmp_path / "one", tmp_path / "two")
    # One of the two processes reads the text: once for the tokenizer, and each split once.
    processes, splits = zip(*map(str.split, (tmp_path / "read.txt").open()), strict=True)
    assert len(set(processes)) == 1 and splits == ("train", "train", "validation")
    assert not (tmp_path / "two" / ".textdiff-shared").exists()


@pytest.mark.parametrize("model", ["epsilon"])
def test_two_ranks_train_and_measure_what_one_does_and_checkpoints_move(model, tmp_path):
    two = TWO
    fit(tmp_path / "one", model, "--trainer.max_steps=8", "--trainer.devices=1")
    fit(tmp_path / "two", model, "--trainer.max_steps=8", *two)
    assert_same(tmp_path / "one", tmp_path / "two")
    # From one process to two and back: go on from the other's checkpoint at step 4.
    (checkpoint,) = (tmp_path / "two/checkpoints").glob("step-8*.ckpt")
    fit(
        tmp_path / "one_on",
        model,
        "--trainer.max_steps=12",
        "--trainer.devices=1",
        f"--ckpt_path={checkpoint}",
    )
    (checkpoint,) = (tmp_path / "one/checkpoints").glob("step-8*.ckpt")
    fit(tmp_path / "two_on", model, "--trainer.max_steps=12", *two, f"--ckpt_path={checkpoint}")
    assert_same(tmp_path / "one_on", tmp_path / "two_on")
