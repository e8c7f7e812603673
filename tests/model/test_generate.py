"""`Model.generate`: lengths, suffixes, ends of text, streams, trajectories, the config that is
stored with the model.
"""

import dataclasses
import io
import json
import shutil
from contextlib import redirect_stdout

import pytest
import tiny
import torch
from transformers import TextDiffusionStreamer, TextStreamer

import textdiff
from textdiff.commands.cli import main
from textdiff.generation.config import GenerationConfig
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide
from textdiff.samplers import (
    ACS,
    Ancestral,
    Confidence,
    Count,
    FirstHitting,
    PosteriorCorrector,
    PredictorCorrector,
    Probability,
)
from textdiff.viewer.terminal import clean

pytestmark = pytest.mark.filterwarnings("ignore:this model was trained under")
SCHEDULES = [None, QuenchedAR(), Block(4, 3), Slide(4, 1)]


@pytest.fixture(scope="module")
def model():
    return textdiff.load(tiny.run())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_prompts_of_different_lengths_share_a_batch(model, schedule):
    prompts = ["the ", "q", "", "the quick br", "fox [MASK][MASK]mps"]
    found = model.generate(prompts, max_new_tokens=6, hyperschedule=schedule, seed=1)
    for number, prompt in enumerate(prompts):
        alone = model.generate(
            prompt, max_new_tokens=6, hyperschedule=schedule, seed=1, first=number
        )
        assert torch.equal(alone.ids[0], found.ids[number]) and alone.nfe[0] == found.nfe[number]
        assert len(alone.ids[0]) == len(model.encode(prompt)) + 6
    assert found.tokens == 6 * 5 + 2


def test_a_suffix_stands_at_the_end(model):
    found = model.generate(["the ", "a"], suffix=[" fox", " dog"], max_new_tokens=3)
    assert (
        found.texts[0].startswith("the ")
        and found.texts[0].endswith(" fox")
        and found.texts[1].endswith(" dog")
    )
    assert [len(ids) for ids in found.ids] == [11, 8] and found.tokens == 6
    with pytest.raises(ValueError, match="2 prompts but 1 suffixes"):
        model.generate(["a", "b"], suffix=["c"])


def test_ids_are_prompts_too(model):
    ids = model.encode("the [MASK]x")
    assert torch.equal(model.generate(ids).ids[0], model.generate("the [MASK]x").ids[0])
    assert torch.equal(model.generate([ids.tolist()]).ids[0], model.generate("the [MASK]x").ids[0])
    with pytest.raises(ValueError, match=r"ids \[L\] in 0\.\."):
        model.generate(torch.tensor([10_000]))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_text_ends_where_the_end_was_drawn(model, schedule):
    whole = model.generate("the ", num_return_sequences=8, hyperschedule=schedule, seed=2)
    eos = int(whole.ids[0][8])
    cut = model.generate(
        "the ", num_return_sequences=8, hyperschedule=schedule, seed=2, eos_token_id=eos
    )
    for a, b in zip(whole.ids, cut.ids, strict=True):
        ends = [i for i in range(4, len(a)) if a[i] == eos]
        assert torch.equal(b, a[: ends[0] + 1] if ends else a)
    assert cut.tokens == sum(len(ids) - 4 for ids in cut.ids) < whole.tokens
    if schedule is not None:
        assert cut.body_rows < whole.body_rows, "a finished row still costs"
    infill = model.generate(
        "t[MASK][MASK][MASK][MASK][MASK][MASK]e", eos_token_id=eos, seed=2, hyperschedule=schedule
    )
    assert len(infill.ids[0]) == 8 and int(infill.ids[0].max()) < model.mask_id


@pytest.mark.parametrize("schedule", [Flat(64), *SCHEDULES[1:]], ids=str)
def test_what_settles_without_a_call_is_told_too(schedule):
    """Under absorbing noise a token is often drawn long before it settles: streams and trajectories
    still end.
    """
    model = textdiff.load(tiny.run("mdlm"))
    for seed in range(5):
        printed = io.StringIO()
        with redirect_stdout(printed):
            streamer = TextStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
            found = model.generate(
                hyperschedule=schedule, seed=seed, streamer=streamer, output_trajectory=True
            )
        assert printed.getvalue() == found.texts[0] + "\n"
        assert (
            found.trajectories[0].settled[-1].all()
            and len(found.trajectories[0].ids) == found.nfe[0] + 1
        )


