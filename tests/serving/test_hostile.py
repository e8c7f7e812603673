"""Bodies made up from the schema: whatever they hold, the answer is no 5xx and the server lives."""

import http.client
import json
import os
import random

import pytest

pytest.importorskip("fastapi", reason="needs textdiff[serve]")
from live import NAME, serving

from textdiff.serving.fields import Completion, DecideOf, ScoreOf

pytestmark = pytest.mark.filterwarnings("ignore")
COUNT = int(os.environ.get("TEXTDIFF_FUZZ", "500"))
PATHS = {"/v1/completions": Completion, "/v1/score": ScoreOf, "/v1/decide": DecideOf}

NAMES = ["Flat", "Block", "Slide", "TightBlock", "StartSteps", "QuenchedAR", "ACS", "Ancestral"]
NAMES += ["ReMDM", "Confidence", "PredictorCorrector", "GibbsCorrector", "FirstHitting", "Euler"]
NAMES += ["InformedACS", "PublishedACS", "Threshold", "Rescaled", "os.system", "__import__", "_"]
LITERALS = ["0", "-1", "1", "2", "3", "1.5", "1e308", "1e999", "'a'", "'1/2'", "'1/0'", "None"]
LITERALS += ["True", "()", "(0, 1)", "[]", "{}", "{[]: 1}", "9" * 60, "b'x'", "1j", "x", "*a"]
WORDS = ["", "a", "the ", "[MASK]", "[GAP]", "a[GAP]b", "z" * 300, "\x00", "é漢🙂", "\u202e", "\n"]
WORDS += ["<|endoftext|>", "toy", "left to right", "all", "0", "1"]
VALUES = [None, True, False, 0, 1, 2, 3, -1, 7, 64, 10**6, 2**31, 2**63, -(2**64), 10**30]
VALUES += [0.0, 0.5, 1.0, -0.5, 1e308, 1e-308, [], {}, [[]], [0], [1, 2], [27], [28], [29, 10**9]]
VALUES += [[None], [["a"]], {"a": 1}, {"1": 0.5, "2": 0.5}, {"include_usage": True}, "\ud800"]


def call(random: random.Random, depth: int = 0) -> str:
    """The text of a sampler or hyperschedule, or of something like it."""
    name = random.choice(NAMES)
    if random.random() < 0.3:
        return name
    some = [
        call(random, depth + 1) if depth < 8 and random.random() < 0.4 else random.choice(LITERALS)
        for _ in range(random.randint(0, 3))
    ]
    keys = ["", "", "", "width=", "levels=", "rate=", "eta=", "predictor=", "corrections=", "x="]
    text = f"{name}({', '.join(random.choice(keys) + one for one in some)})"
    return text if random.random() < 0.9 else text[: random.randint(0, len(text))]


def value(random: random.Random) -> object:
    """Any value of a field."""
    kind = random.random()
    if kind < 0.35:
        return random.choice(VALUES)
    if kind < 0.6:
        return random.choice(WORDS)
    if kind < 0.8:
        return call(random)
    return [value(random) for _ in range(random.randint(0, 4))]


def body(random: random.Random, fields: list[str], likely: dict) -> bytes:
    """A body with some fields of a route, mostly with values of their kind."""
    told = dict(likely) if random.random() < 0.9 else {}
    for name in random.sample(fields, random.randint(0, 4)):
        told[name] = value(random)
    for name in ("sampler", "hyperschedule"):
        if random.random() < 0.3:
            told[name] = call(random)
    if random.random() < 0.05:
        told[random.choice(WORDS)] = value(random)
    text = json.dumps(told).encode()
    kind = random.random()
    if kind < 0.03:
        return text[: random.randint(0, len(text))]
    if kind < 0.05:
        return text.replace(b"1", random.choice([b"NaN", b"1e999", b"\xff", b"[" * 2000]))
    return text


def test_no_body_is_a_server_error():
    seed = int(os.environ.get("TEXTDIFF_SEED", random.randrange(2**32)))
    print(f"TEXTDIFF_SEED={seed} TEXTDIFF_FUZZ={COUNT}")
    draw = random.Random(seed)
    likely = {
        "/v1/completions": {"model": NAME, "prompt": "the ", "max_tokens": 3},
        "/v1/score": {"model": NAME, "prompt": "the ", "completions": ["a", "b"], "draws": 2},
        "/v1/decide": {"model": NAME, "text": "the [GAP]", "options": ["a", "b"], "draws": 2},
    }
    counted = {}
    with serving() as live:
        line = http.client.HTTPConnection("127.0.0.1", live.port, timeout=60)
        for _ in range(COUNT):
            path = draw.choice(list(PATHS))
            data = body(draw, list(PATHS[path].model_fields), likely[path])
            line.request("POST", path, data, {"Content-Type": "application/json"})
            answer = line.getresponse()
            text = answer.read()
            counted[answer.status] = counted.get(answer.status, 0) + 1
            assert answer.status < 500 and b'"server_error"' not in text, (seed, path, data, text)
            if answer.status >= 400:
                assert json.loads(text)["error"]["message"], (seed, path, data)
        live.wait_until_idle()
        assert live.complete(prompt="the ", max_tokens=4)["choices"]
    assert counted.get(200, 0) > COUNT / 50 and counted[400] > COUNT / 4, counted
