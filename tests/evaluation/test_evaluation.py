"""Measured bounds: unbiased, with the right error bar, independent of the batch; and the command
that writes them.
"""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny
import torch
from toys import a_bound, random_transformer

import textdiff
from textdiff.commands.cli import main
from textdiff.data import BPE, Files, TextData
from textdiff.data.text_bytes import text_bytes
from textdiff.denoiser.prediction import Prediction
from textdiff.evaluation import perplexity
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide
from textdiff.model.model import Model
from textdiff.noise import Noise, Stream
from textdiff.objective import Batch
from textdiff.objective.curve import level_bins, place_bins
from textdiff.objective.orders import Orders

MODELS = sorted(path.stem for path in tiny.CONFIGS.glob("model/*.yaml"))


def data(batch_size=8, **options):
    made = TextData(Files(*[str(tiny.text())] * 3), length=16, batch_size=batch_size, **options)
    made.tokenizer = textdiff.load(tiny.run()).tokenizer
    return made


def rows(count, batch_size=8, **options):
    """`measure`'s batches: the first rows of the validation split."""

    def batches():
        left = count
        for batch in data(batch_size, **options).val_dataloader():
            part = {name: value[:left] for name, value in batch.items()}
            left -= len(part["ids"])
            yield Batch(**part)
            if not left:
                return

    return batches


def untrained(name, scale=0.0, **options):
    """The toy of a file in configs/model; `scale` perturbs it, so that its predictions differ from
    place to place.
    """
    torch.manual_seed(0)
    tokenizer = textdiff.load(tiny.run()).tokenizer
    made = tiny.module(name, len(tokenizer), bos=tokenizer.bos_token_id)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    network, schedule = made.network.eval(), options.pop("hyperschedule", made.hyperschedule)
    return Model(network, made.process, schedule, tokenizer, 16, made.objective.prediction)


def measured(model, count=8, batch_size=8, **options):
    return {
        b.name.split(":")[0]: b
        for b in perplexity.measure(model, rows(count, batch_size), **options)
    }


@pytest.mark.parametrize("name", MODELS)
def test_an_untrained_network_is_at_log_n(name):
    model = untrained(name)
    for discrete in (False, True) if model.prediction == Prediction.CAVITY else (False,):
        for bound in measured(model, 32, draws=32, discrete=discrete).values():
            assert bound.standard_error < (1.0 if name == "gidd" else 0.3)  # heavy tails near t = 0
            assert (
                abs(bound.nats - math.log(model.network.num_tokens))
                < 5 * bound.standard_error + 1e-4
            ), bound


def test_autoregression_is_the_cross_entropy():
    """Computed again with nothing of textdiff but the network: shift, causal pass, logarithm."""
    model = untrained("ar", 0.3)
    ids = torch.cat([batch.ids for batch in rows(8)()])
    begin = torch.full((len(ids), 1), model.tokenizer.bos_token_id)
    logits = model.network(torch.cat([begin, ids[:, :-1]], 1))
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).double(), ids.flatten()
    ).item()
    (bound,) = measured(model).values()
    assert bound.nats == pytest.approx(expected, rel=1e-6)
    assert (bound.estimator, bound.standard_error, bound.draws) == ("exact chain rule", 0.0, 1)
    assert bound.perplexity == pytest.approx(
        math.exp(expected), rel=1e-5
    ) and bound.bits == bound.nats / math.log(2)


def test_which_bounds_are_stated():
    assert set(measured(untrained("epsilon"), 2, draws=2)) == {"B3", "B1", "B2"}
    assert set(measured(untrained("epsilon"), 2, draws=2, discrete=True)) == {"B3", "B1", "B2"}
    for name in ("mdlm", "udlm", "gidd", "gamma", "gamma_score", "epsilon_smooth"):
        assert set(measured(untrained(name), 2, draws=2)) == {"NELBO"}


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("mdlm", {}, "mask count, continuous time"),
        ("udlm", {}, "stratified, continuous time"),
        ("mdlm", {"discrete": True}, "stratified, 64-step"),
        ("gidd", {"hyperschedule": Block(4, 5)}, "stratified, 5-step"),
    ],
)
def test_the_estimator_is_named(name, options, expected):
    (bound,) = measured(untrained(name), 2, draws=2, **options).values()
    assert (
        bound.estimator == expected
        and bound.draws == 2
        and bound.sequences == 2
        and bound.tokens == 32
    )
    assert bound.hyperschedule == str(options.get("hyperschedule", Flat(64)))


