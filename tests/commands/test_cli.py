"""The `textdiff` command: its sub-commands on a toy, and every user error as exit code 2 and one
line.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from lightning.pytorch.accelerators import CUDAAccelerator

import textdiff
from textdiff.commands.cli import main

COMMAND = Path(sys.executable).parent / "textdiff"


def sample(capsys, *words, run="epsilon"):
    capsys.readouterr()
    main(["sample", str(tiny.run(run)), *words])
    return capsys.readouterr()


def lightning(command, to, *words):
    start = [
        command,
        *tiny.configs("trainer/quick", "model/epsilon"),
        *tiny.text_files(tiny.text()),
        *tiny.toy(to),
    ]
    return [*start, *words]


def checkpoint():
    return ["--ckpt_path", str(tiny.run() / "checkpoints" / "last.ckpt")]


# --- help


def test_help_and_version_are_quick():
    """They import nothing that takes time."""
    program = (
        "import sys; from textdiff.commands.cli import main; main(sys.argv[1:]); "
        "sys.stderr.write(' '.join(sys.modules))"
    )
    for word, expected in (
        ("--help", "usage: textdiff COMMAND"),
        ("--version", f"textdiff {textdiff.__version__}"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, word], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(expected)
        assert not {"torch", "lightning", "transformers", "numpy", "jsonargparse"} & set(
            done.stderr.split()
        )


def test_the_installed_command():
    done = subprocess.run([COMMAND, "fly"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "textdiff: error: unknown command 'fly': see textdiff --help\n"
    assert subprocess.run([COMMAND], capture_output=True, text=True, check=True).stdout.startswith(
        "usage: textdiff COMMAND"
    )


def test_a_defect_shows_its_traceback(monkeypatch):
    def broken(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("textdiff.commands.sample.main", broken)
    with pytest.raises(ZeroDivisionError):
        main(["sample"])


def test_a_traceback_on_request(monkeypatch):
    monkeypatch.setenv("TEXTDIFF_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown command"):
        main(["fly"])


@pytest.mark.parametrize(
    "words", [["sample", "--help"], ["evaluate", "perplexity", "--help"], ["fit", "--help"]]
)
def test_help_of_the_commands(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0 and "usage: " in capsys.readouterr().out


# --- sample


def test_prompt_seed_and_batch(capsys):
    first = sample(capsys, "--prompt", "the ", "--num-return-sequences", "3")
    assert first.out.count("--- sample ") == 3 and first.out.startswith("--- sample 0\nthe ")
    assert "3 samples, Ancestral(), Flat(levels=64)" in first.err and "tokens/s" in first.err
    assert (
        sample(capsys, "--prompt", "the ", "--num-return-sequences", "3", "--batch-size", "2").out
        == first.out
    )
    assert (
        sample(capsys, "--prompt", "the ", "--num-return-sequences", "3", "--seed", "1").out
        != first.out
    )
    both = sample(capsys, "--prompt", "the ", "--prompt", "fox [MASK][MASK]mps")
    assert "\n--- sample 1\nfox " in both.out


def test_samplers_schedules_and_json(capsys, tmp_path):
    for name in ("ACS(rate=2.0)", "ACS(eta=0.1)", "PublishedACS(eta=0.1)", "Ancestral"):
        assert "[MASK]" not in sample(capsys, "--sampler", name).out
    path = tmp_path / "deep" / "x.json"
    found = sample(
        capsys,
        "--hyperschedule",
        "Block(4, 4)",
        "--temperature",
        "0.7",
        "--max-length",
        "8",
        "--output",
        str(path),
    )
    assert "textdiff: warning: this model was trained under Flat(levels=64)" in found.err
    written = json.loads(path.read_text())
    (text,) = written["samples"]  # running text, its EOS written out
    shown = text.replace(written["eos"], "")
    assert shown in found.out and len(shown) <= 8
    settings = written["settings"]
    assert (
        settings["hyperschedule"] == "Block(width=4, levels=4, block_causal=False)"
        and settings["sampler"] == "Ancestral()"
    )
    assert settings["temperature"] == 0.7 and written["seed"] == 0
    assert written["weights_sha256"] and written["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--prompt", "the quick", "--max-length", "4"],
            "the prompt and suffix have 9 tokens but max_length is 4",
        ),
        (["--max-length", "0"], "max_length must be an integer >= 1, got 0"),
        (["--num-return-sequences", "0"], "num_return_sequences must be an integer >= 1"),
        (["--batch-size", "0"], "--batch-size must be >= 1"),
        (["--temperature", "0"], "temperature must be > 0"),
        (["--sampler", "Gibbs"], "unknown sampler 'Gibbs': expected a Sampler"),
        (["--sampler", "ACS"], "ACS takes either eta"),
        (["--sampler", "ACS(beta=1)"], "takes no argument beta"),
        (["--hyperschedule", "Flat(0)"], "levels must be an integer >= 1"),
        (["--hyperschedule", "Wave(3)"], "unknown hyperschedule 'Wave'"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["--num", "1"], "unrecognized arguments: --num"),
        (["--max-new-tokens", "3", "--max-length", "9"], "both say how long a text is"),
        (["--output", "x.doc"], "the ending says what is written"),
        (
            ["--max-denoising-steps", "4", "--hyperschedule", "Slide(4, 1)"],
            "which Slide(width=4, rate=1) derives",
        ),
        (["--seed", "x"], "invalid int value"),
        (["--device", "nope"], "--device nope cannot be used"),
    ],
)
def test_errors_of_sample(words, message, capsys):
    assert message in tiny.refused(capsys, ["sample", str(tiny.run()), *words])


def test_what_a_model_does_not_take(capsys):
    assert "predicts 'log_score'" in tiny.refused(capsys, ["sample", str(tiny.run("gamma_score"))])
    assert "never wrong" in tiny.refused(
        capsys, ["sample", str(tiny.run("mdlm")), "--sampler", "ACS(eta=0.1)"]
    )
    assert "use ACS(rate=...)" in tiny.refused(
        capsys, ["sample", str(tiny.run("udlm")), "--sampler", "ACS(eta=0.1)"]
    )
    assert "there is no model folder" in tiny.refused(capsys, ["sample", "nowhere"])
    assert "required: RUN" in tiny.refused(capsys, ["sample"])


def test_autoregressive_samples(capsys):
    assert sample(capsys, "--prompt", "the ", run="ar").out.startswith("--- sample 0\nthe ")


# --- Lightning's


def test_validate_and_test(capsys, tmp_path, monkeypatch):
    """A GPU that is there and was not asked for is no reason to warn."""
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    for command, name in (("validate", "val/nelbo"), ("test", "test/nelbo")):
        capsys.readouterr()
        main(lightning(command, tmp_path / "run", *checkpoint()))
        found = capsys.readouterr()
        assert name in found.out and "warning" not in found.err
        assert not (tmp_path / "run").exists()  # measuring writes nothing


def test_a_run_is_measured_by_its_own_config(capsys, tmp_path):
    main(["validate", "--config", str(tiny.run() / "config.yaml"), *checkpoint()])
    assert "val/b2" in capsys.readouterr().out


def test_predict(capsys, tmp_path):
    (tmp_path / "in.txt").write_text("the [MASK][MASK]ick\nfox\nju[MASK]ps\n[MASK][MASK]\n")
    texts = []
    for size in (1, 3):
        words = [
            *checkpoint(),
            f"--data.predict={tmp_path / 'in.txt'}",
            f"--data.eval_batch_size={size}",
        ]
        main(lightning("predict", tmp_path / "run", *words))
        lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
        texts.append("".join(json.loads(line) + "\n" for line in lines))
        assert texts[-1] in capsys.readouterr().out
    assert texts[0] == texts[1]
    model = textdiff.load(tiny.run())
    assert "[MASK]" not in texts[0] and texts[0].startswith("the ") and "ick\nfox\nju" in texts[0]
    expected = [
        model.generate("the [MASK][MASK]ick").texts[0],
        "fox",
        model.generate("ju[MASK]ps", first=2).texts[0],
    ]
    assert texts[0].startswith("".join(text + "\n" for text in expected))
    main(
        lightning(
            "predict",
            tmp_path / "run",
            *words,
            "--model.sampler=textdiff.samplers.ACS",
            "--model.sampler.rate=4",
        )
    )


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "predict needs texts with [MASK] to fill"),
        (["--data.predict=nope.txt"], "cannot read 'nope.txt'"),
        (["--data.predict=empty.txt"], "holds no text"),
        (["--data.predict=empty.txt", "--ckpt_path=null"], "predict needs a trained network"),
    ],
)
def test_errors_of_predict(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    assert message in tiny.refused(
        capsys, lightning("predict", tmp_path / "run", *checkpoint(), *words)
    )
    assert not (tmp_path / "run").exists()


FIT_ERRORS = [
    (["--data.corpus.train=nope.txt"], "no file matches 'nope.txt'"),
    (["--data.corpus.validation=nope.txt"], "no file matches 'nope.txt'"),
    (["--data.corpus.train=empty.txt"], "holds no text"),
    (["--data.corpus.train=bad.txt"], "is not UTF-8"),
    (["--data.corpus.train=short.txt"], "fewer than a batch of 4"),
    (["--data.corpus.train=a.doc"], "unknown kind of file"),
    (["--data.length=0"], "length must be at least 1"),
    (["--data.batch_size=0"], "batch_size must be at least 1"),
    (["--model.process.epsilon=1.5"], "epsilon must lie in [0, 1)"),
    (
        ["--model.process=textdiff.process.Uniform"],
        "weighted cross-entropy is defined for masking processes",
    ),
    (
        ["--model.hyperschedule=textdiff.hyperschedule.Slide", "--model.hyperschedule.width=4"],
        "mask-count conditioning holds where windows never overlap",
    ),
    (["--model.network.width=15"], "width must be a multiple of 2 * heads"),
    (["--model.lr=-1"], "lr must be >= 0"),
    (["--trainer.max_epochs=-1", "--trainer.max_steps=-1"], "set trainer.max_steps"),
    (["--ckpt_path=nope.ckpt"], "nope.ckpt"),
    (["--ckpt_path=bad.txt"], "bad.txt cannot be read as a checkpoint"),
    (["--ckpt_path=foreign.ckpt"], "not one that textdiff wrote"),
    (["--config=interpolation.yaml"], "trainer.nothing"),
]


@pytest.mark.parametrize(
    "words, message", FIT_ERRORS, ids=[" ".join(words) for words, _ in FIT_ERRORS]
)
def test_errors_of_fit_leave_nothing_behind(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "a.doc").write_text("x")
    (tmp_path / "short.txt").write_text("abc")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfeabc")
    (tmp_path / "interpolation.yaml").write_text("model:\n  lr: ${trainer.nothing}\n")
    torch.save(
        {"state_dict": {}, "pytorch-lightning_version": "2.6.0", "loops": {}},
        tmp_path / "foreign.ckpt",
    )
    before = sorted(tmp_path.rglob("*"))
    said = tiny.refused(capsys, lightning("fit", tmp_path / "run", *words))
    assert said.startswith("textdiff: error: ") and message in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words, message",
    [
        (["--model.nope=1"], "no option --model.nope: did you mean"),
        (
            ["--trainer.max_step=1"],
            "no option --trainer.max_step: did you mean --trainer.max_steps?",
        ),  # no abbreviations
        (
            ["--model.process=textdiff.process.Nope"],
            "there is no class textdiff.process.Nope; known: Absorbing",
        ),
        (
            ["--model.process=textdiff.hyperschedule.Flat"],
            "textdiff.hyperschedule.Flat is no class for this option; known: Absorbing",
        ),
        (["--model.process.epsilon=x"], "Got value: x"),
        (["--config=nope.yaml"], "there is no config file 'nope.yaml': give a path, or one of"),
    ],
)
def test_usage_errors_of_fit(words, message, capsys, tmp_path):
    """These are jsonargparse's own: usage, and an error that may take some lines."""
    with pytest.raises(SystemExit) as stop:
        main(lightning("fit", tmp_path / "run", *words))
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_no_checkpoint_is_trusted(capsys, tmp_path):
    words = ["--ckpt_path=https://127.0.0.1:9/x.ckpt", "--weights_only=false"]
    assert "would run code from a checkpoint" in tiny.refused(
        capsys, lightning("fit", tmp_path / "run", *words)
    )


