"""What `fit` and the commands write is whole, old or new, whenever they are killed."""

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import kills
import pytest
import tiny
import torch
import yaml
from lightning.pytorch.plugins.io import TorchCheckpointIO

from textdiff import files
from textdiff.commands import lambada, perplexity
from textdiff.commands.cli import main
from textdiff.training.whole_files import WholeFiles, use


def resume(run, steps):
    last = ["--ckpt_path", f"{run}/checkpoints/last.ckpt", f"--trainer.max_steps={steps}"]
    main(["fit", "--config", f"{run}/config.yaml", *last])


def test_config_yaml_is_whole_at_every_moment_of_a_resume(tmp_path):
    run = tiny.fit(tmp_path / "run")
    path = run / "config.yaml"
    before = path.read_bytes()
    seen = set()
    with kills.told(lambda *_: seen.add(path.read_bytes())):
        resume(run, 3)
    assert seen == {before, path.read_bytes()} and len(seen) == 2
    assert yaml.safe_load(path.read_text())["trainer"]["max_steps"] == 3


def in_place(folder, work):
    """Names of files in a folder that `work` opens to write where others would read them."""
    opened = set()

    def note(event, arguments):
        path = Path(os.fsdecode(arguments[0])).absolute() if event == "open" else Path("/")
        # (a folder is "opened" for a file without a name, by which a place is tried)
        if path.is_relative_to(folder) and not path.is_dir():
            parts = path.relative_to(folder).parts
            if not any(files.ASIDE.fullmatch(part) for part in parts):
                opened.add("/".join(parts))

    with kills.told(note):
        work()
    return opened


def test_nothing_is_written_in_place(tmp_path):
    run = tmp_path / "run"
    written = in_place(tmp_path, lambda: tiny.fit(run))
    # Lightning's logs are only ever appended to
    assert {name for name in written if not name.startswith("run/logs/")} == set()
    outputs = [f"--output={tmp_path}/out.{ending}" for ending in ("txt", "json", "jsonl", "html")]
    for command in (
        ["sample", str(run), "--max-length=8", *outputs],
        ["evaluate", "perplexity", str(run), "--draws=2", "--limit=2", "--plot"],
        ["report", str(run)],
        ["export", str(run), str(tmp_path / "out")],
    ):
        assert in_place(tmp_path, lambda command=command: main(command)) == set(), command
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run", "out", "out.txt", "out.json", "out.jsonl", "out.html"}


def test_checkpoints_need_no_temporary_folder(tmp_path, monkeypatch):
    """On another file system than the run, what is written there would be copied into place."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    run = tiny.fit(tmp_path / "run")
    assert (run / "checkpoints/last.ckpt").is_file()


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeFiles().save_checkpoint({"x": torch.zeros(3)}, path)

    def broken(checkpoint, file):
        file.write(b"half")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("enforce fail") from None

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match=r"No space left on device: .*last\.ckpt"):
        WholeFiles().save_checkpoint({"x": torch.ones(3)}, path)
    assert torch.equal(torch.load(path)["x"], torch.zeros(3))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_plugin_of_the_users_own_writes_checkpoints():
    class Own(TorchCheckpointIO):
        pass

    own = Own()
    for given, kind in ((own, Own), (TorchCheckpointIO(), WholeFiles)):
        trainer = SimpleNamespace(strategy=SimpleNamespace(checkpoint_io=given))
        use(trainer)
        assert type(trainer.strategy.checkpoint_io) is kind


@pytest.mark.parametrize("command", [perplexity, lambada])
def test_what_was_measured_is_printed_even_if_it_cannot_be_written(
    command, tmp_path, monkeypatch, capsys
):
    run = shutil.copytree(tiny.run(), tmp_path / "run")
    words = {perplexity: ["--draws=2", "--limit=2"], lambada: [f"--data-dir={tmp_path}"]}[command]
    if command is lambada:
        passages = ["the quick brown fox jumps", "pack my box with five"]
        corpus = type("C", (), {"documents": lambda *_: passages, "provenance": lambda *_: {}})
        monkeypatch.setattr(lambada, "Benchmark", lambda *_: corpus())

    def refuse(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(command, "write_json", refuse)
    with pytest.raises(OSError, match="No space left"):
        command.main([str(run), *words])
    said = capsys.readouterr().out
    assert {perplexity: "nats/token", lambada: "last word right: "}[command] in said


def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    for words in (
        ["fit", *tiny.configs("trainer/quick", "model/epsilon"), *tiny.toy(file / "run")],
        ["evaluate", "perplexity", str(tiny.run()), "--output", f"{file}/x.json"],
        ["evaluate", "samples", str(tiny.run()), "--judge=x", "--output", f"{file}/x.json"],
        ["sample", str(tiny.run()), "--output", f"{file}/x.json"],
    ):
        assert "cannot be written" in tiny.refused(capsys, words)