@pytest.mark.parametrize("name", ["epsilon", "gidd", "gamma_score", "ar"])
def test_results_do_not_depend_on_the_batch(name):
    model = untrained(name, 0.3)
    one, seven = (measured(model, 9, size, draws=4) for size in (1, 7))
    for key in one:
        assert one[key].nats == pytest.approx(seven[key].nats, rel=1e-6)
        assert one[key].standard_error == pytest.approx(
            seven[key].standard_error, rel=1e-4, abs=1e-12
        )
        assert one[key].tokens == seven[key].tokens == 9 * 16


def test_in_float64_results_do_not_depend_on_the_batch_at_all():
    model = untrained("gamma", 0.3)
    model.network.double()
    one, seven = (measured(model, 9, size, draws=4)["NELBO"].nats for size in (1, 7))
    assert one == pytest.approx(seven, rel=1e-9)


@pytest.mark.parametrize(
    "name, options",
    [
        ("epsilon", {}),
        ("udlm", {}),
        ("gidd", {"hyperschedule": Slide(4, 1)}),
        ("mdlm", {"discrete": True, "hyperschedule": Flat(4)}),
    ],
    ids=str,
)
def test_the_standard_error_is_right(name, options):
    """Over 200 seeds the spread of the estimates is what they state: a χ² test, and the stated
    variance varies itself.
    """
    model, seeds = untrained(name, 0.4), 200
    found = [measured(model, 4, draws=4, seed=seed, **options) for seed in range(seeds)]
    for key in found[0]:
        nats = torch.tensor([bounds[key].nats for bounds in found], dtype=torch.float64)
        stated = torch.tensor(
            [bounds[key].standard_error ** 2 for bounds in found], dtype=torch.float64
        )
        uncertain = math.sqrt(2 / (seeds - 1) + float(stated.var() / stated.mean() ** 2) / seeds)
        assert abs(math.log(float(nats.var() / stated.mean()))) < 4 * uncertain, key


def test_loss_and_bound_agree():
    """The loss of a NELBO objective is a draw of what is measured: for every schedule, their means
    meet.
    """
    for name, schedule in (
        ("udlm", Flat(4)),
        ("mdlm", Block(4, 4)),
        ("gidd", Slide(4, 2)),
        ("epsilon_smooth", QuenchedAR()),
    ):
        model = untrained(name, 0.3, hyperschedule=schedule)
        (batch,) = rows(8)()
        draws = torch.tensor(
            [
                float(
                    a_bound(model.process, schedule)
                    .nats(
                        model.network,
                        replace(batch, slot=batch.slot + 8 * step),
                        Noise(7, batch.slot + 8 * step),
                    )
                    .values.sum()
                )
                for step in range(150)
            ]
        ) / (8 * 16)
        (bound, *_) = measured(model, draws=32).values()
        error = math.hypot(float(draws.std()) / math.sqrt(len(draws)), bound.standard_error)
        assert abs(float(draws.mean()) - bound.nats) < 4.5 * error + 1e-5, name


def test_draws_are_checked():
    for draws in (0, 1, 3, 130, -2):
        with pytest.raises(ValueError, match="draws must be an even number in 2"):
            measured(untrained("mdlm"), 2, draws=draws)


def test_a_text_without_rows_is_refused():
    with pytest.raises(ValueError, match="there is no row to score"):
        perplexity.measure(untrained("mdlm"), lambda: [])


# --- more draws until the error is small


