"""Lines of progress where there is no terminal, and none where the config says so."""

import re

import tiny

from textdiff.training.callbacks import clock

LINE = re.compile(
    r"step +(\d+)/20 +(\d+) %  loss (\d+\.\d+)(  val/nelbo \d+\.\d+)?  (\d+:\d\d) left"
)


def lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]


def test_a_log_gets_a_line_every_tenth(tmp_path, capsys):
    run = tiny.fit(
        tmp_path / "run",
        max_steps=20,
        val_check_interval=10,
        enable_progress_bar="null",
    )
    found = [LINE.fullmatch(line) for line in lines(capsys)]
    assert [int(match[1]) for match in found] == list(range(2, 21, 2))
    assert [int(match[2]) for match in found] == list(range(10, 101, 10))
    assert [match[4] is not None for match in found] == [False] * 5 + [True] * 5
    assert found[-1][5] == "0:00"

    last = str(run / "checkpoints" / "last.ckpt")
    tiny.fit(run, f"--ckpt_path={last}", max_steps=22, enable_progress_bar="null")
    assert [line[:11] for line in lines(capsys)] == ["step 22/22 "]


def test_no_lines_without_a_progress_bar(tmp_path, capsys):
    tiny.fit(tmp_path / "run")
    assert not lines(capsys)


def test_a_clock():
    assert clock(59.6) == "1:00"
    assert clock(3599.7) == "1:00:00"
