"""`POST /v1/completions`, by OpenAI's own client and by hand: the texts are `generate`'s."""

import pytest
import tiny

pytest.importorskip("fastapi", reason="needs textdiff[serve]")
openai = pytest.importorskip("openai", reason="needs OpenAI's client")
from live import NAME, serving  # noqa: E402

from textdiff.hyperschedule import QuenchedAR  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def live():
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def client(live):
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)


def drawn(live, prompt, **options):
    return live.model.generate(prompt, eos_token_id=live.model.ends, **options)


def test_a_completion_is_what_generate_draws(live, client):
    told = client.completions.create(model=NAME, prompt="the ", max_tokens=8, seed=5)
    alone = drawn(live, "the ", max_new_tokens=8, seed=5)
    assert told.choices[0].text == alone.completions[0]
    ended = len(alone.ids[0]) < 12
    assert told.choices[0].finish_reason == ("stop" if ended else "length")
    assert told.usage.prompt_tokens == 4
    assert told.usage.completion_tokens == len(alone.ids[0]) - 4
    assert told.usage.total_tokens == len(alone.ids[0])
    assert told.usage.network_calls == alone.nfe[0] and told.seed == 5
    assert told.object == "text_completion" and told.model == NAME and told.id.startswith("cmpl-")


def test_an_empty_prompt(live):
    told = live.complete(prompt="", max_tokens=5, seed=2)
    assert told["choices"][0]["text"] == drawn(live, "", max_new_tokens=5, seed=2).completions[0]
    assert live.complete(max_tokens=5, seed=2)["choices"] == told["choices"]


def test_the_default_is_sixteen_tokens(client):
    told = client.completions.create(
        model=NAME, prompt="a", seed=1, extra_body={"ignore_eos": True}
    )
    assert told.usage.completion_tokens == 16


def test_n_and_several_prompts(live, client):
    told = client.completions.create(model=NAME, prompt=["the ", "a"], n=2, max_tokens=6, seed=2)
    alone = drawn(live, ["the ", "a"], num_return_sequences=2, max_new_tokens=6, seed=2)
    assert [c.text for c in told.choices] == alone.completions
    assert [c.index for c in told.choices] == [0, 1, 2, 3]
    ids = [live.model.encode(text).tolist() for text in ("the ", "a")]
    again = client.completions.create(model=NAME, prompt=ids, n=2, max_tokens=6, seed=2)
    assert [c.text for c in again.choices] == alone.completions
    one = client.completions.create(model=NAME, prompt=ids[0], n=2, max_tokens=6, seed=2)
    assert [c.text for c in one.choices] == alone.completions[:2]