def test_draws_are_added_until_the_error_is_small():
    model = untrained("mdlm", 0.3)
    few, many = (measured(model, 8, draws=8, until_se=error)["NELBO"] for error in (10.0, None))
    assert few == many and few.draws == 8
    wanted = few.standard_error / 2
    more = measured(model, 8, draws=8, until_se=wanted)["NELBO"]
    assert more.standard_error <= wanted and 8 < more.draws < 128
    assert more == measured(model, 8, draws=more.draws)["NELBO"]
    assert measured(model, 2, draws=2, until_se=1e-9)["NELBO"].draws == 128
    assert measured(untrained("ar"), 2, until_se=1e-9)["exact -log p"].draws == 1
    for error in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="to reach must be above 0"):
            measured(model, 2, until_se=error)


# --- the chain rule along random orders


ORDERED = [
    (Flat(4), "aligned"),
    (Flat(4), "shifted"),
    (Block(2, 2), "aligned"),
    (Block(3, 3), "shifted"),
    (Block(3, 2), "aligned"),
]


def along_random(network, batch, schedule, noise):
    """Nats and t along a random order of each group."""
    orders = Orders(batch, schedule)
    return orders.nats(network, orders.random(noise))


@pytest.mark.parametrize("schedule, layout", ORDERED, ids=str)
@pytest.mark.parametrize("example", [0, 1])
def test_along_an_order_the_probabilities_of_all_texts_add_up_to_one(schedule, layout, example):
    """So it is -log p, with no bound in between: a token saw nothing but those before it in the
    order.
    """
    N, L = 3, 4
    ids = torch.cartesian_prod(*[torch.arange(N)] * L)
    index = torch.full((len(ids),), example)  # one order for all
    network = random_transformer(N, sees_time=False, layout=layout)
    nats, t = along_random(network, Batch(ids, index, index), schedule, Noise(4, index))
    assert float((-nats.sum(-1)).exp().sum()) == pytest.approx(1.0, abs=1e-10)
    groups = schedule.plan(L).group
    size = torch.bincount(groups)[groups]
    places = [sorted((t * size)[0, groups == group].tolist()) for group in groups.unique()]
    assert all(
        place == pytest.approx(list(range(1, len(place) + 1))) for place in places
    )  # l of d, each once
    ends = torch.ones_like(ids, dtype=torch.bool)
    ends[:, 2:] = False
    dead = groups > groups[1]  # behind the block of the row's end
    stopped = Batch(ids, index, index, ends)
    if schedule.plan(L).flat:
        with pytest.raises(ValueError, match="cannot stop at the end of a row"):
            along_random(network, stopped, schedule, Noise(4, index))
        return
    kept, _ = along_random(network, stopped, schedule, Noise(4, index))
    assert bool((kept[:, dead] == 0).all()) and bool((kept[:, ~dead] > 0).all())
    alive = (-kept.sum(-1)).exp()[:: N ** int(dead.sum())]
    assert float(alive.sum()) == pytest.approx(1.0, abs=1e-10)


def test_the_chain_rule_of_an_order_by_hand():
    """Flat: token by token with a call each, the true ones before it in the order visible."""
    network, L, N = random_transformer(5, sees_time=False), 6, 5
    ids = torch.randint(N, (3, L), generator=torch.Generator().manual_seed(0))
    noise = Noise(4, torch.arange(3))
    nats, t = along_random(network, Batch(ids, torch.arange(3), torch.arange(3)), Flat(4), noise)
    u = noise.positions(ids, Stream.ORDER)
    for row in range(3):
        order = (-u[row]).argsort().tolist()
        for place, i in enumerate(order):
            z = ids[row : row + 1].clone()
            z[0, order[place:]] = N
            expected = -network(z)[0, i].log_softmax(-1)[ids[row, i]]
            assert float(nats[row, i]) == pytest.approx(float(expected), abs=1e-12)
            assert float(t[row, i]) == pytest.approx((L - place) / L)


