"""Push and pull over HTTP: a Hub that this test serves, and fresh processes that know it by
HF_ENDPOINT.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hub_endpoint
import pytest
import tiny
import torch

import textdiff
from textdiff.commands.cli import main

SEND = """
import os, sys, warnings
from textdiff.commands.cli import main

run, token = sys.argv[1:]
def push(*words):
    try:
        main(["push", run, *words])
    except SystemExit as stop:
        print("exit", stop.code)

push("me/tiny", "--private")              # no token
os.environ["HF_TOKEN"] = token
push("me/tiny", "--private")              # broken off before the commit
push("me/tiny", "--private")              # the same again
push("me/tiny", "--revision", "draft", "--license", "mit")
push("me/public")
push("me/public", "--private")            # would show what should be hidden
"""

RECEIVE = """
import json, os, sys
from transformers import AutoModel
import textdiff
import torch
from textdiff.commands.cli import main
from textdiff.model.source import find

run, words = sys.argv[1], json.loads(sys.argv[2])
def hexed(network):
    ids = torch.arange(16)[None] % (network.num_tokens + 1)
    with torch.no_grad():
        return [x.hex() for x in network.eval()(ids).double().flatten().tolist()]

model = textdiff.load("me/tiny", verify=True)
auto = AutoModel.from_pretrained(find("me/tiny").folder)
found = {"logits": hexed(model.network), "auto": hexed(auto)}
found["draft"] = hexed(textdiff.load("me/tiny@draft", verify=True).network)
main(["evaluate", "perplexity", "me/tiny", "--limit", "3", "--draws", "2", "--verify"])
main([*words, "--model.init_from=me/tiny"])
for name in ("me/tiny", "me/tiny@none"):
    os.environ["HF_TOKEN"] = "wrong" if name == "me/tiny" else os.environ["HF_TOKEN"]
    try:
        main(["evaluate", "perplexity", "me/secret" if name == "me/tiny" else name])
    except SystemExit as stop:
        found[name] = stop.code
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with hub_endpoint.served(tmp_path_factory.mktemp("hub") / "data") as hub:
        yield hub


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A measured run."""
    made = tiny.fit(
        tmp_path_factory.mktemp("run") / "run", "--model.lr=0.05", "--model.warmup=2", max_steps=10
    )
    main(["evaluate", "perplexity", str(made), "--limit", "3", "--draws", "2"])
    return made


def fresh(hub, home, program, *arguments, token=None):
    """Run a program in a process of its own that is not offline and knows this Hub only."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | (
        {"HF_TOKEN": token} if token else {}
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)


@pytest.fixture(scope="module")
def sent(hub, run, tmp_path_factory):
    """What the sending process said; the Hub breaks off its first commit."""
    hub.broken.append("POST /api/models/me/tiny/commit")
    home = tmp_path_factory.mktemp("send")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = fresh(hub, home, SEND, run, hub_endpoint.TOKEN)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    return done


def test_what_the_sender_is_told(sent, hub):
    said = sent.stdout.splitlines()
    assert said[:2] == ["exit 2", "exit 2"] and said[-1] == "exit 2" and len(said) == 6
    assert all(line.startswith(f"{hub.url}/me/") and "/commit/" in line for line in said[2:5])
    no_token, broken, public = (
        line for line in sent.stderr.splitlines() if line.startswith("textdiff: error:")
    )
    assert (
        "me/tiny was not pushed; here nothing has changed (Client error '401" in no_token
        and "set HF_TOKEN" in no_token
    )
    assert (
        "me/tiny was not pushed; here nothing has changed" in broken
        and "then run the same again" in broken
    )
    assert "me/public is there already and public: nothing was uploaded" in public
    assert "Traceback" not in sent.stderr


@pytest.mark.parametrize("revision, license", [("main", "unknown"), ("draft", "mit")])
def test_just_the_exported_folder_is_there(sent, hub, run, revision, license, tmp_path):
    name = "me/tiny" if revision == "main" else "me/tiny@draft"
    folder = textdiff.export(run, tmp_path / "out", name, license)
    expected = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert hub.files("me/tiny", revision) == expected
    assert f'textdiff.load("{name}", verify=True)' in expected["README.md"].decode()
    assert hub.repo("me/tiny")["private"] and not hub.repo("me/public")["private"]
    assert len(hub.repo("me/tiny")["commits"]) == 3  # the first, empty one; main; draft


def test_the_receiver_has_the_same_model(sent, hub, run, tmp_path):
    """In a process of its own: logits bit for bit, the same bound, training that begins from there,
    and goes on here. The text does not travel, nor where it was: whoever has it puts it there.
    """
    shutil.copy(tiny.text(), tmp_path / tiny.text().name)
    hub.write("me/secret", {"private": True, "branches": {}, "commits": {}})
    shape = tiny.words(tiny.SHAPE, "model.network.")
    toy = [word for word in tiny.toy(tmp_path / "tuned", max_steps=4) if word not in shape]
    words = [
        "fit",
        *tiny.configs("trainer/quick"),
        "--model.process=textdiff.process.EpsilonHybrid",
        *tiny.text_files(tiny.text()),
    ]
    words += [
        *toy,
        "--checkpoint.every_n_train_steps=2",
        "--checkpoint.save_top_k=-1",
        "--model.lr=0.02",
        "--model.warmup=1",
    ]
    done = fresh(hub, tmp_path, RECEIVE, run, json.dumps(words), token=hub_endpoint.TOKEN)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    network = textdiff.load(run).network
    with torch.no_grad():
        logits = network(torch.arange(16)[None] % (network.num_tokens + 1))
    expected = [x.hex() for x in logits.double().flatten().tolist()]
    assert found["logits"] == found["auto"] == found["draft"] == expected

    (here,), (there,) = (
        list(folder.glob("*.json"))
        for folder in (run / "results", tmp_path / "results" / "me" / "tiny")
    )
    one, other = json.loads(here.read_text()), json.loads(there.read_text())
    assert one["bounds"] == other["bounds"] and one["weights_sha256"] == other["weights_sha256"]
    assert (one["run"], other["run"]) == ("run", "me/tiny")

    tuned = tmp_path / "tuned"
    whole = textdiff.load(tuned).network.state_dict()
    assert not torch.equal(whole["norm.weight"], network.state_dict()["norm.weight"])
    main(
        [
            "fit",
            "--config",
            str(tuned / "config.yaml"),
            f"--ckpt_path={tuned}/checkpoints/step-2.ckpt",
        ]
    )  # offline, no Hub
    resumed = textdiff.load(tuned).network.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    errors = [line for line in done.stderr.splitlines() if line.startswith("textdiff: error:")]
    assert found["me/tiny"] == found["me/tiny@none"] == 2 and len(errors) == 2
    assert "there is no model folder 'me/secret' here" in errors[0] and "HF_TOKEN" in errors[0]
    assert "there is no model folder 'me/tiny@none' here" in errors[1]
    assert "Traceback" not in done.stderr and not Path("results/me").exists()
    asked = " ".join(hub.log)
    assert ".ckpt" not in asked and ".py" not in asked