def test_a_stream_adds_up_to_the_text(client):
    asked = {"model": NAME, "prompt": "the ", "n": 2, "max_tokens": 12, "seed": 3}
    whole = client.completions.create(**asked)
    texts, reasons, usage = ["", ""], [None, None], None
    for chunk in client.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [c.text for c in whole.choices]
    assert reasons == [c.finish_reason for c in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_a_law_is_chosen_at_the_top_level(live, client):
    law = {"hyperschedule": "Flat(4)", "sampler": "ACS(rate=4.0)", "top_k": 5, "min_p": 0.01}
    told = client.completions.create(
        model=NAME, prompt="the ", max_tokens=8, seed=1, temperature=0.7, top_p=0.9, extra_body=law
    )
    alone = drawn(live, "the ", max_new_tokens=8, seed=1, temperature=0.7, top_p=0.9, **law)
    assert told.choices[0].text == alone.completions[0]
    assert "under Flat(levels=4), ACS(" in told.law
    steps = live.complete(prompt="a", seed=1, hyperschedule="Flat(4)", max_denoising_steps=2)
    assert "Flat(levels=2)" in steps["law"]


def test_temperature_zero_is_the_likeliest(live, client):
    asked = {"model": NAME, "prompt": "the ", "max_tokens": 6, "temperature": 0}
    law = {"hyperschedule": "QuenchedAR"}
    texts = {
        client.completions.create(**asked, seed=s, extra_body=law).choices[0].text for s in range(3)
    }
    alone = drawn(live, "the ", max_new_tokens=6, top_k=1, hyperschedule="QuenchedAR")
    assert texts == {alone.completions[0]}


def test_stop_and_suffix_and_echo(live, client):
    asked = {"prompt": "the ", "seed": 5, "max_tokens": 12, "ignore_eos": True}
    text = live.complete(**asked)["choices"][0]["text"]
    stop = text[4:6]
    told = live.complete(**asked, stop=["never", stop])["choices"][0]
    assert told["text"] == text[: text.index(stop)] and told["finish_reason"] == "stop"
    assert live.complete(**asked, echo=True)["choices"][0]["text"] == "the " + text
    behind = live.complete(**asked, suffix=" dog", hyperschedule="Flat(4)")
    assert behind["usage"]["prompt_tokens"] == 8
    infill = live.model.generate(
        "the ", suffix=" dog", max_new_tokens=12, seed=5, hyperschedule="Flat(4)"
    )
    assert behind["choices"][0]["text"] == infill.completions[0]


def test_mask_is_text_unless_it_is_to_be_filled(live):
    told = live.complete(prompt="the [MASK]x", seed=1, max_tokens=3, echo=True)
    assert told["choices"][0]["text"].startswith("the [MASK]x")
    filled = live.complete(prompt="the [MASK][MASK]ick", seed=1, fill_mask=True, echo=True)
    alone = live.model.generate("the [MASK][MASK]ick", seed=1)
    assert filled["choices"][0]["text"] == alone.texts[0][:6]
    assert filled["usage"]["completion_tokens"] == 2


def test_log_probabilities_of_a_prompt(live, client):
    """Exact: their sum is the score of the text; elsewhere refused."""
    asked = {"model": NAME, "prompt": ["the quick", "fox"], "max_tokens": 0, "echo": True}
    law = {"hyperschedule": "QuenchedAR"}
    told = client.completions.create(**asked, logprobs=1, extra_body=law)
    scores = live.model.score("", ["the quick", "fox"], hyperschedule=QuenchedAR())
    for choice, score, text in zip(told.choices, scores, asked["prompt"], strict=True):
        assert choice.text == "".join(choice.logprobs.tokens) == text and score.exact
        assert -sum(choice.logprobs.token_logprobs) == pytest.approx(score.nats, abs=1e-9)
        assert choice.logprobs.text_offset == list(range(len(text)))
    assert told.usage.prompt_tokens == 12 and told.usage.completion_tokens == 0
    plain = client.completions.create(**asked)
    assert [c.text for c in plain.choices] == asked["prompt"]
    assert plain.choices[0].logprobs is None
    status, message, _ = live.refused(prompt="fox", max_tokens=0, echo=True, logprobs=1)
    assert status == 400 and "not known for EpsilonHybrid" in message
    assert live.refused(prompt="a" * 65, max_tokens=0, echo=True)[0] == 400


def test_a_seed_is_drawn_and_told(live):
    first, second = (live.complete(prompt="the ", max_tokens=12) for _ in range(2))
    assert first["seed"] != second["seed"]
    again = live.complete(prompt="the ", max_tokens=12, seed=first["seed"])
    assert again["choices"] == first["choices"]


def test_log_probabilities_of_drawn_tokens(live):
    asked = {"prompt": "the ", "max_tokens": 5, "seed": 2, "hyperschedule": "QuenchedAR"}
    told = live.complete(**asked, logprobs=0, ignore_eos=True)["choices"][0]
    alone = live.model.generate(
        "the ", max_new_tokens=5, seed=2, hyperschedule="QuenchedAR", logprobs=True
    )
    assert told["logprobs"]["token_logprobs"] == pytest.approx(alone.logprobs[0].tolist(), abs=1e-5)
    assert "".join(told["logprobs"]["tokens"]).replace("<|endoftext|>", "") == told["text"]
    assert told["logprobs"]["text_offset"][:2] == [0, 1]
    chunks = live.events(**asked, logprobs=0, ignore_eos=True)
    sums = [
        p
        for kind, data in chunks
        if data != "[DONE]"
        for p in (data["choices"][0]["logprobs"] or {"token_logprobs": []})["token_logprobs"]
    ]
    assert sums == told["logprobs"]["token_logprobs"]


def test_what_a_page_is_told(live):
    events = live.events(
        prompt="th",
        max_tokens=6,
        seed=1,
        hyperschedule="Flat(3)",
        stream_options={"include_provisional": True},
    )
    kinds = [kind for kind, _ in events]
    assert kinds[0] == "given" and events[0][1]["text"] == ["t", "h"] + [None] * 6
    assert kinds.count("provisional") == 3 and kinds.count("committed") == 1
    assert [data["nfe"] for kind, data in events if kind == "provisional"] == [1, 2, 3]
    last = next(data for kind, data in events if kind == "committed")
    assert last["position"] == [2, 3, 4, 5, 6, 7] and None not in last["text"]
    assert events[-1] == ("message", "[DONE]")


def test_errors_have_openais_shape(live, client):
    with pytest.raises(openai.NotFoundError, match="there is no 'gpt' here, only 'toy'"):
        client.completions.create(model="gpt", prompt="a")
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=NAME, prompt="a", extra_body={"sampler": "Nucleus"})
    assert error.value.param == "sampler" and "Ancestral" in error.value.message
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=NAME, prompt="a", stream=True, extra_body={"tempo": 1})
    assert client.models.list().data[0].id == NAME
    assert client.models.retrieve(NAME).id == NAME