@pytest.mark.parametrize("name, which", [("mdlm", "NELBO"), ("epsilon", "B1")])
def test_random_orders_have_the_bound_as_their_mean(name, which):
    model = untrained(name, 0.3)
    one, two = [
        b
        for b in perplexity.measure(model, rows(8), draws=64, any_order=True)
        if b.name.startswith(which)
    ]
    assert (one.estimator, two.estimator) == (
        "mask count, continuous time",
        "chain rule of random orders, continuous time",
    )
    assert abs(one.nats - two.nats) < 4.5 * math.hypot(one.standard_error, two.standard_error)
    assert two.standard_error < one.standard_error / 2


@pytest.mark.parametrize(
    "name, options",
    [("gamma", {}), ("udlm", {}), ("mdlm", {"hyperschedule": Slide(4, 2)}), ("epsilon_smooth", {})],
)
def test_no_mean_over_orders(name, options):
    with pytest.raises(ValueError, match="is no mean over orders"):
        measured(untrained(name), 2, draws=2, any_order=True, **options)


# --- where the nats are


def test_the_errors_along_a_row_are_the_spread():
    """What is stated at each position is what draws of other seeds differ by."""
    model, text = untrained("epsilon", 0.3), rows(2)
    nats, stated = [], []
    for seed in range(120):
        bound = perplexity.measure(model, text, draws=4, seed=seed)[0]
        nats.append(bound.by_position.nats)
        stated.append(bound.by_position.standard_error)
    spread = torch.tensor(nats).var(0).mean().sqrt()
    ratio = float(torch.tensor(stated).square().mean().sqrt() / spread)
    assert 0.85 < ratio < 1.15, ratio


def test_curves_add_up():
    for name in ("epsilon", "gidd"):
        for bound in measured(untrained(name, 0.3), 8, draws=4).values():
            assert bound.by_position.x == list(range(16))
            assert sum(bound.by_position.nats) / 16 == pytest.approx(bound.nats, rel=1e-9)
            assert all(error > 0 for error in bound.by_position.standard_error)
            assert all(0 < x <= 1 for x in bound.by_level.x) and len(bound.by_level.x) > 8
            assert bound.by_level.standard_error is None  # not known: levels are no two halves
    (bound,) = measured(untrained("ar", 0.3), 8).values()
    assert bound.by_level.x == [1.0] and bound.by_level.nats == [pytest.approx(bound.nats)]
    (bound,) = measured(untrained("gidd", 0.3, hyperschedule=Slide(4, 1)), 8, draws=4).values()
    assert bound.by_level.x == [0.25, 0.5, 0.75, 1.0]


def test_long_rows_are_put_together():
    bins = place_bins(1000)
    assert (
        bins[0] == 0
        and bins[-1] == 63
        and bool((bins.diff() >= 0).all())
        and bins.bincount().min() >= 15
    )
    assert level_bins(
        torch.tensor([1e-12, 1 / 16, 1 / 16 + 1e-9, 1.0], dtype=torch.float64)
    ).tolist() == [0, 0, 1, 15]


def test_entropy_of_counts():
    assert perplexity.unigram_entropy(torch.tensor([1, 1, 2, 0])) == pytest.approx(
        1.5 * math.log(2)
    )


# --- the command


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(tiny.run(), tmp_path / "run", ignore=shutil.ignore_patterns("results"))


def evaluate(run, *words):
    """The JSON that the command writes."""
    main(
        [
            "evaluate",
            "perplexity",
            str(run),
            "--draws",
            "2",
            "--limit",
            "6",
            "--output",
            str(run / "out.json"),
            *words,
        ]
    )
    return json.loads((run / "out.json").read_text())


