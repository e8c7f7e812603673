"""The model folder: what `fit` leaves, what `load` accepts, and what it refuses."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import kills
import pytest
import tiny
import torch
from safetensors.torch import save_file

import textdiff
from textdiff import files
from textdiff.model import folder as hub
from textdiff.network import TransformerConfig, TransformerDenoiser
from textdiff.process import Absorbing

FRESH = """
import json, sys
import torch, textdiff
from textdiff.training import TextDiffusion
run = sys.argv[1]
model = textdiff.load(run)
module = TextDiffusion.load_from_checkpoint(run + "/checkpoints/last.ckpt", map_location="cpu")
ids = torch.arange(16)[None] % (model.network.num_tokens + 1)
with torch.no_grad():
    logits, again = model.network(ids), module.eval().network(ids)
print(json.dumps({
    "logits": [x.hex() for x in logits.double().flatten().tolist()],
    "same": torch.equal(logits, again),
    "choices": [
        str(module.process),
        str(module.hyperschedule),
        str(module.objective),
        str(module.architecture),
    ],
    "text": model.generate("the ", seed=3).texts[0],
}))
"""


@pytest.fixture
def folder(tmp_path):
    """A copy of a model folder, to be spoilt."""
    return shutil.copytree(tiny.run(), tmp_path / "run")


def test_contents_after_fit():
    run = tiny.run()
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {
        "results"
    }
    expected = {
        "config.json",
        "generation_config.json",
        "config.yaml",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    expected |= {
        "hyperschedule.png",
        "loss.png",
        "checkpoints/last.ckpt",
        "checkpoints/step-40.ckpt",
        "logs/version_0/metrics.csv",
    }
    apart = ("results/", "tensorboard/")  # the second where it is installed
    assert {name for name in found if not name.startswith(apart)} == expected


def test_the_weights_are_the_average():
    """They are the EMA's, as in the checkpoint, and not those of the last step."""
    checkpoint = torch.load(tiny.run() / "checkpoints" / "last.ckpt", weights_only=True)
    averaged = {k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items()}
    state = textdiff.load(tiny.run()).network.state_dict()
    assert state.keys() == averaged.keys() and all(
        torch.equal(state[k], averaged[k]) for k in state
    )
    last = {k.removeprefix("network."): v for k, v in checkpoint["current_model_state"].items()}
    assert not torch.equal(state["embedding.weight"], last["embedding.weight"])


def test_a_fresh_process_sees_the_same_model():
    model = textdiff.load(tiny.run())
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tiny.run())], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        logits = model.network(torch.arange(16)[None] % (model.network.num_tokens + 1))
    assert found["logits"] == [x.hex() for x in logits.double().flatten().tolist()]
    assert found["same"] and found["text"] == model.generate("the ", seed=3).texts[0]
    assert found["choices"][:2] == [str(model.process), str(model.hyperschedule)]
    assert "layers=1" in found["choices"][3]


def test_the_checkpoint_holds_plain_values():
    """Loadable with weights_only (which refuses other classes), and hyper-parameters go through
    JSON unchanged.
    """
    checkpoint = torch.load(tiny.run() / "checkpoints" / "last.ckpt", weights_only=True)
    plain = checkpoint["hyper_parameters"]
    assert json.loads(json.dumps(plain)) == plain
    assert plain["process"] == {
        "class_path": "textdiff.process.EpsilonHybrid",
        "init_args": {"epsilon": 0.01},
    }
    assert plain["num_tokens"] == textdiff.load(tiny.run()).network.num_tokens


def test_the_folder_is_written_at_checkpoints_too(tmp_path, monkeypatch):
    steps, averages = [], []

    def spy(model, folder, weights=None):
        saved(model, folder, weights)
        steps.append(files.sha256(folder / hub.WEIGHTS))
        averages.append(
            weights is not None
            and not torch.equal(weights["norm.weight"], model.network.norm.weight)
        )
        assert textdiff.load(folder).process == model.process

    saved = hub.save
    monkeypatch.setattr(
        "textdiff.training.callbacks.save",
        lambda model, folder, weights=None: spy(model, tmp_path / "run", weights),
    )
    tiny.fit(tmp_path / "run", "--checkpoint.every_n_train_steps=1", max_steps=3)
    assert len(steps) >= 4 and len(set(steps)) == 3  # three steps and the end
    assert averages[-2]  # the EMA's weights, not the network's


def test_a_second_training_does_not_write_over_the_first(tmp_path, capsys):
    tiny.fit(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        tiny.fit(tmp_path / "run", "--seed_everything", "1")
    assert stop.value.code == 2 and "already holds a model" in capsys.readouterr().err
    assert {
        path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()
    } == before
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        "last.ckpt",
        "step-2.ckpt",
    ]


def test_a_round_trip_keeps_everything(tmp_path):
    model = textdiff.load(tiny.run())
    again = textdiff.load(textdiff.save(model, tmp_path / "copy"))
    assert (again.process, again.hyperschedule) == (model.process, model.hyperschedule)
    assert (again.length, again.prediction, again.data) == (
        model.length,
        model.prediction,
        model.data,
    )
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    assert again.generate(seed=1).texts == model.generate(seed=1).texts
    assert not again.network.training