NEUTRAL = {"frequency_penalty": 0, "presence_penalty": 0.0, "best_of": 1, "logit_bias": {}}


def test_fields_that_change_nothing_are_taken(live):
    empty = {"stop": None, "suffix": None, "logprobs": None, "stream": None, "user": "me"}
    assert live.complete(prompt="a", max_tokens=2, seed=1, **NEUTRAL, **empty)["choices"]


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        ({"sed": 1}, "sed", "unknown field"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"temperature": -1}, "temperature", "greater"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"max_tokens": 0}, None, "max_tokens=0 draws nothing"),
        ({"max_tokens": 0, "echo": True, "n": 2, "stream": False}, None, "nothing is drawn"),
        ({"max_tokens": 10**9}, "max_tokens", "this server takes 64"),
        ({"prompt": "a" * 10**4}, "prompt", "more than fit"),
        ({"prompt": [10**6]}, None, "a prompt must be a text or ids"),
        ({"prompt": []}, "prompt", ""),
        ({"prompt": "\ud800"}, "prompt", ""),
        ({"n": 5}, "n", "4 sequences allowed"),
        ({"stop": [1]}, "stop", "string"),
        ({"stop": [""]}, None, "stop must be strings"),
        ({"frequency_penalty": 0.5}, None, "frequency_penalty is not supported"),
        ({"best_of": 3}, None, "best_of=3 is not supported"),
        ({"logit_bias": {"3": 1}}, None, "logit_bias is not supported"),
        ({"logprobs": 5}, "logprobs", "less than or equal to 1"),
        ({"hyperschedule": "Flat(300)"}, "hyperschedule", "300 is more than the 256"),
        ({"hyperschedule": "Block(1, 40)"}, "hyperschedule", "network calls"),
        ({"hyperschedule": "Slide(4, '1e99999999')"}, "hyperschedule", "fraction"),
        ({"hyperschedule": "Slide(4, '1/0')"}, "hyperschedule", "fraction"),
        ({"hyperschedule": "StartSteps(1, (0, 1))"}, "hyperschedule", "not for"),
        ({"hyperschedule": "__import__('os')"}, "hyperschedule", "unknown"),
        ({"hyperschedule": "(" * 150}, "hyperschedule", "cannot read"),
        ({"sampler": "PredictorCorrector(corrections=100000)"}, "sampler", "more than the 256"),
        ({"sampler": "PredictorCorrector(corrections=200)"}, "hyperschedule", "network calls"),
        ({"sampler": "ACS(rate=1e999)"}, "sampler", "inf is more than the 256"),
        ({"sampler": "Block({[]: 1})"}, "sampler", "unknown sampler"),
        ({"sampler": "ACS({[]: 1})"}, "sampler", "cannot read"),
        ({"sampler": "FirstHitting", "hyperschedule": "Slide(4, 1)"}, None, "do not overlap"),
        ({"sampler": "GibbsCorrector"}, None, "draws none"),
        ({"sampler": "Analytic"}, None, "log_score"),
        ({"stream": False, "stream_options": {"include_usage": True}}, None, "needs stream=true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "unknown field"),
        ({"repetition_penalty": 1.5}, None, "noise that only masks"),
    ],
)
def test_what_is_refused_names_the_field(live, fields, name, message):
    status, told, param = live.refused(**{"prompt": "the ", "seed": 1} | fields)
    assert (status, param) == (400, name) and message in told
    streamed = live.refused(**{"stream": True, "prompt": "the ", "seed": 1} | fields)
    assert streamed[0] == 400


def test_the_mask_is_no_token_of_a_prompt(live):
    status, message, _ = live.refused(prompt=[live.model.mask_id])
    assert status == 400 and "must be ordinary tokens" in message


def test_a_refusal_says_what_generate_says(live):
    """No other rule stands in the server than in Python."""
    with pytest.raises(ValueError) as error:
        live.model.generate("a", sampler="FirstHitting", hyperschedule="Slide(4, 1)")
    assert live.refused(prompt="a", sampler="FirstHitting", hyperschedule="Slide(4, 1)")[1] == str(
        error.value
    )


def test_the_toy_is_the_toy(live):
    card = live.ask("/v1/models")[1]["data"][0]
    assert card["length"] == live.model.length and card["max_length"] == 64
    assert "Law: " in card["samplers"]["Ancestral"] and "GibbsCorrector" not in card["samplers"]
    assert "Analytic" not in card["samplers"] and "Block" in card["hyperschedules"]
    assert tiny.run()