def test_the_json_says_where_the_number_comes_from(run, capsys):
    main(["evaluate", "perplexity", str(run), "--seed", "3", "--device", "cpu"])
    (path,) = (run / "results").iterdir()
    assert path.name == "perplexity-Files-validation-seed3.json"
    found = json.loads(path.read_text())
    names = [bound["name"].split(":")[0] for bound in found["bounds"]]
    assert names == ["B3", "B1", "B2"]
    # learnt filler is scored, but none of the tokens
    assert 0 < found["data"]["rows"] * 16 - found["bounds"][0]["tokens"] < 16
    for field in (
        "process",
        "hyperschedule",
        "estimator",
        "nats",
        "bits",
        "perplexity",
        "standard_error",
        "draws",
        "sequences",
    ):
        assert field in found["bounds"][0]
    assert found["data"].keys() >= {
        "corpus",
        "revision",
        "sha256",
        "split",
        "tokenizer",
        "length",
        "documents",
        "padding",
        "eos",
    }
    assert found["weights_sha256"] == textdiff.files.sha256(run / "model.safetensors")
    assert (found["dtype"], found["device"], found["seed"], found["run"]) == (
        "float32",
        "cpu",
        3,
        "run",
    )
    assert (
        found["versions"]["torch"] == torch.__version__
        and found["textdiff"] == textdiff.__version__
    )
    assert found["process"]["class_path"] == "textdiff.process.EpsilonHybrid"
    printed = capsys.readouterr().out
    assert f"{found['bounds'][0]['nats']:.4f}" in printed and str(path) in printed


def test_the_command_does_not_depend_on_the_batch(run):
    one, four = (evaluate(run, "--batch-size", size)["bounds"] for size in ("1", "4"))
    for a, b in zip(one, four, strict=True):
        assert a["nats"] == pytest.approx(b["nats"], rel=1e-6) and a["tokens"] == b["tokens"] == 96
    other = evaluate(run, "--seed", "1")["bounds"]
    assert other[0]["nats"] != one[0]["nats"]


def test_corpora_of_the_command(run, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": tiny.LINE}) + "\n" for _ in range(3))
    )
    (tmp_path / "a.txt").write_text(tiny.LINE * 3)
    for word, corpus in (("a.jsonl", "Files"), ("a.txt", "Files")):
        found = evaluate(run, "--corpus", str(tmp_path / word), "--split", "train")
        assert found["data"]["corpus"] == corpus and found["data"]["source"] == [
            str(tmp_path / word)
        ]
    found = evaluate(run, "--corpus", "TinyShakespeare", "--split", "test", "--length", "8")
    assert found["data"]["corpus"] == "TinyShakespeare" and found["bounds"][0]["tokens"] == 48
    assert (found["data"]["split"], found["data"]["length"]) == ("test", 8)


def test_bytes_are_those_of_the_text(run, tmp_path):
    """EOS is a token without bytes."""
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": tiny.LINE.strip()}) + "\n" + json.dumps({"text": "a fox"}) + "\n"
    )
    found = evaluate(run, "--corpus", str(tmp_path / "a.jsonl"), "--split", "train")["bounds"][0]
    assert found["text_bytes"] == len(tiny.LINE.strip() + "a fox")
    assert found["tokens"] == len(tiny.LINE.strip()) + 1 + len("a fox") + 1  # filler is none
    expected = found["nats"] * found["tokens"] / math.log(2) / found["text_bytes"]
    assert found["bits_per_byte"] == pytest.approx(expected)


def test_bytes_with_a_byte_level_tokenizer(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ("café ☕\u2028ok ", "", "naïve"))
    )
    files = TextData(Files(*[str(tmp_path / "a.jsonl")] * 3), BPE(300), length=4, padding="ignored")
    packed = files.packed("test")
    assert text_bytes(files.tokenizer, packed) == len("café ☕\u2028ok naïve".encode())
    whole = TextData(
        Files(*[str(tmp_path / "a.jsonl")] * 3), BPE(300), length=4, documents="single"
    ).packed("test")
    assert text_bytes(files.tokenizer, whole) == len("café ☕\u2028ok naïve".encode())
    assert text_bytes(files.tokenizer, packed.first(1)) < len("café ☕\u2028ok naïve".encode())


