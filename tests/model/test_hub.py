"""`textdiff export`: the folder that travels, its card, its reference bound; what may stand for a
RUN, and what is never opened.
"""

import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny
import torch
import yaml

import textdiff
from textdiff import files
from textdiff.commands.cli import main
from textdiff.model import folder as hub
from textdiff.model import hub as share
from textdiff.model import reference
from textdiff.model.source import find


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A measured run with files that nobody knows, one of them a pickle."""
    made = shutil.copytree(tiny.run(), tmp_path_factory.mktemp("share") / "run")
    measure(made)
    (made / "results" / "other.json").write_text(
        json.dumps({"weights_sha256": files.sha256(made / hub.WEIGHTS), "bounds": [{"nats": 9}]})
    )
    (made / "results" / "plain.json").write_text("[1]")
    (made / "generation_config.json").write_text('{"top_k": 3}')
    (made / "notes").mkdir()
    for name in ("notes/more.txt", "predictions.txt", "predictions.jsonl", "results/texts.jsonl"):
        (made / name).write_text("private\n")
    (made / "results" / "prompts.json").write_text('{"samples": ["private"]}')
    return made


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return textdiff.export(run, tmp_path_factory.mktemp("exported") / "out", license="apache-2.0")


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def measure(run, *words):
    main(["evaluate", "perplexity", str(run), "--limit", "3", "--draws", "2", *words])


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def same_logits(*models):
    ids = torch.arange(16)[None] % (models[0].network.num_tokens + 1)
    with torch.no_grad():
        first, *others = (model.network(ids) for model in models)
    return all(torch.equal(first, other) for other in others)


# --- what travels


def test_what_travels(run, exported):
    """The model, its pictures and what was measured of it, and nothing else: no checkpoint, log,
    config.yaml or file that nobody knows.
    """
    found = names(exported)
    results = {name for name in found if name.startswith("results/")}
    (measured,) = (run / "results").glob("perplexity*.json")
    assert results == {f"results/{measured.name}", "results/other.json"}
    model = {"config.json", "generation_config.json", "model.safetensors", "reference.json"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    pages = {"README.md", "loss.png", "hyperschedule.png"}
    assert found == results | model | tokenizer | pages
    same = (model | tokenizer) - {"config.json", "reference.json"}
    assert all((run / name).read_bytes() == (exported / name).read_bytes() for name in same)
    assert same_logits(textdiff.load(run), textdiff.load(exported, verify=True))
    assert exported.stat().st_mode & 0o777 == run.stat().st_mode & 0o777


def test_export_of_an_export_is_the_same(exported, tmp_path):
    """But for the name that its card gives; the license stays."""
    again = textdiff.export(exported, tmp_path / "again", str(exported))
    assert names(again) == names(exported)
    assert all(
        (again / name).read_bytes() == (exported / name).read_bytes() for name in names(exported)
    )


def test_a_card_is_written_anew_until_a_person_changes_it(copy, tmp_path):
    measure(copy, "--discrete", "--corpus", str(tiny.text()))
    card = (textdiff.export(copy, tmp_path / "again") / "README.md").read_text()
    assert (
        "stratified, 64-step" in card
        and "stratified, 64-step" not in (copy / "README.md").read_text()
    )
    assert (
        "license: apache-2.0" in card and f'textdiff.load("{tmp_path}/again", verify=True)' in card
    )
    (copy / "README.md").write_text("mine\n")
    kept = textdiff.export(copy, tmp_path / "kept")
    assert (
        (kept / "README.md").read_text()
        == (textdiff.export(kept, tmp_path / "twice") / "README.md").read_text()
        == "mine\n"
    )
    with pytest.raises(ValueError, match=r"is kept as it is: state the license 'mit' there"):
        textdiff.export(copy, tmp_path / "mit", license="mit")


def test_pickles_stay_at_home(copy, tmp_path):
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(1))
    assert "pytorch_model.bin" not in names(textdiff.export(copy, tmp_path / "out"))


def test_no_private_path_or_text_travels(run, exported):
    """Neither this machine's folders nor prompts are in any file that travels."""
    (result,) = (run / "results").glob("perplexity*.json")
    assert str(tiny.text()) in result.read_text() + (run / "config.json").read_text()
    for name in names(exported):
        content = (exported / name).read_bytes()
        assert str(tiny.text().parent).encode() not in content, name
        assert b"private" not in content, name
    assert tiny.text().name in (exported / "config.json").read_text()


def test_a_report_of_what_travelled(copy):
    (copy / "results" / "other.json").unlink()
    main(["report", str(copy)])
    assert "Perplexity" in (copy / "report.md").read_text()


def test_weights_are_readable_for_whom_the_umask_says(run, exported):
    modes = {(folder / hub.WEIGHTS).stat().st_mode for folder in (run, exported)}
    assert modes == {(run / "config.json").stat().st_mode}


