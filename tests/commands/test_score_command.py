"""`textdiff score`: the completions of a file, as `Model.score` has them."""

import json

import pytest
import tiny

import textdiff
from textdiff.commands.cli import main


@pytest.mark.parametrize("name", ["ar", "mdlm", "epsilon"])
def test_it_is_model_score(name, tmp_path, capsys):
    pairs = [
        {"prompt": "the ", "completion": "quick"},
        {"prompt": "the ", "completion": "lazy", "suffix": " dog"},
    ]
    file, output = tmp_path / "pairs.jsonl", tmp_path / "out.json"
    file.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    words = ["score", str(tiny.run(name)), "--input", str(file), "--output", str(output)]
    main([*words, "--draws=4", "--order=all"])
    model = textdiff.load(tiny.run(name))
    expected = model.score(
        ["the ", "the "], ["quick", "lazy"], suffix=["", " dog"], order=None, draws=4
    )
    written = json.loads(output.read_text())["scores"]
    assert [row["nats"] for row in written] == [one.nats for one in expected]
    assert [row["standard_error"] for row in written] == [one.standard_error for one in expected]
    shown = capsys.readouterr().out
    assert "quick" in shown and expected[0].law in shown
    assert ("exact: " in shown) == expected[0].exact


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", "line 1: not JSON"),
        ('{"prompt": "a"}', "line 1: an object with 'completion'"),
        ('{"completion": "a", "sufix": ""}', "line 1: an object with 'completion'"),
        ("", "holds no completion"),
    ],
)
def test_what_it_refuses(line, words, tmp_path, capsys):
    file = tmp_path / "pairs.jsonl"
    file.write_text(line)
    arguments = ["score", str(tiny.run("ar")), "--input", str(file)]
    assert words in tiny.refused(capsys, arguments)