def test_a_stream_goes_on_behind_an_end_in_a_gap(model):
    text = "t[MASK][MASK][MASK] fox"
    eos = int(model.generate(text, hyperschedule=QuenchedAR()).ids[0][1])
    printed = io.StringIO()
    with redirect_stdout(printed):
        streamer = TextStreamer(model.tokenizer, skip_special_tokens=True)
        found = model.generate(
            text, hyperschedule=QuenchedAR(), eos_token_id=eos, streamer=streamer
        )
    assert printed.getvalue() == found.texts[0] + "\n"


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("kind", [TextStreamer, TextDiffusionStreamer])
def test_a_streamer_prints_the_text(model, schedule, kind):
    printed = io.StringIO()
    with redirect_stdout(printed):
        found = model.generate(
            "the ", hyperschedule=schedule, streamer=kind(model.tokenizer, skip_special_tokens=True)
        )
    text = printed.getvalue()
    if kind is TextStreamer:
        assert text == found.texts[0] + "\n"
    else:
        drafts = text.count("\x1b[33m")
        assert drafts >= found.nfe[0] - 1 and text.endswith("\n")
    with pytest.raises(ValueError, match="a single sample, not 2"):
        model.generate("the ", num_return_sequences=2, streamer=kind(model.tokenizer))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_trajectories(model, schedule):
    prompts = ["the ", "a [MASK][MASK] b"]
    plain = model.generate(prompts, hyperschedule=schedule, sampler=ACS(rate=9.0), max_new_tokens=5)
    alone = model.generate(
        prompts[0],
        hyperschedule=schedule,
        sampler=ACS(rate=9.0),
        max_new_tokens=5,
        output_trajectory=True,
    )
    found = model.generate(
        prompts,
        hyperschedule=schedule,
        sampler=ACS(rate=9.0),
        max_new_tokens=5,
        output_trajectory=True,
    )
    assert plain.trajectories is None and plain.texts == found.texts
    assert torch.equal(alone.trajectories[0].ids, found.trajectories[0].ids), (
        "a trajectory knows its batch"
    )
    for path, ids, prompt, nfe in zip(
        found.trajectories, found.ids, prompts, found.nfe, strict=True
    ):
        assert len(path.ids) == nfe + 1
        frames, L = path.ids.shape
        assert (
            L == len(ids)
            and torch.equal(path.ids[-1], ids)
            and path.settled[-1].all()
            and not path.settled[0].all()
        )
        assert path.settled.shape == path.confidence.shape == (frames, L)
        given = torch.cat([model.encode(prompt) < model.mask_id, torch.zeros(5, dtype=torch.bool)])
        assert torch.equal(path.known, given) and (path.ids[:, given] == ids[given]).all()
        changed = path.ids[1:] != path.ids[:-1]
        sure = path.confidence[1:]
        assert (
            path.confidence[0].isnan().all()
            and (sure[changed & (path.ids[1:] < model.mask_id)] > 0).all()
        )
        assert (path.settled[1:] | ~path.settled[:-1]).all(), "a settled token was taken back"


def test_first_hitting_spends_one_call_a_token_and_one_for_the_atom(model):
    found = model.generate(["the ", "q"], sampler=FirstHitting(), max_new_tokens=6)
    assert found.nfe == [7, 7]
    blocks = model.generate(
        "the ", sampler=FirstHitting(), max_new_tokens=8, hyperschedule=Block(4, 3)
    )
    assert blocks.nfe == [10] and blocks.tokens_per_forward == pytest.approx(0.8)
    two = Confidence(score=Probability(), select=Count(2))
    assert max(model.generate(["the ", "q"], sampler=two, max_new_tokens=6).nfe) <= 4
    with pytest.raises(
        ValueError, match="chooses its own times and needs windows that do not overlap"
    ):
        model.generate(sampler=FirstHitting(), hyperschedule=Slide(4, 1))


def test_correctors_spend_their_own_calls(model):
    plain = model.generate("the ", sampler=Ancestral(), hyperschedule=Flat(8))
    corrected = model.generate(
        "the ",
        sampler=PredictorCorrector(corrector=PosteriorCorrector(), corrections=2),
        hyperschedule=Flat(8),
    )
    assert plain.nfe[0] < corrected.nfe[0] <= 24
    for alone in (PosteriorCorrector(), PredictorCorrector(predictor=PosteriorCorrector())):
        with pytest.raises(ValueError, match="corrects tokens but draws none"):
            model.generate(sampler=alone)


def test_steps_of_a_window(model):
    assert model.generate("the ", max_denoising_steps=3).nfe[0] <= 3
    assert model.generate("the ", max_denoising_steps=1).nfe == [1]


def test_filters_act(model):
    greedy = model.generate("the ", temperature=1e-6, hyperschedule=QuenchedAR())
    assert model.generate("the ", top_k=1, hyperschedule=QuenchedAR()).texts == greedy.texts
    assert model.generate("the ", min_p=1.0, hyperschedule=QuenchedAR()).texts == greedy.texts
    assert model.generate("the ", top_p=1e-6, hyperschedule=QuenchedAR()).texts == greedy.texts
    absorbing = textdiff.load(tiny.run("mdlm"))
    banned = absorbing.encode("e ")
    found = absorbing.generate("", num_return_sequences=8, suppress_tokens=banned.tolist())
    assert not torch.isin(torch.cat(found.ids), banned).any()