def spoil_json(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        part = config["textdiff"] if name in config["textdiff"] else config
        part.pop(name) if value is None else part.update({name: value})
    (folder / "config.json").write_text(json.dumps(config))


def flip(path, at=0.9):
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def other_weights(folder):
    """The weights of another save beside this config: what an interruption between two renames
    leaves.
    """
    model = textdiff.load(folder)
    textdiff.save(model, folder / "x", {k: v + 1 for k, v in model.network.state_dict().items()})
    shutil.move(folder / "x" / "model.safetensors", folder / "model.safetensors")


def other_architecture(folder):
    """A whole folder whose config says another network than its weights hold."""
    config = TransformerConfig(
        num_tokens=textdiff.load(folder).network.num_tokens, layers=2, width=16, heads=2
    )
    save_file(TransformerDenoiser(config).state_dict(), folder / "model.safetensors")
    sums = {name: files.sha256(folder / name) for name in (hub.WEIGHTS, hub.TOKENIZER)}
    spoil_json(folder, sha256=sums)


def other_size(folder):
    tokenizer = textdiff.load(folder).tokenizer
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)
    spoil_json(
        folder, sha256={name: files.sha256(folder / name) for name in (hub.WEIGHTS, hub.TOKENIZER)}
    )


SPOILT = {
    "flipped byte in the weights": (
        lambda f: flip(f / "model.safetensors"),
        "corrupt or half-written",
    ),
    "flipped byte in the tokenizer": (
        lambda f: flip(f / "tokenizer.json"),
        "corrupt or half-written",
    ),
    "truncated weights": (lambda f: truncate(f / "model.safetensors"), "corrupt or half-written"),
    "truncated config": (lambda f: truncate(f / "config.json"), "not valid JSON"),
    "config is no text": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe{"),
        "not valid JSON",
    ),
    "config is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        "describes no textdiff model",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer.json"),
    "weights of another save": (other_weights, "corrupt or half-written"),
    "other architecture": (other_architecture, "another architecture"),
    "larger tokenizer": (other_size, "larger than the model's"),
    "other model type": (
        lambda f: spoil_json(f, model_type="gpt2"),
        "describes no textdiff model .model_type 'gpt2'",
    ),
    "no process": (lambda f: spoil_json(f, process=None), "lacks process"),
    "foreign class": (
        lambda f: spoil_json(f, process={"class_path": "os.system"}),
        "'os.system' is not a class of textdiff",
    ),
    "unknown class": (
        lambda f: spoil_json(f, process={"class_path": "textdiff.process.X"}),
        "'textdiff.process.X' is not a Process; known: Absorbing",
    ),
    "bad argument": (
        lambda f: spoil_json(
            f, process={"class_path": "textdiff.process.EpsilonHybrid", "init_args": {"epsilon": 2}}
        ),
        "epsilon must lie in",
    ),
    "unknown prediction": (
        lambda f: spoil_json(f, prediction="x0"),
        "'x0' is not a valid Prediction",
    ),
    "missing folder": (shutil.rmtree, "there is no model folder"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_spoilt_is_refused(name, folder, capsys):
    spoil, message = SPOILT[name]
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        textdiff.load(folder)
    assert tiny.refused(capsys, ["sample", str(folder)]).startswith("textdiff: error:")


TEMPLATES = (
    {"default": "{{ messages }}", "tool_use": "{{ tools }}"},
    {"default": "{{ documents }}", "rag": "{{ documents }}"},
    None,
)


def number(folder, number):
    """Save model `number`, which differs from the others in its weights and its chat templates."""
    model = textdiff.load(tiny.run())
    model.tokenizer.chat_template = TEMPLATES[number]
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.fill_(number)
    textdiff.save(model, folder)


def number_of(folder):
    """Which of them a folder holds, all of it."""
    model = textdiff.load(folder)
    saved = int(model.network.embedding.weight[0, 0])
    assert all(bool((weight == saved).all()) for weight in model.network.parameters())
    assert model.tokenizer.chat_template == TEMPLATES[saved]
    return saved


def test_a_kill_at_any_moment_of_a_save_leaves_the_old_model_or_the_new_one(tmp_path):
    """Before each call of the system that changes files, for a folder that holds a model."""
    run = tmp_path / "run"
    number(run, 0)
    states = kills.left(run, tmp_path / "states", lambda: number(run, 1))
    held = [number_of(state) for state in states]
    assert held == sorted(held) and set(held) == {0, 1}
    assert held.count(1) > 20  # it counts before its first file is in place
    for state in states[:: len(states) // 8]:  # the next save works, and nothing old is left
        number(state, 2)
        assert number_of(state) == 2 and files.whole(state) == state
        assert not [*state.glob("*.jinja"), *state.glob("additional*/*")]
    assert not list(run.glob(".*"))


def test_a_kill_at_any_moment_of_a_first_save_leaves_no_model_or_the_new_one(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for state in kills.left(run, tmp_path / "states", lambda: number(run, 1)):
        try:
            assert number_of(state) == 1
        except ValueError as error:
            assert "its training has not saved a model yet" in str(error)
            number(state, 2)
            assert number_of(state) == 2


def test_what_a_killed_save_left_is_exported_whole(tmp_path):
    run = tmp_path / "run"
    number(run, 0)
    states = kills.left(run, tmp_path / "states", lambda: number(run, 1))
    between = [state for state in states if files.whole(state) != state]
    for state in (between[0], between[len(between) // 2], between[-1]):
        textdiff.export(state, out := tmp_path / "out" / state.name)
        assert number_of(out) == 1 and files.whole(out) == out


def test_a_full_disk_at_any_moment_of_a_save_leaves_a_whole_model(tmp_path):
    run = tmp_path / "run"
    number(run, 0)
    for call in range(0, 1000, 2):
        try:
            with kills.full_disk(call):
                number(run, 1)
            break
        except OSError:
            assert number_of(run) in (0, 1)
            assert {path.name for path in run.glob(".*")} <= {files.NEXT}
    assert call > 20 and number_of(run) == 1


def test_a_killed_process_leaves_a_whole_model(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from model.test_folder import number\n"
        "from pathlib import Path\n"
        "for i in range(1000): number(Path(sys.argv[1]), i % 3); print(i, flush=True)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run"), str(tiny.ROOT / "tests")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        for _ in range(3):
            child.stdout.readline()
        time.sleep(0.013)
        child.kill()
    assert number_of(tmp_path / "run") in (0, 1, 2)
    number(tmp_path / "run", 1)
    assert number_of(tmp_path / "run") == 1


def test_what_a_killed_write_left_is_removed_after_an_hour(tmp_path):
    left = tmp_path / f".config-{32 * 'a'}.json"
    others = tmp_path / f".writing-{32 * 'b'}"
    (others / "x").mkdir(parents=True)
    left.write_text("{")
    files.write_json(tmp_path / "config.json", {})
    assert left.exists() and others.exists()  # somebody may be at it
    for path in (left, others):
        os.utime(path, (0, 0))
    files.write_json(tmp_path / "config.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_weights_can_be_read_by_whom_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        number(tmp_path / "run", 0)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert modes == {0o640}


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "x.json", Path("/proc/x/y.json")):
        with pytest.raises(ValueError, match=r"cannot be written .*--output"):
            files.check_place(place)
    files.check_place(tmp_path / "new" / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("part", ["network", "block"])
def test_a_compiled_network_is_saved_as_the_plain_one(part, tmp_path):
    model = textdiff.load(tiny.run())
    expected = model.generate(seed=1, max_length=8).texts
    if part == "network":
        model = dataclasses.replace(model, network=torch.compile(model.network))
    else:
        model.network.blocks[0] = torch.compile(model.network.blocks[0])
    assert any("_orig_mod" in name for name in model.network.state_dict())
    again = textdiff.load(textdiff.save(model, tmp_path / "run"))
    assert again.generate(seed=1, max_length=8).texts == expected


class Adapter(torch.nn.Module):
    """What PEFT puts in the place of a linear layer."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer
        self.lora_A = torch.nn.Linear(layer.in_features, 2, bias=False)


@pytest.mark.parametrize("kind", ["adapter", "shape"])
def test_what_load_would_refuse_is_not_written(kind, tmp_path):
    model = textdiff.load(tiny.run())
    textdiff.save(model, tmp_path / "run")
    name, layer = next(
        (name, part)
        for name, part in model.network.named_modules()
        if isinstance(part, torch.nn.Linear)
    )
    other = Adapter(layer) if kind == "adapter" else torch.nn.Linear(layer.in_features, 3)
    model.network.set_submodule(name, other)
    with pytest.raises(ValueError, match=r"merge them first .PEFT: network.merge_and_unload"):
        textdiff.save(model, tmp_path / "run")
    with pytest.raises(ValueError, match="merge"):
        textdiff.save(model, tmp_path / "new")
    textdiff.load(tmp_path / "run")
    assert not (tmp_path / "new").exists()


def test_a_network_that_auto_model_does_not_know_is_not_written(tmp_path):
    class Mine(TransformerConfig):
        model_type = "mine"

    model = textdiff.load(tiny.run())
    model.network.config.__class__ = Mine
    with pytest.raises(ValueError, match=r"AutoConfig\.register"):
        textdiff.save(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_write_json_leaves_no_litter(tmp_path):
    files.write_json(tmp_path / "deep" / "x.json", {"ε": 1})
    assert json.loads((tmp_path / "deep" / "x.json").read_text()) == {"ε": 1}
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "y.json", {1: object()})
    with pytest.raises(OSError):
        files.write_json(tmp_path / "deep", {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "x.json"]


def test_a_tokenizer_of_another_size_makes_no_model():
    model = textdiff.load(tiny.run())
    small = TransformerDenoiser(TransformerConfig(num_tokens=5, layers=1, width=16, heads=2))
    with pytest.raises(ValueError, match="larger than the model's 5"):
        textdiff.Model(small, Absorbing(), model.hyperschedule, model.tokenizer, 16)
