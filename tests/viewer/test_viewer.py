"""The viewers: states of hand-made trajectories, the page as data, as JavaScript and in a browser,
the terminal on a pseudo-terminal.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import textdiff.viewer
from textdiff.generation import engine as generation
from textdiff.generation.samples import Trajectory
from textdiff.viewer import TokenState, Watcher, page, states
from textdiff.viewer.terminal import HIDE, SHOW, visible, width, wrap

N = 7
M = N
SCRIPT = (Path(textdiff.viewer.__file__).parent / "page.js").read_text(encoding="utf-8")
NODE = shutil.which("node")
BROWSER = next(
    filter(
        None,
        map(
            shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        ),
    ),
    None,
)
nan = float("nan")


def small() -> Trajectory:
    """Four calls: a given token; drawn, corrected, settled; drawn late; masked again; noise that is
    visible from the start.
    """
    ids = torch.tensor(
        [[0, M, M, M, 5], [0, 1, M, 3, 5], [0, 2, M, M, 5], [0, 2, M, 4, 6], [0, 2, 1, 4, 6]]
    )
    settled = torch.tensor(
        [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    ).bool()
    confidence = torch.full(ids.shape, nan)
    confidence[1, 1], confidence[1, 3], confidence[2, 1], confidence[3, 3] = (
        0.5,
        0.25,
        0.123456,
        1.0,
    )
    confidence[3, 4], confidence[3, 1], confidence[4, 2] = 0.75, 0.9, 1e-5
    return Trajectory(ids, settled, confidence, torch.tensor([True, False, False, False, False]))


STATES = """
given masked masked masked active
given drawn masked drawn active
given corrected masked remasked active
given settled masked drawn corrected
given settled drawn settled settled
"""


def decode(token: int) -> str:
    return "abcdefg"[token]


def data_of(text: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    )


def cells_of(data: dict, number: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and states [frames, L] from the runs of a page."""
    sample = data["samples"][number]
    ids, shown = ([[-1] * len(sample["runs"]) for _ in range(sample["frames"])] for _ in range(2))
    for i, runs in enumerate(sample["runs"]):
        for first, piece, cell, _ in zip(*[iter(runs)] * 4, strict=True):
            for frame in range(first, sample["frames"]):
                ids[frame][i], shown[frame][i] = data["ids"][piece], cell
    return ids, shown