def test_the_config_of_a_model_is_stored_with_it(model, tmp_path):
    config = GenerationConfig(
        max_new_tokens=5,
        sampler=ACS(rate=2.0),
        hyperschedule=Block(4, 2),
        top_p=0.9,
        suppress_tokens=(3,),
    )
    kept = dataclasses.replace(model, generation_config=config)
    textdiff.save(kept, tmp_path)
    loaded = textdiff.load(tmp_path)
    assert loaded.generation_config == config
    assert loaded.generate("the ").texts == model.generate("the ", config).texts
    assert loaded.generate("the ", max_length=16).tokens == 12, (
        "another length replaces the stored one"
    )
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert (
        written["top_p"] == 0.9
        and written["sampler"]["init_args"]["rate"] == 2.0
        and "seed" not in written
    )
    (tmp_path / "generation_config.json").write_text('{"beams": 3}')
    with pytest.raises(ValueError, match="takes no option beams"):
        textdiff.load(tmp_path)


def test_stored_steps_give_way_to_another_hyperschedule(model):
    kept = dataclasses.replace(model, generation_config=GenerationConfig(max_denoising_steps=2))
    assert kept.generate().nfe[0] <= 2 < kept.generate(hyperschedule=Flat(64)).nfe[0]
    assert kept.generate(hyperschedule=Slide(4, 1)).nfe[0] > 2
    with pytest.raises(ValueError, match="cannot be written down"):
        GenerationConfig(seed=torch.Generator()).as_dict()


def test_options_that_do_not_exist_are_refused(model):
    with pytest.raises(ValueError, match="generate takes no option num_beams; it takes "):
        model.generate(num_beams=3)
    for options in (
        {"max_new_tokens": 2.5},
        {"temperature": 1e-320},
        {"seed": 2**70},
        {"eos_token_id": 10**6},
        {"top_k": 0},
        {"top_p": 0.0},
        {"min_p": 2.0},
        {"batch_size": 0},
        {"max_new_tokens": 3, "max_length": 4},
    ):
        with pytest.raises(ValueError):
            model.generate(**options)


# --- the command


def test_outputs_of_the_command(capsys, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "the "}\n{"prompt": "q", "suffix": "fox"}\n')
    files = [tmp_path / f"x.{kind}" for kind in ("txt", "json", "jsonl", "html")]
    words = [
        "--prompts",
        str(prompts),
        "--max-new-tokens",
        "4",
        *(word for file in files for word in ("--output", str(file))),
    ]
    main(["sample", str(tiny.run()), *words])
    out = capsys.readouterr().out
    assert files[0].read_text() == out
    record, rows = (
        json.loads(files[1].read_text()),
        [json.loads(line) for line in files[2].read_text().splitlines()],
    )
    assert (
        [row["text"] for row in rows] == record["samples"]
        and rows[1]["text"].endswith("fox")
        and len(rows[1]["ids"]) == 8
    )
    assert record["generation_config"]["max_new_tokens"] == 4 and record["settings"]["nfe"] >= 1
    page = files[3].read_text()
    assert page.lstrip().lower().startswith("<!doctype html>") and "://" not in page
    monkeypatch.setattr("sys.stdin", io.StringIO("the \nq\n"))
    main(["sample", str(tiny.run()), "--prompts", "-", "--max-new-tokens", "4", "--watch"])
    found = capsys.readouterr()
    assert found.out.count("--- sample") == 2 and found.err.startswith("call 0 (")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "holds no prompt"),
        ("{", "line 1 of the prompts is not JSON"),
        ('{"text": "a"}', "must be an object with 'prompt'"),
        ('{"prompt": "a", "end": "b"}', "unknown fields end"),
    ],
)
def test_prompts_that_cannot_be_read(lines, message, capsys, tmp_path):
    (tmp_path / "p.jsonl").write_text(lines)
    assert message in tiny.refused(
        capsys, ["sample", str(tiny.run()), "--prompts", str(tmp_path / "p.jsonl")]
    )


# --- what a new user meets


