"""What `predict` shows and what it keeps."""

import json
import sys
from types import SimpleNamespace

import pytest
from lightning.pytorch.cli import LightningCLI

from textdiff.training import cli

TEXT = "a\x1b[2J\rb\n\tc"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_does_not_obey_what_was_drawn(terminal, tmp_path, capsys, monkeypatch):
    (made,) = [
        x
        for x in vars(cli).values()
        if isinstance(x, type) and issubclass(x, LightningCLI) and hasattr(x, "after_predict")
    ]
    trainer = SimpleNamespace(
        predict_loop=SimpleNamespace(predictions=[[TEXT]]),
        is_global_zero=True,
        default_root_dir=str(tmp_path),
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    made.after_predict(SimpleNamespace(trainer=trainer))
    shown = capsys.readouterr().out
    assert shown == ("a␛[2J␍b\n\tc\n" if terminal else TEXT + "\n")
    assert json.loads((tmp_path / "predictions.jsonl").read_text()) == TEXT