def test_states():
    found = [[TokenState(cell).name.lower() for cell in row] for row in states(small(), N).tolist()]
    assert found == [line.split() for line in STATES.split("\n") if line]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": torch.zeros(0, 5)}, "at least one frame"),
        ({"settled": torch.zeros(4, 5).bool()}, "settled has the shape"),
        ({"known": torch.zeros(4).bool()}, "known has the shape"),
        ({"ids": small().ids + 1}, "outside 0..7"),
    ],
)
def test_states_refuse(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        states(Trajectory(**(vars(small()) | change)), N)


def test_page_holds_the_trajectory():
    data = data_of(page([small(), small()], decode, N, "title", {"sampler": "ACS(rate=1.0)"}))
    assert cells_of(data, 1) == (small().ids.tolist(), states(small(), N).tolist())
    assert data["pieces"] == ["a", "b", "c", "d", "e", "f", "g", None] and data["settings"] == [
        ["sampler", "ACS(rate=1.0)"]
    ]
    runs = data["samples"][0]["runs"]
    assert runs[0] == [0, 0, TokenState.GIVEN, 0]
    # in call 3 the same token is drawn once more: a run of its own, for its probability
    assert runs[1][4:] == [
        1,
        1,
        TokenState.DRAWN,
        0.5,
        2,
        2,
        TokenState.CORRECTED,
        0.123,
        3,
        2,
        TokenState.SETTLED,
        0.9,
    ]
    assert runs[2][-4:] == [4, 1, TokenState.DRAWN, 1e-05] and runs[3][-8:-4] == [
        3,
        4,
        TokenState.DRAWN,
        1,
    ]


def test_page_refuses_nothing_to_show():
    with pytest.raises(ValueError, match="at least one"):
        page([], decode, N, "", {})


ODD = [
    "</script><script>alert(1)</script>",
    "\"'&amp;<!--",
    "\u2028\u2029",
    "\n  a",
    "\ufffd",
    "\ud800",
    "{{data}}{{title}}",
]


class Tags(HTMLParser):
    """Every tag with its attributes; the title."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.title = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.tags and self.tags[-1][0] == "title":
            self.title += text


def test_page_round_trips_odd_texts_and_needs_nothing_else():
    title = '</title><b>{{data}} & "it\'s"'
    text = page([small()], lambda token: ODD[token], N, title, {"<i>": "</dl>"})
    data = data_of(text)
    assert data["pieces"] == [*ODD, None] and data["settings"] == [["<i>", "</dl>"]]
    text.encode("utf-8")
    parsed = Tags()
    parsed.feed(text)
    assert parsed.title.strip() == title
    assert [tag for tag, _ in parsed.tags].count("script") == 2 and not {"i", "b"} & {
        tag for tag, _ in parsed.tags[:10]
    }
    assert not [
        attributes
        for _, attributes in parsed.tags
        if {"src", "href", "srcset", "data"} & attributes.keys()
    ]
    assert not re.search(
        r"https?:|//[a-z]|url\(|@import|\{\{style|\{\{script", text.replace("// ", "")
    )


def test_page_is_small():
    frames, L = 257, 256
    when = torch.randint(1, frames, (L,), generator=torch.Generator().manual_seed(0))
    drawn = torch.arange(frames)[:, None] >= when
    ids = torch.where(drawn, torch.arange(L) * 3, 1000)
    confidence = torch.where(torch.arange(frames)[:, None] == when, 0.123456, nan)
    settled = (torch.arange(frames) == frames - 1)[:, None].expand(-1, L)
    text = page(
        [Trajectory(ids, settled, confidence, torch.zeros(L).bool())],
        lambda token: f" word{token}",
        1000,
        "",
        {},
    )
    assert len(text.encode()) < 60_000
    assert cells_of(data_of(text))[0] == ids.tolist()


def in_node(expression: str, *arguments: object) -> object:
    if NODE is None:
        pytest.skip("no node on this machine: the page's JavaScript is not run")
    given = f"const given = {json.dumps(arguments)};"
    program = f"{SCRIPT}\n{given}\nconsole.log(JSON.stringify({expression}));"
    return json.loads(
        subprocess.run([NODE], input=program, capture_output=True, text=True, check=True).stdout
    )


def test_javascript_expands_the_runs():
    data = data_of(page([small()], decode, N, "", {}))
    piece, state = in_node(
        "(c => [Array.from(c.piece), Array.from(c.state)])(expand(given[0]))", data["samples"][0]
    )
    assert [data["ids"][number] for number in piece] == small().ids.flatten().tolist()
    assert state == states(small(), N).flatten().tolist()


def test_javascript_tells_the_history():
    runs = data_of(page([small()], decode, N, "", {}))["samples"][0]["runs"]
    told = in_node(
        "given[0].map(runs => [2, 4].map(f => history(runs, f).map(s => [s.frame, s.piece, "
        "s.probability])))",
        runs,
    )
    assert told[0] == [[[0, 0, 0]]] * 2
    assert told[1] == [
        [[0, 7, 0], [1, 1, 0.5], [2, 2, 0.123]],
        [[0, 7, 0], [1, 1, 0.5], [2, 2, 0.123], [3, 2, 0.9]],
    ]
    assert told[3][0] == [[0, 7, 0], [1, 3, 0.25], [2, 7, 0]]


def test_javascript_marks_odd_characters():
    pieces = ["", " a", "a\n\nb", "\t", "\x1b[1m", "\u2028", "\ufffd", "x\u202ey", "\x9b", "👩‍💻"]
    assert in_node("given[0].map(parts)", pieces) == [
        [["∅", True]],
        [[" a", False]],
        [["a", False], ["↵\n↵\n", True], ["b", False]],
        [["⇥\t", True]],
        [["␛", True], ["[1m", False]],
        [["␤", True]],
        [["\ufffd", True]],
        [["x", False], ["\ufffd", True], ["y", False]],
        [["\ufffd", True]],
        [["👩‍💻", False]],
    ]
    assert in_node("[0.5, 0.0995, 0.0123, 1e-5].map(percent)") == [
        "50 %",
        "10 %",
        "1.2 %",
        "0.0010 %",
    ]


DRIVE = """
const at = (id) => document.getElementById(id), seen = {};
const event = (key, more) => new KeyboardEvent("keydown", { key, bubbles: true, ...more });
const key = (key, more) => document.dispatchEvent(event(key, more));
const tokens = () => [...document.querySelectorAll("#text > span")];
const show = (token) => token.textContent + ":" + token.className;
const look = () => [at("where").textContent, tokens().map(show).join(" ")];
seen.first = look();
at("slider").value = 2; at("slider").dispatchEvent(new Event("input")); seen.slider = look();
key("ArrowRight"); seen.right = at("where").textContent;
key("ArrowLeft", { shiftKey: true }); seen.far = at("where").textContent;
key("End"); seen.end = look();
tokens()[1].click(); seen.tip = at("tip").textContent;
key("ArrowDown"); seen.sample = at("sample").selectedIndex; key("ArrowUp");
const box = at("map").getBoundingClientRect();
const point = { clientX: box.left + 0.3 * box.width, clientY: box.top + 0.5 * box.height };
at("map").dispatchEvent(new PointerEvent("pointerdown", { bubbles: true, pointerId: 1, ...point }));
const chosen = (token) => token.classList.contains("chosen");
seen.clicked = [at("where").textContent, tokens().findIndex(chosen)];
const ground = () => getComputedStyle(document.body).backgroundColor;
seen.themes = [ground()]; at("theme").click(); seen.themes.push(ground()); key("Home");
const pixel = (x) => at("map").getContext("2d").getImageData(x, 1, 1, 1).data;
seen.pixels = [0, 1, 4].map((x) => [...pixel(x)].join());
at("play").click(); seen.play = at("play").textContent;
setTimeout(() => {
  seen.played = [at("where").textContent, at("play").textContent];
  const out = document.createElement("pre"); out.id = "seen";
  out.textContent = JSON.stringify(seen); document.body.append(out);
}, 4000);
"""


@pytest.mark.skipif(
    BROWSER is None,
    reason="no chromium or google-chrome on this machine: the page is not opened in a browser",
)
def test_page_in_a_browser(tmp_path):
    text = page([small(), small()], decode, N, "title", {}).replace(
        "</body>", f"<script>{{{DRIVE}}}</script></body>"
    )
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
        "--virtual-time-budget=8000",
    ]
    done = subprocess.run(
        [BROWSER, *flags, "--dump-dom", f"file://{tmp_path}/page.html"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if 'id="slider"' not in done.stdout:  # a sandboxed package may not read temporary files
        pytest.skip(f"{BROWSER} does not start or does not open the file: {done.stderr[-200:]}")
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr
    seen = json.loads(found[1])
    assert seen["first"] == ["call 4 of 4", "a:given c:settled b:drawn e:settled g:settled"]
    assert seen["slider"] == ["call 2 of 4", "a:given c:corrected :masked :remasked f:active"]
    assert (seen["right"], seen["far"]) == ("call 3 of 4", "noise, 4 calls")
    assert seen["end"] == ["call 4 of 4", "a:given c:settled b:drawn e:settled g:settled"]
    assert all(
        part in seen["tip"]
        for part in ("“c”: settled", "position 1, id 2", "call 1“b”probability 50 %", "call 2“c”")
    )
    assert seen["sample"] == 1 and seen["clicked"] == ["call 2 of 4", 1]
    assert len(set(seen["themes"])) == 2 and len(set(seen["pixels"])) == 3
    assert seen["play"] == "Pause" and seen["played"] == ["call 4 of 4", "Play"]


def test_characters_are_measured_and_made_harmless():
    assert [width(character) for character in "a漢\u0301e👩\u200d"] == [1, 2, 0, 1, 2, 0]
    assert visible("a\n\x1b[2J\x9b\u2028\u202e\ud800") == "a↵␛[2J\ufffd\ufffd\ufffd\ufffd"
    lines = wrap(
        [("ab漢", TokenState.DRAWN), ("c\n", TokenState.SETTLED), ("de\u0301f", TokenState.ACTIVE)],
        3,
    )
    assert ["".join(character for character, _ in line) for line in lines] == [
        "ab",
        "漢c",
        "↵",
        "de\u0301f",
    ]


def screen(output: str, columns: int, rows: int) -> list[str]:
    """What a terminal shows after `output`: text, line feeds, cursor up, clear; colours are
    dropped. An unknown sequence is an error.
    """
    cells, y, x = [[" "] * columns for _ in range(rows)], 0, 0
    for control, character in re.findall(
        r"\x1b\[([?\d;]*[A-Za-z])|([^\x1b])", output.replace(HIDE, "").replace(SHOW, "")
    ):
        if control.endswith("A"):
            y = max(y - int(control[:-1]), 0)
        elif control == "J":
            cells[y][x:] = [" "] * (columns - x)
            cells[y + 1 :] = [[" "] * columns for _ in cells[y + 1 :]]
        elif character == "\r":
            x = 0
        elif character == "\n":
            y += 1
            if y == rows:
                cells, y = [*cells[1:], [" "] * columns], rows - 1
        elif character:
            cells[y][x], x = character, x + 1
        else:
            assert control.endswith("m"), control
    return ["".join(row).rstrip() for row in cells]


class Terminal:
    """A pseudo-terminal of a size; `output` is what was written to it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.stream = open(slave, "w", encoding="utf-8", newline="")
        self.output = ""

    def read(self) -> str:
        """All output so far; a NUL written after it tells its end."""
        self.stream.write("\0")
        self.stream.flush()
        fresh = b""
        while not fresh.endswith(b"\0"):
            fresh += os.read(self.master, 1 << 16)
        self.output += fresh[:-1].decode()
        return self.output


@pytest.fixture
def coloured(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def state(call: int, ids: torch.Tensor, settled: torch.Tensor) -> generation.Frame:
    return generation.Frame(
        call,
        ids[None],
        (~settled[None]).double(),
        torch.full((1, len(ids)), torch.nan),
        torch.ones(1).bool(),
    )


def watch(watcher: Watcher, trajectory: Trajectory, after=lambda: None) -> None:
    for call in range(len(trajectory.ids)):
        watcher(state(call, trajectory.ids[call], trajectory.settled[call]))
        after()


def test_watcher_redraws_in_place(coloured):
    terminal = Terminal(30, 6)
    with pytest.raises(KeyboardInterrupt), Watcher(decode, N, terminal.stream) as watcher:
        watch(watcher, small(), terminal.read)
        raise KeyboardInterrupt
    terminal.read()
    assert terminal.output.startswith(HIDE) and terminal.output.endswith(SHOW)
    assert screen(terminal.output, 30, 6) == [
        "call 4 (5/5)  settled  given",
        "acbeg",
        "",
        "",
        "",
        "",
    ]
    assert (
        "\x1b[0;1;37;45mc" in terminal.output
        and "\x1b[0;30;42mb" in terminal.output
        and "░" in terminal.output
    )


def test_watcher_shows_the_tail_and_the_next_batch(coloured):
    terminal = Terminal(10, 6)
    ids = torch.arange(100) % 7
    with Watcher(decode, N, terminal.stream) as watcher:
        for call in (0, 1, 0, 1):
            watcher(state(call, ids.flip(0) if call else ids, torch.zeros(100).bool()))
            terminal.read()
            last = "".join(decode(int(token)) for token in (ids.flip(0) if call else ids)[-40:])
            assert screen(terminal.output, 10, 6)[-6:-1] == [
                f"call {call} (0/",
                *(last[k : k + 10] for k in range(0, 40, 10)),
            ]
    assert terminal.output.count("\x1b[5A") == 2


@pytest.mark.parametrize("how", ["no terminal", "NO_COLOR", "dumb"])
def test_watcher_prints_plain_lines(how, coloured, monkeypatch):
    if how == "no terminal":
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    else:
        terminal = Terminal(30, 6)
        stream = terminal.stream
        monkeypatch.setenv(*(("NO_COLOR", "1") if how == "NO_COLOR" else ("TERM", "dumb")))
    with Watcher(lambda token: "a\ncdefg"[token], N, stream) as watcher:
        watch(watcher, small())
    text = stream.buffer.getvalue().decode() if how == "no terminal" else terminal.read()
    expected = (
        "call 0 (1/5): a░░░f\ncall 1 (1/5): a↵░df\ncall 2 (1/5): ac░░f\ncall 3 (2/5): ac░eg\n"
        "call 4 (5/5): ac↵eg\n"
    )
    assert text == (re.sub("[↵░]", "?", expected) if how == "no terminal" else expected)