def test_choices_may_be_written_as_on_the_command_line(model):
    written = model.generate("the ", hyperschedule="Block(4, 3)", sampler="ACS(rate=4)")
    assert (
        written.texts
        == model.generate("the ", hyperschedule=Block(4, 3), sampler=ACS(rate=4)).texts
    )
    for options, message in (
        ({"sampler": Block}, "sampler must be a Sampler"),
        ({"hyperschedule": "Blok"}, "unknown hyperschedule"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(**options)


def test_unknown_characters_are_warned_of():
    characters = textdiff.load(tiny.run())
    with pytest.warns(UserWarning, match="2 tokens of the prompt 'é日' are unknown"):
        characters.generate("é日", max_new_tokens=2)


def test_the_package_lists_what_it_has():
    assert {"load", "save", "export", "push", "Model", "Samples"} <= set(dir(textdiff))


class Numbered(dict):
    """What a tokenizer returns: a mapping."""


@pytest.mark.parametrize(
    "prompts, message",
    [
        (Numbered(input_ids=[[1, 2]], attention_mask=[[1, 1]]), "input_ids"),
        ([{"role": "user", "content": "the"}], "apply_chat_template"),
        (3, "prompts must be a text"),
        ([1.5], "a prompt must be a text or ids"),
        ([None], "a prompt must be a text or ids"),
    ],
)
def test_what_is_no_prompt_is_refused(model, prompts, message):
    with pytest.raises(ValueError, match=message):
        model.generate(prompts)


def test_prompts_in_other_containers(model):
    ids = model.encode("the ")
    expected = model.generate("the ", max_new_tokens=2).ids[0]
    for prompts in (iter(["the "]), ids.numpy(), ids.tolist(), ids[None], ("the ",)):
        assert torch.equal(model.generate(prompts, max_new_tokens=2).ids[0], expected)


def test_values_that_transformers_takes():
    import numpy as np
    from transformers import GenerationConfig as TheirConfig

    found = GenerationConfig(
        suppress_tokens=None,
        max_new_tokens=np.int64(4),
        temperature=np.float32(0.5),
        seed=np.int64(3),
        eos_token_id=torch.tensor([2, 3]),
        top_k=np.int32(2),
    )
    assert found == GenerationConfig(
        max_new_tokens=4, temperature=0.5, seed=3, eos_token_id=(2, 3), top_k=2
    )
    json.dumps(found.as_dict())
    assert GenerationConfig(eos_token_id=[2]).ends == (2,) and GenerationConfig().ends == ()
    theirs = TheirConfig(max_new_tokens=4, temperature=0.5, do_sample=True, eos_token_id=[2, 3])
    assert GenerationConfig.of(theirs) == GenerationConfig(
        max_new_tokens=4, temperature=0.5, eos_token_id=(2, 3)
    )
    with pytest.raises(ValueError, match="takes no option num_beams"):
        GenerationConfig.of(TheirConfig(num_beams=3))
    with pytest.raises(ValueError, match="generation_config must be"):
        GenerationConfig.of({"top_k": 1})


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1.5},
        {"top_p": "0.9"},
        {"top_k": 1.5},
        {"temperature": None},
        {"max_length": True},
        {"use_cache": "yes"},
        {"suppress_tokens": "ab"},
        {"eos_token_id": 1.0},
        {"seed": None},
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        GenerationConfig(**options)


def test_any_of_several_ends_ends_a_text(model):
    whole = model.generate("the ", hyperschedule=QuenchedAR(), seed=2).ids[0]
    first, other = int(whole[8]), int(whole[6])
    for ends in ([first, other], torch.tensor([other, first])):
        cut = model.generate("the ", hyperschedule=QuenchedAR(), seed=2, eos_token_id=ends)
        place = min(i for i in range(4, 16) if int(whole[i]) in (first, other))
        assert torch.equal(cut.ids[0], whole[: place + 1])
        assert cut.texts[0] == "the " + cut.completions[0]


def test_a_suffix_that_is_not_seen_is_warned_of(model, recwarn):
    model.generate("the ", suffix=" fox", max_new_tokens=4)
    assert not [one for one in recwarn if "suffix" in str(one.message)]
    for schedule, unseen in ((QuenchedAR(), 4), (Block(4, 3), 4), (Block(6, 3), 2)):
        with pytest.warns(UserWarning, match=f"{unseen} drawn positions settle before the suffix"):
            model.generate("the ", suffix=" fox", max_new_tokens=4, hyperschedule=schedule)


def test_the_command_keeps_the_models_own_seed(tmp_path):
    folder = shutil.copytree(tiny.run(), tmp_path / "run")
    own = {"seed": 7, "batch_size": 3}
    (folder / "generation_config.json").write_text(json.dumps(own))
    words = ["sample", str(folder), "--output", str(tmp_path / "x.json")]
    for extra, seed in (([], 7), (["--seed", "2"], 2)):
        main([*words, *extra])
        record = json.loads((tmp_path / "x.json").read_text())
        assert record["generation_config"] == {**own, "seed": seed} and record["seed"] == seed
        assert record["samples"] == textdiff.load(tiny.run()).generate(seed=seed).texts


def test_control_characters_do_not_reach_a_terminal():
    assert clean("a\x1b[2J\tb\nc\u202e\x07") == "a␛[2J\tb\nc\ufffd␇"
