"""`--model.init_from`: the weights of a folder, a checkpoint or an exported folder; what does not
fit is refused by name.
"""

import json
import shutil

import pytest
import tiny
import torch
import yaml

import textdiff
from textdiff.commands.cli import main
from textdiff.model.checkpoint import network_state

STILL = ["--model.lr=0", "--model.weight_decay=0"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return textdiff.export(tiny.run(), tmp_path_factory.mktemp("exported") / "out")


def words(command, to, source, *extra):
    """A config that states no network: the process of the source, all else Lightning's."""
    shape = tiny.words(tiny.SHAPE, "model.network.")
    small = [word for word in tiny.toy(to) if word not in shape]
    start = [
        command,
        *tiny.configs("trainer/quick"),
        "--model.process=textdiff.process.EpsilonHybrid",
        *tiny.text_files(tiny.text()),
    ]
    return [*start, *small, f"--model.init_from={source}", *extra]


def weights(run):
    return textdiff.load(run).network.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["folder", "checkpoint", "exported"])
def test_it_begins_with_just_these_weights(kind, exported, tmp_path):
    """With a learning rate of 0 they come out again, bit for bit but for the average's rounding;
    the shape is the source's.
    """
    source = {
        "folder": tiny.run(),
        "checkpoint": tiny.run() / "checkpoints" / "last.ckpt",
        "exported": exported,
    }[kind]
    more = (
        ["--model.num_tokens=32"] if kind == "exported" else []
    )  # then the network is built before the data are there
    main(words("fit", tmp_path / "run", source, *STILL, *more))
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert same(network_state(checkpoint["current_model_state"]), weights(tiny.run()))
    averaged, source_weights = weights(tmp_path / "run"), weights(tiny.run())
    assert all(
        torch.allclose(averaged[name], source_weights[name], rtol=1e-6, atol=1e-9)
        for name in averaged
    )
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]
    assert written["init_from"] == str(source) and written["network"]["init_args"]["width"] == 16


def test_train_export_load_evaluate(exported, tmp_path, capsys, monkeypatch):
    """The same bound of the run, the exported folder and a training that begins from it.

    The folder names its text without saying where it was: it is looked for here.
    """
    monkeypatch.chdir(tiny.text().parent)
    copy, found = shutil.copytree(tiny.run(), tmp_path / "copy"), []
    for run in (copy, exported):
        main(
            [
                "evaluate",
                "perplexity",
                str(run),
                "--draws",
                "2",
                "--output",
                str(tmp_path / "x.json"),
            ]
        )
        found.append(json.loads((tmp_path / "x.json").read_text())["bounds"])
    assert found[0] == found[1]
    lines = []
    for extra in (
        [
            f"--ckpt_path={tiny.run()}/checkpoints/last.ckpt",
            "--model.init_from=null",
            *shape(layers=1),
        ],
        [],
    ):
        capsys.readouterr()
        main(words("validate", tmp_path / "none", exported, *extra))
        lines.append([line for line in capsys.readouterr().out.splitlines() if "val/" in line])
    assert lines[0] == lines[1] and len(lines[0]) == 3


def shape(**changed):
    return [
        "--model.network=textdiff.network.Transformer",
        *tiny.words(tiny.SHAPE | changed, "model.network."),
    ]


def test_it_goes_on_from_there_and_resumes(exported, tmp_path):
    """Interrupted and resumed equals uninterrupted, even though the source is gone by then."""
    source = shutil.copytree(exported, tmp_path / "source")
    extra = [
        "--model.lr=0.02",
        "--model.warmup=1",
        "--checkpoint.every_n_train_steps=1",
        "--checkpoint.save_top_k=-1",
    ]
    main(words("fit", tmp_path / "run", source, *extra, "--trainer.max_steps=4"))
    whole = weights(tmp_path / "run")
    assert not same(whole, weights(source))
    shutil.rmtree(source)
    config = tmp_path / "run" / "config.yaml"
    main(["fit", "--config", str(config), f"--ckpt_path={tmp_path}/run/checkpoints/step-2.ckpt"])
    assert same(weights(tmp_path / "run"), whole)
    assert yaml.safe_load(config.read_text())["model"]["init_from"] == str(source)


def other_tokenizer(folder):
    text = folder / "other.txt"
    text.write_text(tiny.LINE.upper() * 12)
    return tiny.text_files(text)


@pytest.mark.parametrize(
    "extra, message",
    [
        (
            shape(layers=2),
            "holds another network: layers 1 here 2; state the same, or leave model.network out",
        ),
        (
            shape(width=32, heads=4, layout="shifted"),
            "width 16 here 32, heads 2 here 4, shifted False here True",
        ),
        (shape(heads=1), "heads 2 here 1"),  # the same weights, used in another way
        (["--model.process=textdiff.process.GammaHybrid"], "conditioned False here True"),
        (["--model.init_from=nowhere"], "there is no model folder 'nowhere'"),
    ],
)
def test_what_does_not_fit(extra, message, exported, tmp_path, capsys):
    assert message in tiny.refused(capsys, words("fit", tmp_path / "run", exported, *extra))
    assert not (tmp_path / "run").exists()


def test_another_tokenizer(exported, tmp_path, capsys):
    said = tiny.refused(
        capsys, words("fit", tmp_path / "run", exported, *other_tokenizer(tmp_path))
    )
    assert "has another tokenizer" in said and "textdiff.data.PretrainedTokenizer" in said
    assert not (tmp_path / "run").exists()
    own = [
        "--data.tokenizer=textdiff.data.PretrainedTokenizer",
        f"--data.tokenizer.name_or_path={exported}",
    ]
    main(
        words("fit", tmp_path / "run", exported, *other_tokenizer(tmp_path), *own, *STILL)
    )  # the remedy that was named
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert same(network_state(checkpoint["current_model_state"]), weights(exported))


def test_log_scores_are_no_cavity_logits(tmp_path, capsys):
    source = tiny.run("gamma_score")
    process = ["--model.process=textdiff.process.GammaHybrid", "--model.process.gamma=0.05"]
    said = tiny.refused(capsys, words("fit", tmp_path / "run", source, *process))
    assert "predicts log_score here cavity" in said
