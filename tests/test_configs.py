"""Every file in configs/ is instantiated and trained for two steps at its own class paths, shrunk
to a toy.
"""

import csv
import math
import re

import pytest
import torch
import yaml
from tiny import CONFIGS, LINE, configs, refused, text_files, toy, words

from textdiff.commands.cli import main
from textdiff.data import BPE, Files
from textdiff.model.folder import load
from textdiff.samplers import Sampler
from textdiff.training import configs as named

MODELS = sorted(path.stem for path in CONFIGS.glob("model/*.yaml"))


def resolved(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def metrics(run):
    with next(run.glob("logs/version_*/metrics.csv")).open(newline="") as file:
        return list(csv.DictReader(file))


def lines(path, count=12):
    path.write_text(LINE * count)
    return path


@pytest.mark.parametrize("model", MODELS)
def test_a_model_trains_and_begins_at_log_n(model, tmp_path):
    run = tmp_path / "run"
    main(
        [
            "fit",
            *configs("trainer/quick", f"model/{model}"),
            *text_files(lines(tmp_path / "a.txt")),
            *toy(run, limit_val_batches=1.0),
        ]
    )
    named, used = (
        yaml.safe_load((CONFIGS / "model" / f"{model}.yaml").read_text())["model"],
        resolved(run)["model"],
    )
    for name, value in named.items():
        path = value if isinstance(value, str) else value["class_path"]
        assert used[name]["class_path"] == path
        for argument, given in ({} if isinstance(value, str) else value["init_args"]).items():
            assert name == "network" or used[name]["init_args"][argument] == given
    rows = metrics(run)
    assert [row["step"] for row in rows if row["loss"]] == ["0", "1"]
    values = [float(row["val/nelbo"]) for row in rows if row["val/nelbo"]]
    N = load(run).network.num_tokens
    noise = (
        2.0 if model == "gidd" else 0.3
    )  # one draw of 65 short rows; test_evaluation has the exact statement
    assert len(values) == 2 and all(abs(value - math.log(N)) < noise for value in values)


def test_the_models_differ_in_their_choices_only():
    """The files share everything but class paths and the arguments of those classes."""
    kinds = {}
    for model in MODELS:
        found = yaml.safe_load((CONFIGS / "model" / f"{model}.yaml").read_text())
        assert list(found) == ["model"]
        assert set(found["model"]) - {"estimator"} == {
            "process",
            "hyperschedule",
            "objective",
            "network",
        }
        network = found["model"]["network"]
        assert network["class_path"] == "textdiff.network.Transformer"
        assert {**network["init_args"], "layout": None} == {
            "layers": 4,
            "width": 128,
            "heads": 4,
            "layout": None,
        }
        kinds[model] = str(found["model"])
    assert len(set(kinds.values())) == len(MODELS) >= 6
    assert {"ar", "mdlm", "udlm", "gidd", "gamma", "epsilon"} <= set(MODELS)


def test_tinyshakespeare_and_the_quick_trainer_need_nothing_else(tmp_path):
    run = tmp_path / "run"
    main(["fit", *configs("trainer/quick", "data/tinyshakespeare", "model/epsilon"), *toy(run)])
    assert resolved(run)["data"]["corpus"]["class_path"] == "textdiff.data.TinyShakespeare"
    assert load(run).network.num_tokens == 67


def test_text_files(tmp_path):
    run, path = tmp_path / "run", lines(tmp_path / "my.txt", 60)
    main(
        [
            "fit",
            *configs("trainer/quick", "data/text_files", "model/mdlm"),
            *toy(run),
            f"--data.corpus.train={path}",
        ]
    )
    data = resolved(run)["data"]
    assert (data["corpus"]["class_path"], data["tokenizer"]["class_path"]) == (
        "textdiff.data.Files",
        "textdiff.data.BPE",
    )


def test_hub_with_a_local_data_set_and_tokenizer(tmp_path):
    """The Hub's place is taken by folders: the class paths and everything else stay."""
    for split, count in (("train", 30), ("validation", 4), ("test", 4)):
        (tmp_path / "set").mkdir(exist_ok=True)
        lines(tmp_path / "set" / f"{split}.txt", count)
    BPE(270).build(Files(str(tmp_path / "set" / "train.txt"))).save_pretrained(
        tmp_path / "tokenizer"
    )
    run = tmp_path / "run"
    data = {
        "corpus.path": tmp_path / "set",
        "corpus.config": "null",
        "corpus.revision": "null",
        "cache_dir": tmp_path / "cache",
    }
    data |= {"tokenizer.name_or_path": tmp_path / "tokenizer"}
    main(
        [
            "fit",
            *configs("trainer/quick", "data/hub", "model/gamma"),
            *toy(run),
            *words(data, "data."),
        ]
    )
    used = resolved(run)["data"]
    assert (
        used["corpus"]["class_path"] == "textdiff.data.HubDataset" and used["documents"] == "joined"
    )
    assert used["tokenizer"]["class_path"] == "textdiff.data.PretrainedTokenizer"
    assert len(list((tmp_path / "cache").iterdir())) == 2  # train and validation, packed


def test_the_full_trainer_resolves_its_interpolations(tmp_path):
    run = tmp_path / "run"
    text = text_files(lines(tmp_path / "a.txt"))
    main(
        [
            "fit",
            *configs("trainer/full", "model/epsilon"),
            *text,
            *toy(run, val_check_interval=3, precision="bf16-mixed"),
        ]
    )
    used = resolved(run)
    assert (
        used["checkpoint"]["every_n_train_steps"] == used["trainer"]["val_check_interval"] == 3
    )  # follows the command line
    assert used["trainer"]["accumulate_grad_batches"] == 2
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_interpolation_across_files(tmp_path, capsys):
    (tmp_path / "one.yaml").write_text("data:\n  length: 16\n  batch_size: 4\n")
    (tmp_path / "two.yaml").write_text(
        "model:\n  warmup: ${data.batch_size}\ntrainer:\n  log_every_n_steps: ${model.warmup}\n"
    )
    text, two = (
        text_files(lines(tmp_path / "a.txt")),
        ["--config", str(tmp_path / "one.yaml"), "--config", str(tmp_path / "two.yaml")],
    )
    small = [
        word
        for word in toy(tmp_path / "run")
        if not any(name in word for name in ("log_every", "batch_size", "warmup", "max_steps"))
    ]
    small.append("--trainer.max_steps=6")
    command = ["fit", *configs("trainer/quick", "model/mdlm"), *two, *text, *small]
    for extra, expected in (([], 4), (["--data.batch_size=5"], 5)):
        run = tmp_path / f"run{expected}"
        main([*command, *extra, f"--trainer.default_root_dir={run}"])
        used = resolved(run)
        assert used["model"]["warmup"] == used["trainer"]["log_every_n_steps"] == expected
    (tmp_path / "two.yaml").write_text("model:\n  warmup: ${data.nothing}\n")
    assert "data.nothing" in refused(capsys, command)


# ------------------------------------------------------------------------------------------- names


def test_configs_are_taken_by_name(tmp_path):
    run = tmp_path / "run"
    names = ["--config", "quick", "--config=data/tinyshakespeare", "--config", "gamma"]
    main(["fit", *names, *toy(run)])
    used = resolved(run)
    assert used["model"]["process"]["class_path"] == "textdiff.process.GammaHybrid"
    assert used["data"]["corpus"]["class_path"] == "textdiff.data.TinyShakespeare"
    assert used["trainer"]["gradient_clip_val"] == 1.0


def test_names_are_those_of_the_files():
    paths = [path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.y*")]
    found = {path.with_suffix("").as_posix() for path in paths if path.parts[0] != "serve"}
    assert set(named.names()) == found
    assert all(named.path_of(name) == CONFIGS / f"{name}.yaml" for name in found)


def test_a_path_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gamma").write_text("model: {lr: 1}\n")
    assert named.resolved(["fit", "--config", "gamma"]) == ["fit", "--config", "gamma"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("gama", "no config file 'gama': give a path, or one of adapt/ar, .*model/gamma"),
        ("../model/gamma", "no config file"),
        ("ar", "several configs 'ar': say adapt/ar or model/ar"),
    ],
)
def test_a_name_that_is_none_is_refused(name, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, refused(capsys, ["fit", "--config", name, *toy(tmp_path / "run")]))


def test_class_paths_that_no_longer_import_are_replaced():
    old = (
        "model:\n"
        "  process: textdiff.noising.old.GammaHybrid  # textdiff.process.GammaHybrid then\n"
        "  network: {class_path: textdiff.nets.Transformer}\n"
        "  sampler:\n"
        "    class_path: textdiff.samplers.confidence.Confidence\n"
        "    init_args: {score: textdiff.samplers.old.Margin}\n"
        "trainer: {default_root_dir: runs/textdiff.old, x: textdiff.nope.Nope, y: mine.old.Own}\n"
    )
    new = old.replace("textdiff.noising.old.GammaHybrid", "textdiff.process.GammaHybrid")
    new = new.replace("textdiff.nets.Transformer", "textdiff.network.Transformer")
    new = new.replace("textdiff.samplers.old.Margin", "textdiff.samplers.Margin")
    assert named.replaced(old) == new and named.replaced(new) == new

    own = type("Own", (Sampler,), {"__module__": "mine.new"})
    assert named.replaced(old, [own]) == new.replace("mine.old.Own", "mine.new.Own")


def test_a_config_of_modules_that_have_moved_is_trained(tmp_path):
    """What was written by another version trains as it is, with the values that it names."""
    old = tmp_path / "config.yaml"
    text = (CONFIGS / "model" / "gamma.yaml").read_text()
    old.write_text(text.replace("textdiff.process.", "textdiff.of_old.noise."))
    run = tmp_path / "run"
    words = [*configs("trainer/quick"), f"--config={old}", *text_files(lines(tmp_path / "a.txt"))]
    main(["fit", *words, *toy(run)])
    process = resolved(run)["model"]["process"]
    assert process == {
        "class_path": "textdiff.process.GammaHybrid",
        "init_args": process["init_args"],
    }
    assert process["init_args"]["gamma"] == 0.05