def test_a_failed_resume_keeps_the_run(capsys, tmp_path):
    """What is there already stays, also when a later training cannot begin."""
    run = tiny.fit(tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert "lr must be >= 0" in tiny.refused(
        capsys, lightning("fit", run, "--model.lr=-1", f"--ckpt_path={run}/checkpoints/last.ckpt")
    )
    changed = {
        path.name
        for path in run.rglob("*")
        if path.is_file() and before.get(path) != path.read_bytes()
    }
    assert changed <= {"config.yaml"}
    textdiff.load(run)


def test_times_outside_of_0_and_1():
    from textdiff.process import EpsilonHybrid

    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\], got values from -1 to 2"):
        EpsilonHybrid().clock(torch.tensor([-1.0, 2.0]))


def test_the_real_command_trains_and_samples(tmp_path):
    """Once through the console script, in processes of their own."""
    environment = {**os.environ, "COLUMNS": "200"}
    words = lightning("fit", tmp_path / "run")
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower() and "Tip" not in done.stderr
    done = subprocess.run(
        [COMMAND, "sample", str(tmp_path / "run"), "--sampler", "Nope"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(
        "textdiff: error: unknown sampler 'Nope'"
    )
    assert done.stderr.count("\n") == 1


def test_an_early_stop_on_nothing_is_one_line(tmp_path, capsys):
    stop = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"
    words = ["fit", *tiny.configs("trainer/quick", "model/mdlm"), *tiny.text_files(tiny.text())]
    words += [*tiny.toy(tmp_path / "run"), stop, "--trainer.callbacks.monitor=val/nothing"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    message = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "`val/nothing` which is not available" in message
    assert message.startswith("textdiff: error: Early stopping")


def test_options_in_front_of_a_config_are_warned_of(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.warmup=7", "--config", "quick", "--config", "nothing"])
    assert "--model.warmup stands in front of a --config" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "--config", "quick", "--config", "nothing", "--model.warmup=7"])
    assert "in front of" not in capsys.readouterr().err