def test_the_command(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["export", str(run), "shared/tiny"])
    said = capsys.readouterr().out
    assert "model.safetensors" in said and said.endswith("written to shared/tiny\n")
    assert 'textdiff.load("shared/tiny", verify=True)' in Path("shared/tiny/README.md").read_text()
    main(["push", str(run), "me/tiny", "--dry-run", "--private", "--revision", "draft"])
    said = capsys.readouterr().out
    assert "README.md" in said and "would go to me/tiny, private, branch draft" in said
    assert "is there already" in tiny.refused(capsys, ["export", str(run), "shared/tiny"])
    assert "inside the model's own folder" in tiny.refused(
        capsys, ["export", str(run), str(run / "out")]
    )
    assert "say whose, such as me/tiny" in tiny.refused(capsys, ["push", str(run), "tiny"])
    assert "is no user/name of the Hub" in tiny.refused(capsys, ["push", str(run), "a/b/c"])
    said = tiny.refused(capsys, ["push", str(run), "me/tiny"])
    assert (
        "me/tiny was not pushed; here nothing has changed" in said
        and "unset HF_HUB_OFFLINE" in said
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shared"]


def test_an_interrupted_export_leaves_nothing(run, tmp_path, monkeypatch):
    def interrupted(model):
        raise KeyboardInterrupt

    monkeypatch.setattr(reference, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        textdiff.export(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# --- the card


def test_the_card(exported):
    head, body = (exported / "README.md").read_text().removeprefix("---\n").split("\n---\n")
    found = yaml.safe_load(head)
    assert (found["license"], found["library_name"], found["pipeline_tag"]) == (
        "apache-2.0",
        "textdiff",
        "text-generation",
    )
    assert {"epsilon-hybrid", "flat"} < set(found["tags"])
    (result,) = (exported / "results").glob("perplexity*.json")
    for bound in json.loads(result.read_text())["bounds"]:
        assert (
            f"| {bound['name']} |" in body
            and f"| {bound['nats']:.4f} | {bound['standard_error']:.4f} |" in body
        )
    assert (
        "`EpsilonHybrid(epsilon=0.01)`" in body
        and "`Flat(levels=64)`" in body
        and "prediction | cavity" in body
    )
    assert "(loss.png)" in body and "(hyperschedule.png)" in body
    assert (
        "perplexity --discrete" in body and "B1 and B2 are other readings" in body
    )  # the bound of what is drawn


@pytest.mark.parametrize(
    "model, said",
    [("ar", "very T-step chain that `generate` draws from"), ("gamma_score", "score entropy")],
)
def test_the_card_of_other_models(model, said, tmp_path):
    card = (textdiff.export(tiny.run(model), tmp_path / "out") / "README.md").read_text()
    assert said in card and "Not measured yet" in card


def test_results_of_other_weights_stay_at_home(run, tmp_path):
    """Measured before the last step, say: the card must not show them."""
    copy = shutil.copytree(run, tmp_path / "copy")
    (old,) = (copy / "results").glob("perplexity*.json")
    found = json.loads(old.read_text())
    found["weights_sha256"], found["bounds"][0]["nats"] = "0" * 64, 0.123456
    (copy / "results" / "old.json").write_text(json.dumps(found))
    with pytest.warns(UserWarning, match=r"measured of other weights: results/old\.json"):
        out = textdiff.export(copy, tmp_path / "out")
    assert old.name in [path.name for path in (out / "results").iterdir()]
    assert (
        not (out / "results" / "old.json").exists()
        and "0.1235" not in (out / "README.md").read_text()
    )
    assert (copy / "results" / "old.json").exists()


# --- the reference bound


@pytest.mark.parametrize("model", ["epsilon", "ar", "gamma", "gamma_score", "udlm"])
def test_the_reference_is_a_pure_function_of_the_model(model):
    found = reference.compute(textdiff.load(tiny.run(model)))
    assert found == reference.compute(textdiff.load(tiny.run(model)))
    assert set(found) == ({"nelbo", "b1", "b2"} if model == "epsilon" else {"nelbo"})
    assert all(
        1 < value < 100 for value in found.values()
    )  # uniform tokens cost about log N = 3.5 and more


def test_other_weights_are_noticed(copy, capsys):
    """Even if they are whole, and sealed with sums of their own: rounded to bfloat16 is another
    model.
    """
    model = textdiff.load(copy)
    hub.save(model, copy)
    textdiff.load(copy, verify=True)
    hub.save(
        model, copy, {name: value.bfloat16() for name, value in model.network.state_dict().items()}
    )
    with pytest.raises(
        ValueError,
        match=r"does not give the reference bounds of .*reference\.json.*tolerance 1e-05",
    ):
        textdiff.load(copy, verify=True)
    textdiff.load(copy)
    assert "does not give" in tiny.refused(
        capsys, ["evaluate", "perplexity", str(copy), "--verify"]
    )


@pytest.mark.parametrize(
    "stored",
    ["{}", "[]", '{"bounds": 3}', '{"bounds": {"nelbo": "x"}}', '{"bounds": {"nelbo": 3.0}}', "{"],
)
def test_broken_references(stored, copy):
    (copy / "reference.json").write_text(stored)
    with pytest.raises(ValueError, match=r"reference\.json (holds|is not valid JSON)"):
        textdiff.load(copy, verify=True)


def test_a_run_has_no_reference(capsys):
    assert "`textdiff export` writes one" in tiny.refused(
        capsys, ["sample", str(tiny.run()), "--verify"]
    )
    with pytest.raises(ValueError, match=r"holds no reference\.json"):
        textdiff.load(tiny.run() / "checkpoints" / "last.ckpt", verify=True)


# --- transformers

AUTO = """
import importlib.util, sys
import textdiff
heavy = {"torch", "transformers", "numpy", "safetensors"}
assert not heavy & set(sys.modules), "import textdiff must stay quick"
importlib.util.find_spec("transformers")  # as many libraries ask whether it is installed
from transformers import AutoConfig, AutoModel
config = AutoConfig.from_pretrained(sys.argv[1])
network = AutoModel.from_config(config)
print(type(config).__name__, type(network).__name__, textdiff.load(sys.argv[1]).length)
"""


def test_auto_classes_know_our_networks():
    """After `import textdiff`, which imports nothing heavy; the other order is in
    test_hub_endpoint.
    """
    done = subprocess.run(
        [sys.executable, "-c", AUTO, str(tiny.run())], capture_output=True, text=True
    )
    assert done.stdout == "TransformerConfig TransformerDenoiser 16\n", done.stderr


# --- what may stand for a RUN


def test_a_checkpoint_is_a_run(run, tmp_path):
    last = run / "checkpoints" / "last.ckpt"
    model, again = textdiff.load(run), textdiff.load(last)
    assert same_logits(model, again) and not again.network.training
    assert (again.process, again.hyperschedule, again.prediction) == (
        model.process,
        model.hyperschedule,
        model.prediction,
    )
    assert (again.length, again.data) == (model.length, model.data)
    measure(last)
    (one,), (other,) = ((run / "results" / name).glob("perplexity*.json") for name in (".", "last"))
    one, other = json.loads(one.read_text()), json.loads(other.read_text())
    assert one["bounds"] == other["bounds"] and one["weights_sha256"] == other["weights_sha256"]
    assert other["run"] == "run/last.ckpt"
    out = textdiff.export(last, tmp_path / "out")
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert same_logits(
        model, textdiff.load(out, verify=True)
    ) and "generation_config.json" in names(out)
    shutil.rmtree(run / "results" / "last")


def test_an_earlier_checkpoint_has_its_own_weights(tmp_path):
    run = tiny.fit(
        tmp_path / "run",
        "--checkpoint.every_n_train_steps=1",
        "--checkpoint.save_top_k=-1",
        "--model.lr=0.1",
    )
    first, last = (textdiff.load(run / "checkpoints" / f"step-{step}.ckpt") for step in (1, 2))
    assert same_logits(last, textdiff.load(run)) and not same_logits(first, last)


def test_where_results_go(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find(run).results == run / "results"
    assert find(run / "checkpoints" / "step-40.ckpt").results == run / "results" / "step-40"
    assert find(find(run)) == find(str(run))
    snapshot = tmp_path / "snapshot"
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert (
        find("me/tiny@v1").results == Path("results/me/tiny@v1")
        and find("me/tiny").folder == snapshot
    )


@pytest.mark.parametrize(
    "source, message",
    [
        ("nowhere", "there is no model folder 'nowhere': give"),
        ("./no/where", "there is no model folder"),
        (
            "me/none",
            r"there is no model folder 'me/none' here, and the Hub does not give it "
            ".*unset HF_HUB_OFFLINE",
        ),
        ("me/none@../../x", "there is no model folder"),
        ("no.ckpt", "there is no checkpoint"),
        ("weights.bin", "is neither a model folder nor a .ckpt"),
        ("alone.ckpt", "stands alone: a checkpoint holds no tokenizer"),
    ],
)
def test_what_is_no_model(source, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("weights.bin", "alone.ckpt"):
        Path(name).write_bytes(pickle.dumps(1))
    with pytest.raises(ValueError, match=message):
        textdiff.load(source)
    tiny.refused(capsys, ["sample", source])


# --- what is never opened


class Evil:
    """A pickle that would write a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def evil_pickle(folder, marker):
    (folder / "checkpoints" / "last.ckpt").write_bytes(pickle.dumps(Evil(marker)))


def evil_checkpoint(folder, marker):
    path = folder / "checkpoints" / "last.ckpt"
    torch.save(torch.load(path, weights_only=True) | {"extra": Evil(marker)}, path)


def truncated(folder, marker):
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])


def flipped(folder, marker):
    """In the middle of a tensor, where torch itself would not notice."""
    path = folder / "checkpoints" / "last.ckpt"
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.file_size // 2 + 200] ^= 1
    path.write_bytes(content)


def change(folder, **values):
    path = folder / "checkpoints" / "last.ckpt"
    found = torch.load(path, weights_only=True)
    found["hyper_parameters"] |= values
    torch.save({name: value for name, value in found.items() if value is not None}, path)


CHECKPOINTS = {
    "pickle": (evil_pickle, "cannot be read as a checkpoint"),
    "checkpoint with an object": (
        evil_checkpoint,
        "cannot be read as a checkpoint .*objects, which are not opened",
    ),
    "truncated": (truncated, "cannot be read as a checkpoint"),
    "flipped bit": (flipped, "the checksum of .* is wrong"),
    "foreign": (
        lambda f, _: torch.save({"a": 1}, f / "checkpoints/last.ckpt"),
        "not a checkpoint that textdiff wrote",
    ),
    "foreign class": (
        lambda f, _: change(f, process={"class_path": "os.system"}),
        "'os.system' is not a class of textdiff",
    ),
    "class of another version": (
        lambda f, _: change(f, process={"class_path": "textdiff.process.New"}),
        "'textdiff.process.New' is not a Process; known: Absorbing",
    ),
    "option of another version": (
        lambda f, _: change(
            f, network={"class_path": "textdiff.network.Transformer", "init_args": {"new": 1}}
        ),
        "Transformer takes no argument new",
    ),
    "another shape": (
        lambda f, _: change(
            f,
            network={
                "class_path": "textdiff.network.Transformer",
                "init_args": tiny.SHAPE | {"layers": 2},
            },
        ),
        "of another architecture than its own settings",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_that_are_refused(name, tmp_path):
    spoil, message = CHECKPOINTS[name]
    folder, marker = shutil.copytree(tiny.run(), tmp_path / "run"), tmp_path / "marker"
    spoil(folder, marker)
    with pytest.raises(ValueError, match=message):
        textdiff.load(folder / "checkpoints" / "last.ckpt")
    assert not marker.exists()


def edit_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def remote_code(folder, marker, **values):
    (folder / "evil.py").write_text(
        f"import pathlib; pathlib.Path({str(marker)!r}).touch()\nclass Evil: pass\n"
    )
    edit_json(folder / "config.json", **values)


def only_a_pickle(folder, marker):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pickle_as_weights(folder, marker):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil(marker)))
    ours = json.loads((folder / "config.json").read_text())["textdiff"]
    edit_json(
        folder / "config.json",
        textdiff=ours
        | {"sha256": {n: files.sha256(folder / n) for n in (hub.WEIGHTS, hub.TOKENIZER)}},
    )


def newer(folder, marker):
    edit_json(
        folder / "config.json",
        textdiff=json.loads((folder / "config.json").read_text())["textdiff"] | {"format": 2},
    )


def remote_tokenizer(folder, marker):
    remote_code(folder, marker)
    edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": [None, "evil.Evil"]},
    )


FOLDERS = {
    "remote network": (
        lambda f, m: remote_code(f, m, model_type="x", auto_map={"AutoModel": "evil.Evil"}),
        "no textdiff model",
    ),
    "network of transformers": (
        lambda f, m: edit_json(f / "config.json", model_type="gpt2"),
        "no textdiff model",
    ),
    "remote tokenizer": (remote_tokenizer, "the tokenizer in .* cannot be read"),
    "only a pickle": (
        only_a_pickle,
        r"pytorch_model\.bin may be pickles, which can run code and are not opened",
    ),
    "pickle as weights": (pickle_as_weights, "cannot be read"),
    "newer folder": (newer, "has format 2, written by textdiff .*, which reads format 1"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_are_refused(name, copy, tmp_path):
    spoil, message = FOLDERS[name]
    spoil(copy, tmp_path / "marker")
    with pytest.raises(ValueError, match=message):
        textdiff.load(copy)
    with pytest.raises(ValueError, match=message):
        textdiff.export(copy, tmp_path / "out")
    assert not (tmp_path / "marker").exists() and not (tmp_path / "out").exists()


def test_config_json_comes_last(exported):
    """It holds the sums of the others: whoever sees it has a whole folder, or is told."""
    assert share.contents(exported)[-1][0] == "config.json"