def test_several_texts_at_once(run, tmp_path, capsys):
    (tmp_path / "ag_news").mkdir()
    (tmp_path / "ag_news" / "test.jsonl").write_text(json.dumps({"text": tiny.LINE.strip()}) + "\n")
    words = [
        "--corpus",
        "ag_news",
        str(tiny.text()),
        "--data-dir",
        str(tmp_path),
        "--draws",
        "2",
        "--limit",
        "6",
        "--plot",
    ]
    main(["evaluate", "perplexity", str(run), *words])
    name = "perplexity-ag_news-test-first6-draws2"
    assert (
        len(list((run / "results").iterdir())) == 4
        and (run / "results" / f"{name}.png").stat().st_size > 1000
    )
    found = json.loads((run / "results" / f"{name}.json").read_text())
    assert (found["data"]["corpus"], found["data"]["split"], found["data"]["source"]) == (
        "ag_news",
        "test",
        "ag_news/test.jsonl",
    )
    assert (
        found["bounds"][0]["tokens"] == len(tiny.LINE.strip()) + 1
    )  # and EOS; the filler of the last row is not scored
    lines = capsys.readouterr().out.splitlines()
    assert (
        sum(line.startswith("ag_news ") for line in lines) == 1
        and sum(line.startswith(f"{tiny.text()}  ") for line in lines) == 1
    )


def test_every_way_of_measuring_has_a_file_of_its_own(run):
    ways = (
        [],
        ["--seed", "1"],
        ["--draws", "4"],
        ["--until-se", "5"],
        ["--any-order"],
        ["--discrete"],
        ["--limit", "2"],
        ["--length", "8"],
    )
    ways += (
        ["--hyperschedule", "Block(4, 2)"],
        ["--split", "test"],
        ["--corpus", str(tiny.text())],
    )
    for words in ways:
        main(["evaluate", "perplexity", str(run), "--limit", "1", *words])
    assert len(list((run / "results").iterdir())) == len(ways)


def test_the_cap_is_stated(run, capsys):
    main(["evaluate", "perplexity", str(run), "--limit", "1", "--until-se", "1e-9"])
    assert (
        "B3: NELBO with correction: 128 draws, the most there are, leave a standard error of"
        in capsys.readouterr().out
    )


FLOAT32 = 2e-7  # relative
READS = """
import sys
from textdiff.commands.cli import main
from textdiff.data import Files
read = Files.documents

def documents(self, split):
    print("reads", split)
    return read(self, split)

Files.documents = documents
main(sys.argv[1:])
"""


