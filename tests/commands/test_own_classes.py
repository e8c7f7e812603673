"""A process, a hyperschedule and a sampler of the user's own: trained by class path, opened again.

What the user imports is hers to run; a file never decides.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny
import torch

import textdiff
from textdiff.commands.cli import main
from textdiff.training.module import TextDiffusion

MODULE = "my_own_classes"
SOURCE = '''
from dataclasses import dataclass
import torch
from textdiff.hyperschedule import Hyperschedule
from textdiff.process import Clock, Process
from textdiff.samplers import Ancestral

@dataclass(frozen=True)
class Late(Process):
    """Masks late: m = t^power, and no other noise."""
    power: float = 2.0

    @property
    def corrupts(self):
        return False

    def _clock(self, t):
        zero, p = torch.zeros_like(t), self.power
        return Clock(t**p, p * t ** (p - 1), zero, zero - torch.inf, zero, zero)

@dataclass(frozen=True)
class EvenFirst(Hyperschedule):
    """Even positions, then odd ones."""
    levels: int = 2

    @property
    def T(self):
        return self.levels

    def start(self, L):
        return self.levels * (torch.arange(L) % 2)

@dataclass(frozen=True)
class Gentle(Ancestral):
    """Ancestral under another name, with an option."""
    care: float = 0.5
'''
CHOICES = [
    *("--model.process", f"{MODULE}.Late", "--model.process.power=3"),
    *("--model.hyperschedule", f"{MODULE}.EvenFirst", "--model.hyperschedule.levels=2"),
    *("--model.sampler", f"{MODULE}.Gentle"),
]
REMEDY = "pass the class yourself, as classes=[Late] in Python or with --import MODULE"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's module and the run that was trained with it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.chdir(folder)
        tiny.fit(Path("run"), *CHOICES, model="gamma")
    return folder


@pytest.fixture
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In that folder, as the installed command starts: the folder is not on the path."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(workplace)])
    monkeypatch.chdir(workplace)


def moved(run: Path) -> list[str]:
    """Words that train in a copy of the run: paths in its config.yaml are those of the run."""
    words = ["--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoints/last.ckpt"]
    words += [f"--trainer.default_root_dir={run}", f"--checkpoint.dirpath={run}/checkpoints"]
    return [*words, "--trainer.max_steps=3"]


def own(*names: str) -> list[type]:
    """Classes of the user's module."""
    return [getattr(importlib.import_module(MODULE), name) for name in names]


pytestmark = pytest.mark.usefixtures("inside")


def test_the_run_names_her_classes():
    written = json.loads(Path("run/config.json").read_text())["textdiff"]
    process = {"class_path": f"{MODULE}.Late", "init_args": {"power": 3.0}}
    assert written["process"] == process
    assert written["hyperschedule"]["class_path"] == f"{MODULE}.EvenFirst"


@pytest.mark.parametrize("source", ["run", "run/checkpoints/last.ckpt"])
def test_python_opens_it_with_the_classes(source):
    Late, EvenFirst, Gentle = own("Late", "EvenFirst", "Gentle")
    model = textdiff.load(source, classes=[Late, EvenFirst])
    assert model.process == Late(3.0)
    assert model.hyperschedule == EvenFirst(2)
    first = model.generate("the", sampler=Gentle(), seed=1).texts
    assert first == model.generate("the", seed=1).texts
    for classes in ([], [EvenFirst]):
        with pytest.raises(ValueError, match=r"'my_own_classes\.Late' is not a class of textdiff"):
            textdiff.load(source, classes=classes)


@pytest.mark.parametrize(
    "command",
    [
        ["sample", "run"],
        ["sample", "run/checkpoints/last.ckpt"],
        ["evaluate", "perplexity", "run"],
        ["evaluate", "lambada", "run"],
        ["evaluate", "samples", "run"],
        ["export", "run", "out"],
        ["push", "run", "me/run", "--dry-run"],
        ["fit", *tiny.configs("trainer/quick", "model/gamma"), "--model.init_from=run"],
    ],
    ids=" ".join,
)
def test_no_command_opens_it_without(command, capsys, tmp_path):
    if command[0] == "fit":
        command = [*command, *tiny.text_files(tiny.text()), *tiny.toy(tmp_path / "never")]
    assert REMEDY in tiny.refused(capsys, command)
    assert not Path("out").exists() and not (tmp_path / "never").exists()


def test_sample_draws_with_her_sampler_and_schedule(capsys, tmp_path):
    output = tmp_path / "drawn.json"
    options = ["--sampler", "Gentle(0.2)", "--hyperschedule", "EvenFirst(3)"]
    main(["sample", "run", "--import", MODULE, *options, "--output", str(output)])
    settings = json.loads(output.read_text())["settings"]
    assert settings["sampler"] == "Gentle(care=0.2)"
    assert settings["hyperschedule"] == "EvenFirst(levels=3)"


def test_it_is_measured(tmp_path):
    output = tmp_path / "measured.json"
    words = ["--limit", "2", "--draws", "2", "--output", str(output)]
    main(["evaluate", "perplexity", "run", f"--import={MODULE}", *words])
    (bound,) = json.loads(output.read_text())["bounds"]
    assert bound["name"] == "NELBO" and 0 < bound["nats"] < 10


def test_it_travels_and_says_what_it_needs(tmp_path):
    out = tmp_path / "out"
    main(["export", "run", str(out), "--import", MODULE])
    card = (out / "README.md").read_text()
    assert f"from {MODULE} import Late\n" in card and "classes=[EvenFirst, Late]" in card
    assert f"textdiff sample {out} --num-return-sequences 2 --import {MODULE}\n" in card
    textdiff.load(out, verify=True, classes=own("Late", "EvenFirst"))
    assert not list(out.rglob("*.py"))  # her code stays at home


def test_the_training_goes_on(tmp_path):
    run = shutil.copytree("run", tmp_path / "run")
    main(["fit", *moved(run)])
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3


def test_a_run_whose_module_has_moved_goes_on(tmp_path):
    """Her classes are found by name among those that she imports."""
    run = shutil.copytree("run", tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(f"{MODULE}.", "an_older_module.inside."))
    main(["fit", *moved(run), "--import", MODULE])
    assert f"class_path: {MODULE}.Late" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("process", ["textdiff.process.GammaHybrid", f"{MODULE}.Late"])
def test_another_training_begins_from_it(process, tmp_path):
    """Her config names her process, or her command line imports it."""
    words = [*tiny.configs("trainer/quick", "model/gamma"), *tiny.text_files(tiny.text())]
    words += [*tiny.toy(tmp_path / "new"), "--model.init_from=run", f"--model.process={process}"]
    if process.startswith(MODULE):
        words += ["--model.hyperschedule", f"{MODULE}.EvenFirst"]
    else:
        words += ["--import", MODULE]
    main(["fit", *words])
    kept = json.loads((tmp_path / "new" / "config.json").read_text())["textdiff"]["process"]
    assert kept["class_path"] == process


def test_python_begins_from_an_open_model():
    Late, EvenFirst = own("Late", "EvenFirst")
    model = textdiff.load("run", classes=[Late, EvenFirst])
    assert TextDiffusion(Late(), init_from=model).origin is model


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.inside"])
def test_a_module_that_is_not_there_is_named(name, capsys):
    told = tiny.refused(capsys, ["sample", "run", "--import", name])
    assert f"No module named '{name.partition('.')[0]}'" in told
