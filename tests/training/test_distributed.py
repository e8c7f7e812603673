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
from transformers import LlamaConfig, LlamaForCausalLM

from textdiff.data import Characters, Files
from textdiff.training.curves import read_metrics

CONFIGS = Path(__file__).parents[2] / "configs"


def fit(run: Path, model: str, *options: str) -> None:
    """Train a toy through the command line."""
    command = [
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
    launch(run.parent, [*command, "--trainer.enable_progress_bar=false", *options])


def launch(where: Path, words: list[str]) -> None:
    """`textdiff fit` in a process of its own, which starts other ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    there = {"cwd": where, "env": environment}
    command = [sys.executable, "-m", "textdiff", "fit", *words]
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


SHARDED = ("--config", str(CONFIGS / "trainer/fsdp.yaml"), "--trainer.devices=2")


@pytest.mark.parametrize("two", [TWO, SHARDED], ids=["ddp", "fsdp"])
def test_two_ranks_train_and_measure_what_one_does_and_checkpoints_move(two, tmp_path):
    """Weights, their average and the moments of the optimiser; gradients clipped by their norm."""
    clipped = "--trainer.gradient_clip_val=0.5"
    steps = ("--trainer.max_steps=8", clipped)
    fit(tmp_path / "one", "epsilon", *steps, "--trainer.devices=1")
    fit(tmp_path / "two", "epsilon", *two, *steps)
    assert_same(tmp_path / "one", tmp_path / "two")
    # From one process to two and back: go on from the other's checkpoint at step 8.
    on = ("--trainer.max_steps=12", clipped, "--model.lr=1e-3")
    (checkpoint,) = (tmp_path / "two/checkpoints").glob("step-8*.ckpt")
    fit(tmp_path / "one_on", "epsilon", *on, "--trainer.devices=1", f"--ckpt_path={checkpoint}")
    (checkpoint,) = (tmp_path / "one/checkpoints").glob("step-8*.ckpt")
    fit(tmp_path / "two_on", "epsilon", *two, *on, f"--ckpt_path={checkpoint}")
    assert_same(tmp_path / "one_on", tmp_path / "two_on")


WATCH = """
from lightning.pytorch import Callback

class Watch(Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        weights = [*pl_module.parameters()]
        weights += [state["exp_avg"] for state in trainer.optimizers[0].state.values()]
        held = sum(weight.to_local().numel() for weight in weights)
        whole = sum(weight.numel() for weight in weights)
        with open(f"{trainer.global_rank}.txt", "w") as file:
            file.write(f"{held} {whole}")
"""


def test_each_rank_holds_its_share_of_a_base_and_trains_it_as_one_process_does(tmp_path):
    """A network whose blocks are transformers' own."""
    tokenizer = Characters().build(Files(str(tiny.text())))
    tokenizer.save_pretrained(tmp_path / "base")
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    base = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, **shape)
    torch.manual_seed(0)
    LlamaForCausalLM(base).save_pretrained(tmp_path / "base")
    (tmp_path / "watched.py").write_text(WATCH)
    text = [word for word in tiny.text_files(tiny.text()) if "tokenizer" not in word]
    words = [
        *tiny.configs("trainer/quick", "adapt/block"),
        f"--model.network.source={tmp_path / 'base'}",
        *text,
        "--data.length=16",
        "--data.batch_size=8",
        "--trainer.accelerator=cpu",
        "--trainer.max_steps=4",
        "--trainer.val_check_interval=4",
        "--trainer.log_every_n_steps=1",
        "--model.warmup=2",
    ]
    launch(tmp_path, [*words, f"--trainer.default_root_dir={tmp_path / 'one'}"])
    two = [*words, *SHARDED, "--trainer.callbacks+=watched.Watch"]
    launch(tmp_path, [*two, f"--trainer.default_root_dir={tmp_path / 'two'}"])
    assert_same(tmp_path / "one", tmp_path / "two")
    shares = [tuple(map(int, (tmp_path / f"{rank}.txt").read_text().split())) for rank in (0, 1)]
    (first, all_of_it), (second, _) = shares
    assert first + second == all_of_it and first < 0.6 * all_of_it