def test_two_processes_measure_what_one_does(run, tmp_path):
    """Each rank scores its share of the rows; one row a call, so that only the last float32 digit
    of a product of few rows may differ, whose order depends on where the memory lies.
    """
    words = [
        "evaluate",
        "perplexity",
        str(run),
        "--draws",
        "4",
        "--limit",
        "7",
        "--batch-size",
        "1",
        "--until-se",
        "0.1",
        "--device",
        "cpu",
    ]
    main([*words, "--output", str(tmp_path / "one.json")])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in range(2):
        extra = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        command = [
            sys.executable,
            "-c",
            READS,
            *words,
            "--output",
            str(tmp_path / "two.json"),
        ]
        ranks.append(
            subprocess.Popen(
                command,
                env=os.environ | extra | {"GLOO_SOCKET_IFNAME": "lo"},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    printed = [process.communicate(timeout=300)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert "B3" in printed[0] and not printed[1]
    assert printed[0].count("reads validation") == 1  # the other one maps the rows into memory
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert (one["world_size"], two["world_size"]) == (1, 2)
    for a, b in zip(one["bounds"], two["bounds"], strict=True):
        assert (
            a["tokens"] == b["tokens"] == 7 * 16
            and a["draws"] == b["draws"]
            and a["text_bytes"] == b["text_bytes"]
        )
        for key in ("nats", "standard_error"):
            assert a[key] == pytest.approx(b[key], rel=FLOAT32, abs=1e-15)
        for key in ("by_position", "by_level"):
            for column in ("x", "nats", *["standard_error"] * (key == "by_position")):
                assert a[key][column] == pytest.approx(b[key][column], rel=FLOAT32)


def test_schedules_of_the_command(run, capsys):
    assert evaluate(run, "--discrete")["bounds"][0]["estimator"] == "stratified, 64-step"
    found = evaluate(run, "--hyperschedule", "Block(4, 2)")["bounds"][0]
    assert (found["hyperschedule"], found["estimator"]) == (str(Block(4, 2)), "stratified, 2-step")
    assert "see other contexts and windows than in training" in capsys.readouterr().err


def test_autoregression_through_the_command():
    run = tiny.run("ar")
    found = evaluate(run)
    (bound,) = found["bounds"]
    assert (bound["name"], bound["estimator"], bound["standard_error"]) == (
        "exact -log p",
        "exact chain rule",
        0.0,
    )
    assert bound["nats"] < math.log(32)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--corpus", "nope.txt"], "there is no corpus 'nope.txt': give one of wikitext2"),
        (["--corpus", "."], "bad.jsonl, line 1 is not JSON"),  # a folder is all its texts
        (["--corpus", "Nope(1)"], "there is no corpus"),
        (["--corpus", "empty.txt"], "holds no text"),
        (["--corpus", "bad.txt"], "not UTF-8"),
        (["--corpus", "bad.jsonl"], "line 1 is not JSON"),
        (["--corpus", "Files(nope=1)"], "takes no argument nope"),
        (["--split", "nope"], "invalid choice"),
        (["--draws", "3"], "draws must be an even number"),
        (["--limit", "0"], "--limit must be >= 1"),
        (["--limit", "-1"], "--limit must be >= 1"),
        (["--length", "0"], "length must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be >= 1"),
        (["--device", "nope"], "--device nope cannot be used"),
        (["--hyperschedule", "Nope"], "unknown hyperschedule"),
        (["--draw", "2"], "unrecognized arguments"),
        (["--until-se", "0"], "to reach must be above 0"),
        (
            ["--corpus", "lambada", "--split", "validation", "--data-dir", "."],
            "lambada has no validation split, only test",
        ),
        (["--corpus", "ag_news", "--data-dir", "nope"], "is not there: mend data_dir"),
        (["--corpus", "ag_news", "--data-dir", "."], "put the rows into DATA/ag_news/test.jsonl"),
        (["--corpus", "TinyShakespeare", "ag_news", "--output", "x.json"], "--output is one file"),
        (["--output", "run"], "it is a folder"),
    ],
)
def test_errors_leave_nothing_behind(run, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "bad.jsonl").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    assert message in tiny.refused(
        capsys, ["evaluate", "perplexity", str(run), "--limit", "4", *words]
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_schedule_that_the_layout_cannot_follow(capsys):
    backwards = f"StartSteps(1, {tuple(reversed(range(16)))})"
    words = ["evaluate", "perplexity", str(tiny.run("ar")), "--hyperschedule", backwards]
    assert "shifted layout needs a hyperschedule from left to right" in tiny.refused(capsys, words)


def test_help_and_usage(capsys):
    main(["evaluate", "--help"])
    assert "usage: textdiff evaluate perplexity ..." in capsys.readouterr().out
    for words in ([], ["nope"]):
        assert "textdiff evaluate needs one of: evaluate perplexity" in tiny.refused(
            capsys, ["evaluate", *words]
        )


# --- errors that rest on few rows


def test_heavy_tails_are_told():
    """One row that varies among many that do not: the error rests on it alone."""
    from textdiff.objective.measured import Measured

    made = {"process": "", "hyperschedule": "", "estimator": "", "nats": 1.0, "draws": 2}
    made |= {"standard_error": 0.1, "tokens": 9, "sequences": 32}
    assert Measured("NELBO", **made, rows_of_error=1.3).is_rough
    assert not Measured("NELBO", **made, rows_of_error=9.0).is_rough
    assert not Measured("NELBO", **made).is_rough
    assert not Measured("NELBO", **made | {"sequences": 4}, rows_of_error=1.0).is_rough


def test_how_many_rows_an_error_rests_on():
    (bound, *_) = perplexity.measure(untrained("epsilon", 0.3), rows(48), draws=4)
    assert 48 / 8 < bound.rows_of_error <= 48 and not bound.is_rough
    (exact,) = measured(untrained("ar", 0.3), 8).values()
    assert exact.rows_of_error is None and not exact.is_rough
    told = bound.as_dict()
    assert told["rows_of_error"] == bound.rows_of_error
