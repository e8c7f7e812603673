"""Errors of `textdiff fit` are one line that names what is known."""

import pytest
import tiny

QUICK = ["fit", *tiny.configs("trainer/quick", "data/tinyshakespeare", "model/gamma")]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--modle.lr=1"], "no option --modle.lr: did you mean --model.lr?"),
        (["--trainer.max_step", "3"], "no option --trainer.max_step: did you mean --trainer.max_s"),
        (
            ["--model.process=textdiff.process.Gama"],
            "class textdiff.process.Gama; known: Absorb",
        ),
        (["--model.process=Gama"], "there is no class Gama; known: Absorbing, EpsilonHybrid"),
        (["--model.network=textdiff.network.Former"], "known: Pretrained, Transformer"),
        (["--data.corpus=textdiff.data.File"], "known: Addition, Benchmark, Files, HubDataset"),
        (["--trainer.max_steps=x"], "trainer.max_steps"),
        (["--model.hyperschedule.levls=3"], "levls"),
    ],
    ids=str,
)
def test_one_line_with_what_is_known(words, told, capsys):
    assert told in tiny.refused(capsys, [*QUICK, *words])
